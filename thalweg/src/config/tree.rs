//! The tree: tables, lists and text, each with its position and its path of keys.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::Mistake;

/// How deep tables and lists may nest; a job needs five levels.
const DEPTH_MAX: usize = 64;
/// How many nodes a file may have once its aliases are resolved.
const NODES_MAX: usize = 100_000;

/// A place in a file. Both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Position {
    fn of(marker: &Marker) -> Position {
        Position { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// The path of keys that leads to it: `sources.flights.schema`, `steps.all.inputs[1]`.
    pub path: String,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing was written, or `null` or `~`.
    Nothing,
    /// Text as it was written.
    Text {
        /// The text.
        text: String,
        /// Whether it stood in quotes or in a block.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file; each key once.
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub key_at: Position,
    /// The value.
    pub value: Node,
}

impl Node {
    /// What the node is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Nothing => "nothing",
            Value::Text { .. } => "a value",
            Value::List(_) => "a list",
            Value::Table(_) => "a table of keys",
        }
    }
}

/// Parses one YAML document.
///
/// # Errors
/// The mistakes that keep it from being a tree: syntax, keys that come twice, aliases that
/// explode.
pub fn parse(text: &str) -> Result<Node, Vec<Mistake>> {
    let mut builder =
        Builder { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, mistakes: vec![] };
    match builder.document() {
        Ok(node) if builder.mistakes.is_empty() => Ok(node),
        Ok(_) => Err(builder.mistakes),
        Err(mut mistake) => {
            mistake.message.push_str(colon_hint(text, mistake.at.line));
            builder.mistakes.push(mistake);
            Err(builder.mistakes)
        }
    }
}

/// What is probably wrong with a line that is not YAML and has a value with a colon that YAML takes
/// for another key: `store: memory:`.
fn colon_hint(text: &str, line: usize) -> &'static str {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim());
    if !value.starts_with(['"', '\'', '{', '[']) && (value.ends_with(':') || value.contains(": ")) {
        "; a value with `: ` in it or `:` at its end stands in quotes"
    } else {
        ""
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    mistakes: Vec<Mistake>,
}

fn mistake(at: Position, path: &str, message: impl Into<String>) -> Mistake {
    Mistake { at, path: path.to_string(), message: message.into() }
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Mistake> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = Position::of(error.marker());
                Err(mistake(at, "", format!("this is not YAML: {}", error.info())))
            }
            None => Err(mistake(Position::default(), "", "the file ends too early")),
        }
    }

    fn document(&mut self) -> Result<Node, Mistake> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => {
                    return Ok(Node {
                        at: Position { line: 1, column: 1 },
                        path: String::new(),
                        value: Value::Nothing,
                    });
                }
                event => {
                    let root = self.node(event, span, String::new(), 0)?;
                    return self.nothing_follows().map(|()| root);
                }
            }
        }
    }

    fn nothing_follows(&mut self) -> Result<(), Mistake> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    return Err(mistake(
                        Position::of(&span.start),
                        "",
                        "a second document begins here; expected one",
                    ));
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, nodes: usize, at: Position, path: &str, depth: usize) -> Result<(), Mistake> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(mistake(
                at,
                path,
                format!("the file is too large: at most {NODES_MAX} values, {DEPTH_MAX} levels deep"),
            ));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, path: String, depth: usize) -> Result<Node, Mistake> {
        let at = Position::of(&span.start);
        self.count(1, at, &path, depth)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(&path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.table(&path, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor).cloned() else {
                    return Err(mistake(at, &path, "this alias has no anchor before it"));
                };
                self.count(size(&known), at, &path, depth)?;
                (moved(known, at, &path).value, 0)
            }
            other => return Err(mistake(at, &path, format!("unexpected {other:?}"))),
        };
        let node = Node { at, path, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Value, Mistake> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            let item_path = format!("{path}[{}]", items.len());
            items.push(self.node(event, span, item_path, depth + 1)?);
        }
    }

    fn table(&mut self, path: &str, depth: usize) -> Result<Value, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key_at = Position::of(&span.start);
            let key = match event {
                Event::MappingEnd => return Ok(Value::Table(entries)),
                Event::Scalar(text, _, _, _) => text.into_owned(),
                _ => return Err(mistake(key_at, path, "a key must be a plain word")),
            };
            let key_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, key_path.clone(), depth + 1)?;
            if value.value == Value::Nothing {
                value.at = key_at;
            }
            if let Some(earlier) = entries.iter().find(|entry| entry.key == key) {
                let line = earlier.key_at.line;
                self.mistakes.push(mistake(
                    key_at,
                    &key_path,
                    format!("this key stands twice; the first is on line {line}"),
                ));
            } else {
                entries.push(Entry { key, key_at, value });
            }
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Nothing;
    }
    Value::Text { text: text.to_string(), quoted }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Table(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

/// What an alias stands for, as if it had been written where the alias is.
fn moved(node: Node, at: Position, path: &str) -> Node {
    let value = match node.value {
        Value::List(items) => Value::List(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| moved(item, at, &format!("{path}[{index}]")))
                .collect(),
        ),
        Value::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|entry| {
                    let path = format!("{path}.{}", entry.key);
                    Entry { value: moved(entry.value, at, &path), key_at: at, key: entry.key }
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Node { at, path: path.to_string(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(node: &Node) -> &[Entry] {
        match &node.value {
            Value::Table(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_know_where_they_stand_and_what_leads_to_them() {
        let root = parse("a: 1\nb:\n  c: [x, \"y\"]\n  d:\n").unwrap();
        let b = &table(&root)[1].value;
        let c = &table(b)[0].value;
        let Value::List(items) = &c.value else { panic!() };
        assert_eq!(items[1].at, Position { line: 3, column: 10 });
        assert_eq!(items[1].path, "b.c[1]");
        assert_eq!(items[1].value, Value::Text { text: "y".into(), quoted: true });
        let d = &table(b)[1].value;
        assert_eq!((d.at, &d.value), (Position { line: 4, column: 3 }, &Value::Nothing));
    }

    #[test]
    fn a_key_that_stands_twice_and_bad_syntax_are_mistakes_with_lines() {
        let mistakes = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(mistakes[0].at, Position { line: 3, column: 1 });
        assert!(mistakes[0].message.contains("first is on line 1"), "{mistakes:?}");
        assert_eq!(parse("a: [1, 2\nb: 3\n").unwrap_err().len(), 1);
        assert!(parse("--- \na: 1\n---\nb: 2\n").unwrap_err()[0].message.contains("second document"));
    }

    #[test]
    fn an_alias_stands_for_its_anchor_and_cannot_explode() {
        let root = parse("a: &x {k: 1}\nb: *x\n").unwrap();
        let b = &table(&root)[1].value;
        assert_eq!(table(b)[0].value.path, "b.k");
        assert_eq!(table(b)[0].value.at.line, 2);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let item = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{item}]\n"));
        }
        assert!(parse(&bomb).unwrap_err()[0].message.contains("too large"));
    }
}
