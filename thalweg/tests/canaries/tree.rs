//! A job file as a tree that is changed in one place and written again.

use thalweg::config::{Entry, Node, Position, Value};

/// The paths of all texts.
pub fn places(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Nothing => Vec::new(),
        Value::Text { .. } => vec![node.path.clone()],
        Value::List(items) => items.iter().flat_map(places).collect(),
        Value::Table(entries) => entries.iter().flat_map(|entry| places(&entry.value)).collect(),
    }
}

/// The paths of all tables, each with its keys.
pub fn tables(node: &Node) -> Vec<(String, Vec<String>)> {
    match &node.value {
        Value::Nothing | Value::Text { .. } => Vec::new(),
        Value::List(items) => items.iter().flat_map(tables).collect(),
        Value::Table(entries) => {
            let own = (node.path.clone(), entries.iter().map(|entry| entry.key.clone()).collect());
            let below = entries.iter().flat_map(|entry| tables(&entry.value));
            std::iter::once(own).chain(below).collect()
        }
    }
}

fn changed(node: &Node, path: &str, change: &dyn Fn(&Node) -> Value) -> Node {
    let value = match &node.value {
        _ if node.path == path => change(node),
        Value::List(items) => Value::List(items.iter().map(|item| changed(item, path, change)).collect()),
        Value::Table(entries) => Value::Table(
            entries
                .iter()
                .map(|entry| Entry { value: changed(&entry.value, path, change), ..entry.clone() })
                .collect(),
        ),
        value => value.clone(),
    };
    Node { value, ..node.clone() }
}

/// The tree with another text at a place.
pub fn replace(root: &Node, path: &str, text: &str) -> Node {
    changed(root, path, &|_| Value::Text { text: text.to_string(), quoted: false })
}

/// The tree with one more key in a table.
pub fn insert(root: &Node, path: &str, key: &str) -> Node {
    changed(root, path, &|table| {
        let Value::Table(entries) = &table.value else { panic!("{path} is no table") };
        let value = Value::Text { text: "x".to_string(), quoted: false };
        let value = Node { at: Position::default(), path: String::new(), value };
        let more = Entry { key: key.to_string(), key_at: Position::default(), value };
        Value::Table(entries.iter().cloned().chain([more]).collect())
    })
}

/// The tree as YAML in flow style.
pub fn write(node: &Node) -> String {
    match &node.value {
        Value::Nothing => "null".to_string(),
        Value::Text { text, quoted } => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
            match !quoted && text.chars().all(is_plain) && !text.is_empty() {
                true => text.clone(),
                false => quote(text),
            }
        }
        Value::List(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(", ")),
        Value::Table(entries) => {
            let entries =
                entries.iter().map(|entry| format!("{}: {}", quote(&entry.key), write(&entry.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(",\n"))
        }
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
