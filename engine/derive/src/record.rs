//! Expands `#[derive(Record)]`.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Type};

use crate::field_type;

struct Options {
    krate: Path,
    row: Ident,
}

struct Column<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    docs: Vec<&'a Attribute>,
    name: String,
    is_time: bool,
}

/// The code that implements `Record` for `input`.
///
/// # Errors
/// Every mistake that shows in the syntax, each at its place.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let options = options(input)?;
    let columns = columns(input)?;
    let row = row_view(input, &options, &columns);
    let implementation = implementation(input, &options, &columns);
    Ok(quote! { #row #implementation })
}

fn options(input: &DeriveInput) -> Result<Options> {
    let mut options =
        Options { krate: syn::parse_quote!(::thalweg), row: format_ident!("{}Row", input.ident.unraw()) };
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                options.krate = meta.value()?.parse::<LitStr>()?.parse()?;
            } else if meta.path.is_ident("row") {
                options.row = meta.value()?.parse::<LitStr>()?.parse()?;
            } else {
                return Err(meta.error("a record's struct takes `crate = \"...\"` and `row = \"...\"`"));
            }
            Ok(())
        })?;
    }
    Ok(options)
}

fn columns(input: &DeriveInput) -> Result<Vec<Column<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "a record is a struct: its fields are the columns"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(
            input.ident.span(),
            "a record's fields need names: they are the columns' names",
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "a record cannot be generic: its schema is fixed"));
    }
    if fields.named.is_empty() {
        return Err(Error::new(input.ident.span(), "a record needs at least one field"));
    }
    let mut errors: Option<Error> = None;
    let mut columns = Vec::new();
    for field in &fields.named {
        match column(field) {
            Ok(column) => columns.push(column),
            Err(error) => combine(&mut errors, error),
        }
    }
    check_together(&columns, &mut errors);
    match errors {
        Some(error) => Err(error),
        None => Ok(columns),
    }
}

fn combine(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}

fn column(field: &syn::Field) -> Result<Column<'_>> {
    let Some(ident) = &field.ident else {
        return Err(Error::new_spanned(field, "a record's fields need names"));
    };
    let mut name = ident.unraw().to_string();
    let mut is_time = false;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("time") {
                is_time = true;
            } else {
                return Err(meta.error("a record's field takes `rename = \"...\"` and `time`"));
            }
            Ok(())
        })?;
    }
    if name.is_empty() || name.starts_with("__") {
        let message =
            format!("field `{ident}`: column {name:?} is empty or begins with `__`, which is the engine's");
        return Err(Error::new_spanned(ident, message));
    }
    field_type::check(&ident.unraw().to_string(), &field.ty)?;
    let docs = field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).collect();
    Ok(Column { ident, ty: &field.ty, docs, name, is_time })
}

/// What no single field can tell: a name used twice, a second event time.
fn check_together(columns: &[Column<'_>], errors: &mut Option<Error>) {
    let mut seen = BTreeMap::new();
    for column in columns {
        if let Some(first) = seen.insert(column.name.as_str(), column.ident) {
            let message =
                format!("fields `{first}` and `{}` are both column {:?}", column.ident, column.name);
            combine(errors, Error::new_spanned(column.ident, message));
        }
    }
    for second in columns.iter().filter(|column| column.is_time).skip(1) {
        let message = format!("field `{}`: a record has one event time", second.ident);
        combine(errors, Error::new_spanned(second.ident, message));
    }
}

/// Where the compiler points when a type does not do: at the field's type.
fn at(ty: &Type) -> Span {
    ty.span().resolved_at(Span::call_site())
}

fn row_view(input: &DeriveInput, options: &Options, columns: &[Column<'_>]) -> TokenStream {
    let (vis, record, Options { krate, row }) = (&input.vis, &input.ident, options);
    let fields = columns.iter().map(|column| {
        let Column { ident, ty, docs, name, .. } = column;
        let fallback = docs.is_empty().then(|| {
            let text = format!("Column `{name}`.");
            quote! { #[doc = #text] }
        });
        let value = quote_spanned! {at(ty)=> <#ty as #krate::record::ColumnType>::Value<'a> };
        quote! { #(#docs)* #fallback pub #ident: #value }
    });
    let summary = format!("One [`{record}`], borrowed from its batch.");
    quote! {
        #[doc = #summary]
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(dead_code)]
        #vis struct #row<'a> { #(#fields,)* }

        #[allow(dead_code)]
        impl #row<'_> {
            /// Copies the row out of its batch.
            #vis fn to_record(self) -> #record {
                <#record as #krate::record::Record>::from_row(self)
            }
        }
    }
}

fn implementation(input: &DeriveInput, options: &Options, columns: &[Column<'_>]) -> TokenStream {
    let (record, Options { krate, row }) = (&input.ident, options);
    let idents: Vec<_> = columns.iter().map(|column| column.ident).collect();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let types: Vec<_> = columns
        .iter()
        .map(|column| {
            let ty = column.ty;
            quote_spanned! {at(ty)=> <#ty as __record::ColumnType> }
        })
        .collect();
    let finds = columns.iter().map(|Column { ty, name, .. }| {
        quote_spanned! {at(ty)=> __record::column::<#ty>(records, #name)? }
    });
    let time = columns.iter().find(|column| column.is_time);
    let time_name = match time.map(|column| column.name.as_str()) {
        Some(name) => quote! { ::core::option::Option::Some(#name) },
        None => quote! { ::core::option::Option::None },
    };
    let time_check = time.map(|Column { ty, .. }| {
        quote_spanned! {at(ty)=> const _: fn() = {
            fn is_time<T: __record::TimeColumnType>() {}
            is_time::<#ty>
        }; }
    });
    quote! {
        const _: () = {
            use #krate::record as __record;

            #[doc(hidden)]
            #[derive(Clone, Copy)]
            pub struct __Columns<'a> { #(#idents: &'a #types::Array,)* }

            #[doc(hidden)]
            #[derive(Default)]
            pub struct __Builder { #(#idents: #types::Builder,)* }

            #time_check

            #[automatically_derived]
            impl __record::Record for #record {
                const TIME: ::core::option::Option<&'static str> = #time_name;
                type Row<'a> = #row<'a>;
                type Columns<'a> = __Columns<'a>;
                type Builder = __Builder;

                fn schema() -> __record::export::SchemaRef {
                    static SCHEMA: ::std::sync::LazyLock<__record::export::SchemaRef> =
                        ::std::sync::LazyLock::new(|| {
                            ::std::sync::Arc::new(__record::export::Schema::new(::std::vec![#(
                                __record::export::Field::new(#names, #types::data_type(), #types::NULLABLE)
                            ),*]))
                        });
                    ::std::clone::Clone::clone(&*SCHEMA)
                }

                fn columns(
                    records: &__record::export::RecordBatch,
                ) -> __record::export::Result<__Columns<'_>> {
                    ::core::result::Result::Ok(__Columns { #(#idents: #finds,)* })
                }

                fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a> {
                    #row { #(#idents: #types::read(columns.#idents, row),)* }
                }

                fn as_row(&self) -> Self::Row<'_> {
                    #row { #(#idents: #types::borrow(&self.#idents),)* }
                }

                fn from_row(row: Self::Row<'_>) -> Self {
                    #record { #(#idents: #types::own(row.#idents),)* }
                }

                fn row_bytes(row: Self::Row<'_>) -> usize {
                    0usize #(+ #types::value_bytes(row.#idents))*
                }

                fn append(builder: &mut __Builder, row: Self::Row<'_>) {
                    #(#types::append(&mut builder.#idents, row.#idents);)*
                }

                fn finish(
                    builder: &mut __Builder,
                ) -> __record::export::Result<__record::export::RecordBatch> {
                    let columns = ::std::vec![#(#types::finish(&mut builder.#idents)),*];
                    let schema = <#record as __record::Record>::schema();
                    ::core::result::Result::Ok(__record::export::RecordBatch::try_new(schema, columns)?)
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(source: &str) -> String {
        match expand(&syn::parse_str(source).unwrap()) {
            Ok(tokens) => tokens.to_string().replace(' ', ""),
            Err(errors) => errors.into_iter().map(|error| error.to_string()).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn the_engine_is_found_under_the_facade_or_where_the_user_says() {
        assert!(expanded("struct A { x: i64 }").contains("use::thalweg::recordas__record;"));
        let own = expanded("#[record(crate = \"thalweg_engine\")] struct A { x: i64 }");
        assert!(
            own.contains("usethalweg_engine::recordas__record;") && !own.contains("::thalweg::"),
            "{own}"
        );
    }

    #[test]
    fn the_row_view_has_the_structs_visibility_and_docs() {
        let code = expanded("pub(crate) struct A { /// How many.\n x: i64, y: String }");
        assert!(code.contains("pub(crate)structARow<'a>{#[doc=") && code.contains("Howmany."), "{code}");
        assert!(code.contains("#[doc=\"Column`y`.\"]puby:<Stringas"), "{code}");
    }

    #[test]
    fn raw_names_and_renames_become_columns() {
        let code = expanded("struct A { r#type: i64, #[record(rename = \"dep time\")] d: i64 }");
        assert!(
            code.contains("Field::new(\"type\",") && code.contains("record::export::Field::new(\"deptime\",")
        );
    }

    #[test]
    fn every_mistake_is_told_at_once_and_names_its_field() {
        let message = expanded(
            "struct A { tags: Vec<String>, n: usize, #[record(rename = \"__op\")] op: i8, #[record(tme)] t: i64 }",
        );
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 4, "{message}");
        assert!(lines[0].starts_with("field `tags`: `Vec<String>` cannot be a column"), "{message}");
        assert!(lines[1].starts_with("field `n`: `usize` cannot be a column"), "{message}");
        assert!(lines[2].starts_with("field `op`: column \"__op\""), "{message}");
        assert_eq!(lines[3], "a record's field takes `rename = \"...\"` and `time`");
    }

    #[test]
    fn names_and_times_are_unique() {
        let message = expanded("struct A { a: i64, #[record(rename = \"a\")] b: i64 }");
        assert_eq!(message, "fields `a` and `b` are both column \"a\"");
        let message = expanded("struct A { #[record(time)] a: Timestamp, #[record(time)] b: Timestamp }");
        assert_eq!(message, "field `b`: a record has one event time");
    }

    #[test]
    fn only_plain_structs_with_named_fields_are_records() {
        assert!(expanded("enum A { B }").contains("a record is a struct"));
        assert!(expanded("struct A(i64);").contains("fields need names"));
        assert!(expanded("struct A {}").contains("at least one field"));
        assert!(expanded("struct A<T> { x: T }").contains("cannot be generic"));
        assert!(
            expanded("#[record(rename_all = \"x\")] struct A { x: i64 }").contains("a record's struct takes")
        );
    }
}
