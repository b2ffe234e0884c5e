//! The derives of the engine: `Record` gives a struct its Arrow schema, a borrowed row view and a
//! builder; `StateSize` says how many bytes a state value keeps.
//!
//! This crate knows only syntax. What the generated code calls is in `thalweg-engine`
//! (`record::Record`, `record::ColumnType`, `state::StateSize`), found under a path that the user
//! may set (`#[record(crate = "...")]`, serde's way). The rule: a mistake that shows in the
//! syntax is reported here, at the field and with its name; what only types can tell is left to
//! the traits, whose `on_unimplemented` texts say it.

mod field_type;
mod record;
mod state_size;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `Record` and the row view `<Name>Row<'a>`.
///
/// On the struct: `#[record(crate = "path")]` (default `::thalweg`), `#[record(row = "Name")]`.
/// On a field: `#[record(rename = "column")]`, `#[record(time)]`.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    record::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives `StateSize`: the value's own size and what its fields keep on the heap.
///
/// On the type: `#[state(crate = "path")]` (default `::thalweg`).
#[proc_macro_derive(StateSize, attributes(state))]
pub fn derive_state_size(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    state_size::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
