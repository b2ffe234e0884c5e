//! Expands `#[derive(StateSize)]`: the value's own size, and what each field keeps beyond its
//! own place in the value.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, LitStr, Path, Result, parse_quote};

/// The code that implements `StateSize` for `input`.
///
/// # Errors
/// A union, or an attribute that is not known.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let krate = krate(input)?;
    let body = match &input.data {
        Data::Struct(data) => {
            let (pattern, names) = pattern(&data.fields);
            let sum = sum(&krate, &names);
            quote! { let Self #pattern = self; #sum }
        }
        Data::Enum(data) if data.variants.is_empty() => quote! { match *self {} },
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                let (pattern, names) = pattern(&variant.fields);
                let (ident, sum) = (&variant.ident, sum(&krate, &names));
                quote! { Self::#ident #pattern => { #sum } }
            });
            quote! { match self { #(#arms)* } }
        }
        Data::Union(_) => return Err(Error::new(input.ident.span(), "a union does not know its size")),
    };
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#krate::state::StateSize));
    }
    let (implementation, arguments, conditions) = generics.split_for_impl();
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #implementation #krate::state::StateSize for #ident #arguments #conditions {
            fn state_size(&self) -> usize {
                let heap: usize = { #body };
                ::core::mem::size_of::<Self>() + heap
            }
        }
    })
}

fn krate(input: &DeriveInput) -> Result<Path> {
    let mut krate: Path = parse_quote!(::thalweg);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("a state type takes `crate = \"...\"`"));
            }
            krate = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    Ok(krate)
}

/// A pattern that binds every field, and the names that it binds.
fn pattern(fields: &Fields) -> (TokenStream, Vec<proc_macro2::Ident>) {
    let names: Vec<_> = (0..fields.len()).map(|index| format_ident!("__field{index}")).collect();
    let pattern = match fields {
        Fields::Named(named) => {
            let idents = named.named.iter().map(|field| &field.ident);
            quote! { { #(#idents: #names),* } }
        }
        Fields::Unnamed(_) => quote! { ( #(#names),* ) },
        Fields::Unit => quote! {},
    };
    (pattern, names)
}

fn sum(krate: &Path, names: &[proc_macro2::Ident]) -> TokenStream {
    quote! { 0usize #(+ (#krate::state::StateSize::state_size(#names).saturating_sub(::core::mem::size_of_val(#names))))* }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_parameters_are_bounded_and_the_path_is_the_users() {
        let input = syn::parse_str("#[state(crate = \"crate\")] struct A<T> { x: T }").unwrap();
        let code = expand(&input).unwrap().to_string().replace(' ', "");
        assert!(code.contains("impl<T:crate::state::StateSize>crate::state::StateSizeforA<T>"), "{code}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let input = syn::parse_str("#[state(size = 3)] struct A { x: i64 }").unwrap();
        assert_eq!(expand(&input).unwrap_err().to_string(), "a state type takes `crate = \"...\"`");
    }
}
