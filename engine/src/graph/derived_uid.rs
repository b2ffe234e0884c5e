//! The uids of nodes that the program does not name. Pure.
//!
//! State is found again by uid, so a derived one must not depend on what else is in the job: it is
//! made of the operator's kind, its key, and the nearest names that were given upstream. Stateless
//! operators have no part in it: putting a filter in renames nothing. Two operators with state that
//! would get the same uid must be named. Nobody looks for a stateless operator again: it is counted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, NodeId, Uid};
use crate::Error;

/// A longer derived uid is cut, and ends with a hash of the whole.
const DERIVED_BYTES_MAX: usize = 100;
/// A name that is given in place of one part of a uid is cut to so many characters.
const STEM_CHARS_MAX: usize = 64;

/// The uid that a node of this name got in earlier versions, and that a stateless one still gets: a
/// count of those before it that have the name too.
///
/// # Errors
/// A user error; none that should come.
pub(super) fn by_place(name: &str, before: usize) -> Result<Uid, Error> {
    let stem: String = name.chars().map(plain).take(STEM_CHARS_MAX).collect();
    let stem = if stem.is_empty() || stem.starts_with('.') { "operator".to_string() } else { stem };
    Uid::new(&format!("{stem}-{}", before + 1))
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
}

/// A column's or node's name as a part of a uid.
fn part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' }).collect()
}

/// Names the nodes that were not `given` a name; answers with what is wrong.
pub(super) fn name_nodes(graph: &mut Graph, given: &[bool]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut taken: BTreeMap<Uid, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| given[*index]) {
        if let Some(first) = taken.insert(node.uid.clone(), index) {
            let name = &graph.nodes[first].name;
            errors.push(format!("uid {} is used twice: by {name} and by {}", node.uid, node.name));
        }
    }
    let above = names_above(graph, given);
    for index in 0..graph.nodes.len() {
        let Some(text) = derived(graph, index, &above[index]).filter(|_| !given[index]) else { continue };
        match Uid::new(&text) {
            Ok(uid) => {
                graph.nodes[index].uid = uid.clone();
                if let Some(first) = taken.insert(uid, index) {
                    errors.push(twice(graph, first, index));
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    for (index, given) in given.iter().enumerate() {
        if *given || graph.nodes[index].identity.is_some() {
            continue;
        }
        let name = graph.nodes[index].name.clone();
        let uid = (0..).map_while(|count| by_place(&name, count).ok()).find(|uid| !taken.contains_key(uid));
        if let Some(uid) = uid {
            taken.insert(uid.clone(), index);
            graph.nodes[index].uid = uid;
        }
    }
    errors.extend(wrong_earlier_names(graph));
    errors
}

fn twice(graph: &Graph, first: usize, second: usize) -> String {
    let uid = &graph.nodes[second].uid;
    let said = |index: usize| match &graph.nodes[index].identity {
        Some(identity) => identity.to_string(),
        None => graph.nodes[index].name.clone(),
    };
    format!(
        "two operators would both be called {uid}, and their state could not be told apart: give one of \
         them a name with `uid`. They are: {}; and: {}",
        said(first),
        said(second)
    )
}

/// The nearest given names above each node, of nodes with state.
fn names_above(graph: &Graph, given: &[bool]) -> Vec<BTreeSet<Uid>> {
    let mut above: Vec<BTreeSet<Uid>> = vec![BTreeSet::new(); graph.nodes.len()];
    for index in 0..graph.nodes.len() {
        for edge in graph.edges.iter().filter(|edge| edge.to == NodeId(index)) {
            let from = edge.from.0;
            if given[from] && graph.nodes[from].identity.is_some() {
                above[index].insert(graph.nodes[from].uid.clone());
            } else {
                let inherited = above[from].clone();
                above[index].extend(inherited);
            }
        }
    }
    above
}

/// `None` for a node without state.
fn derived(graph: &Graph, index: usize, above: &BTreeSet<Uid>) -> Option<String> {
    let identity = graph.nodes[index].identity.as_ref()?;
    let mut text: String = identity.kind().chars().map(plain).collect();
    let key: Vec<String> = identity.key().map(part).collect();
    if !key.is_empty() {
        text.push_str(&format!("-by-{}", key.join("-")));
    }
    let names: Vec<String> = above.iter().map(|uid| part(uid.as_str())).collect();
    if !names.is_empty() {
        text.push_str(&format!("-of-{}", names.join("-and-")));
    }
    if text.len() > DERIVED_BYTES_MAX {
        let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        text = format!("{}-{hash:016x}", &text[..DERIVED_BYTES_MAX]);
    }
    Some(text)
}

/// An earlier name says where state is that belongs to one operator of today.
fn wrong_earlier_names(graph: &Graph) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen: BTreeMap<&Uid, &Uid> = BTreeMap::new();
    for node in &graph.nodes {
        for earlier in &node.uids_before {
            if graph.nodes.iter().any(|other| other.uid == *earlier) {
                errors.push(format!("{}: its earlier uid {earlier} is one of today's uids", node.uid));
            } else if let Some(other) = seen.insert(earlier, &node.uid).filter(|other| **other != node.uid) {
                errors
                    .push(format!("{earlier} is given as the earlier uid of both {other} and {}", node.uid));
            }
        }
    }
    errors
}
