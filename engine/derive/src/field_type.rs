//! Which field types cannot be columns, as far as syntax can tell, and what to use instead.

use quote::ToTokens;
use syn::{GenericArgument, PathArguments, PathSegment, Type};

const SUPPORTED: &str = "bool, i8 to i64, u8 to u64, f32, f64, String, Vec<u8>, Timestamp, [f32; N], [i8; N], or an Option of one of them";

/// Refuses a type that surely has no column; a type that is not known here may still implement
/// `ColumnType`.
///
/// # Errors
/// An error at the type that names the field and says what it may be.
pub fn check(field: &str, ty: &Type) -> syn::Result<()> {
    let Some(advice) = advice(ty) else {
        return Ok(());
    };
    let shown = ty.to_token_stream().to_string().replace(' ', "");
    let message =
        format!("field `{field}`: `{shown}` cannot be a column: {advice}. A field may be {SUPPORTED}");
    Err(syn::Error::new_spanned(ty, message))
}

fn advice(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::Paren(inner) => advice(&inner.elem),
        Type::Group(inner) => advice(&inner.elem),
        Type::Path(path) => path.path.segments.last().and_then(advice_for_name),
        Type::Reference(_) => {
            Some("a record owns its values (the row view borrows them), so use String for &str")
        }
        Type::Tuple(_) => Some("give each part a field of its own"),
        Type::Array(array) if is_named(&array.elem, "f32") || is_named(&array.elem, "i8") => None,
        Type::Array(_) | Type::Slice(_) => Some("for bytes use Vec<u8>, for vectors [f32; N] or [i8; N]"),
        _ => Some("it has no Arrow type"),
    }
}

fn advice_for_name(segment: &PathSegment) -> Option<&'static str> {
    match segment.ident.to_string().as_str() {
        "usize" => Some("its width depends on the machine, so use u64"),
        "isize" => Some("its width depends on the machine, so use i64"),
        "i128" | "u128" => Some("Arrow has no 128-bit integers"),
        "char" | "str" => Some("use String"),
        "HashMap" | "BTreeMap" | "HashSet" | "BTreeSet" | "VecDeque" => Some("columns hold single values"),
        "Box" | "Rc" | "Arc" | "Cow" => Some("use the value itself"),
        "Vec" => {
            let is_bytes = argument(segment).is_some_and(|ty| is_named(ty, "u8"));
            (!is_bytes).then_some("of the lists only Vec<u8> is a column, of vectors [f32; N] and [i8; N]")
        }
        "Option" => {
            let inner = argument(segment)?;
            if is_named(inner, "Option") {
                Some("a value is missing once or not at all")
            } else {
                advice(inner)
            }
        }
        _ => None,
    }
}

fn argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(ty: &str) -> Option<String> {
        check("x", &syn::parse_str(ty).unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn what_has_a_column_or_may_have_one_passes() {
        let vectors = ["[f32; 384]", "Option<[i8; 4]>"];
        let others =
            ["bool", "u64", "std::string::String", "Vec<u8>", "Option<Vec<u8>>", "Option<f32>", "Tail"];
        for ty in vectors.into_iter().chain(others) {
            assert_eq!(refuse(ty), None, "{ty}");
        }
    }

    #[test]
    fn what_surely_has_none_is_refused_with_advice() {
        for (ty, advice) in [
            ("&'static str", "use String for &str"),
            ("usize", "use u64"),
            ("Option<usize>", "use u64"),
            ("Vec<String>", "only Vec<u8>"),
            ("Option<Option<i64>>", "once or not at all"),
            ("(i64, i64)", "a field of its own"),
            ("[u8; 16]", "use Vec<u8>"),
            ("HashMap<String, i64>", "single values"),
            ("fn()", "no Arrow type"),
        ] {
            let message = refuse(ty).unwrap();
            assert!(message.starts_with("field `x`: `") && message.contains(advice), "{ty}: {message}");
        }
    }
}
