//! What the demo found, for people.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::TOPICS;

const GROUPS_SHOWN: usize = 12;
const ROWS_SHOWN: usize = 4;
const CHARACTERS_SHOWN: usize = 70;

/// A row of the result.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Similar {
    /// The package.
    pub id: String,
    /// What it says of itself.
    pub text: String,
    /// The earlier package that says nearly the same.
    pub duplicate_of: Option<String>,
    /// How nearly: a cosine.
    pub similarity: Option<f64>,
    /// The nearest topics: their lines in `tensor/topics.txt`, from 0.
    pub neighbours: Vec<i64>,
    /// How near: cosines.
    pub scores: Vec<f64>,
}

/// Groups of near-duplicates, the largest first, and for each topic the package that is surest of it.
pub fn show(found: &[Similar]) {
    show_groups(found);
    show_topics(found);
}

fn show_groups(found: &[Similar]) {
    let texts: BTreeMap<&str, &str> = found.iter().map(|row| (row.id.as_str(), row.text.as_str())).collect();
    let mut groups: BTreeMap<&str, Vec<&Similar>> = BTreeMap::new();
    for row in found {
        if let Some(first) = &row.duplicate_of {
            groups.entry(first).or_default().push(row);
        }
    }
    let duplicates: usize = groups.values().map(Vec::len).sum();
    println!("\n{duplicates} packages are near-duplicates of {} others:", groups.len());
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(first, rows)| (Reverse(rows.len()), *first));
    for (first, rows) in groups.iter().take(GROUPS_SHOWN) {
        println!("  {first}: {}", short(texts.get(first).unwrap_or(&"")));
        for row in rows.iter().take(ROWS_SHOWN) {
            println!("    {:.3}  {}: {}", row.similarity.unwrap_or(0.0), row.id, short(&row.text));
        }
        if rows.len() > ROWS_SHOWN {
            println!("    and {} more", rows.len() - ROWS_SHOWN);
        }
    }
}

fn show_topics(found: &[Similar]) {
    let topics: Vec<&str> = TOPICS.lines().collect();
    println!("\nnearest topics, the surest first:");
    let score = |row: &Similar| row.scores.first().copied().unwrap_or(0.0);
    let mut sure: Vec<&Similar> = found.iter().filter(|row| row.duplicate_of.is_none()).collect();
    sure.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut shown: BTreeSet<i64> = BTreeSet::new();
    for row in sure {
        let Some(&topic) = row.neighbours.first() else { continue };
        if shown.insert(topic) {
            let topic = usize::try_from(topic).ok().and_then(|topic| topics.get(topic)).unwrap_or(&"?");
            println!("  {:.3}  {topic} <- {}: {}", score(row), row.id, short(&row.text));
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS_SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}
