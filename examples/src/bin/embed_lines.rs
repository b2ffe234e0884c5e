//! Makes a reference matrix of lines of text, for `kind: nearest`:
//! `embed_lines MODEL topics.txt topics.safetensors`. A line's id is its place, from 0.

use std::path::Path;

use thalweg::operators::tensor::{Element, embed_texts};
use thalweg::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, lines, out] = &arguments[..] else {
        return Err(Error::user("usage: embed_lines MODEL LINES OUT"));
    };
    let opened = SentenceEncoder::open(model, Element::F32);
    let encoder = opened.map_err(|error| Error::user("cannot open the model").caused_by(error))?;
    let text = std::fs::read_to_string(lines);
    let text = text.map_err(|error| Error::external(format!("cannot read {lines}")).caused_by(error))?;
    let matrix = embed_texts("references", &encoder, &text.lines().collect::<Vec<_>>())?;
    matrix.write(Path::new(out)).map_err(|error| Error::external("cannot write it").caused_by(error))
}
