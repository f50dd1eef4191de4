//! `#[derive(Module)]`: walks the fields of a struct or enum, so that parameters have their field path as name.
//!
//! The one hard idea is what is *not* decided here: whether a field holds parameters. Every field's type answers
//! for itself by implementing `Module`, so a field that nobody thought of is a compile error, never a parameter
//! that is silently left out.

#![forbid(unsafe_code)]

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Member, Path, Result};

/// Implements `Module` for a struct or an enum: each field is visited under its name, or its number in a tuple.
///
/// | attribute | effect |
/// |---|---|
/// | `#[module(skip)]` on a field | the field holds no parameters and is not visited |
/// | `#[module(rename = "name")]` on a field | the field's part of the path |
/// | `#[module(flatten)]` on a field | the field's own parameters stand where the field does |
/// | `#[module(crate = "path")]` on the type | where `Module` is found; `::kiln::nn` if not said |
///
/// An enum visits the fields of the variant that it is; variants have no name in a path.
#[proc_macro_derive(Module, attributes(module))]
pub fn module(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// What attributes say of a field.
#[derive(Default)]
struct FieldOptions {
    skip: bool,
    flatten: bool,
    rename: Option<String>,
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let krate = crate_path(&input.attrs)?;
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(syn::parse_quote!(#krate::Module));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let bodies = |method: &Ident| -> Result<TokenStream> {
        match &input.data {
            Data::Struct(data) => {
                let arm = arm(&krate, quote!(#name), &data.fields, method)?;
                Ok(quote!(match self { #arm }))
            }
            Data::Enum(data) => {
                let arms = data.variants.iter().map(|variant| {
                    let ident = &variant.ident;
                    arm(&krate, quote!(#name::#ident), &variant.fields, method)
                });
                let arms = arms.collect::<Result<Vec<_>>>()?;
                Ok(if arms.is_empty() { quote!() } else { quote!(match self { #(#arms)* }) })
            }
            Data::Union(_) => Err(Error::new(name.span(), "a union cannot be a module")),
        }
    };
    let visit = bodies(&format_ident!("visit"))?;
    let visit_mut = bodies(&format_ident!("visit_mut"))?;
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #krate::Module for #name #type_generics #where_clause {
            #[allow(unused_variables)]
            fn visit<'module>(
                &'module self,
                at: &mut #krate::Path,
                f: &mut dyn ::core::ops::FnMut(&#krate::Path, #krate::Leaf<'module>),
            ) {
                #visit
            }

            #[allow(unused_variables)]
            fn visit_mut<'module>(
                &'module mut self,
                at: &mut #krate::Path,
                f: &mut dyn ::core::ops::FnMut(&#krate::Path, #krate::LeafMut<'module>),
            ) {
                #visit_mut
            }
        }
    })
}

/// The arm of a `match self` that takes a variant apart and visits its fields.
fn arm(krate: &Path, variant: TokenStream, fields: &Fields, method: &Ident) -> Result<TokenStream> {
    let (mut patterns, mut visits) = (Vec::new(), Vec::new());
    for (n, field) in fields.iter().enumerate() {
        let options = field_options(&field.attrs)?;
        if options.skip {
            continue;
        }
        let member = field.ident.clone().map_or_else(|| Member::from(n), Member::from);
        let value = format_ident!("field_{n}", span = field.span());
        patterns.push(quote!(#member: #value,));
        let visited = quote!(#krate::Module::#method(#value, at, f));
        visits.push(if options.flatten {
            quote!(#visited;)
        } else {
            let plain = field.ident.as_ref().map_or_else(|| n.to_string(), |i| i.to_string());
            let plain = plain.strip_prefix("r#").map_or(plain.clone(), str::to_owned);
            let name = options.rename.unwrap_or(plain);
            quote!(at.enter(#name, |at| #visited);)
        });
    }
    Ok(quote!(#variant { #(#patterns)* .. } => { #(#visits)* }))
}

fn crate_path(attrs: &[Attribute]) -> Result<Path> {
    let mut path: Path = syn::parse_quote!(::kiln::nn);
    for attr in attrs.iter().filter(|a| a.path().is_ident("module")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("expected `crate = \"path\"`"));
            }
            path = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    Ok(path)
}

fn field_options(attrs: &[Attribute]) -> Result<FieldOptions> {
    let mut options = FieldOptions::default();
    for attr in attrs.iter().filter(|a| a.path().is_ident("module")) {
        attr.parse_nested_meta(|meta| {
            match () {
                () if meta.path.is_ident("skip") => options.skip = true,
                () if meta.path.is_ident("flatten") => options.flatten = true,
                () if meta.path.is_ident("rename") => {
                    let name = meta.value()?.parse::<LitStr>()?;
                    if name.value().is_empty() {
                        return Err(Error::new(name.span(), "a name is not empty; help: `flatten` leaves it out"));
                    }
                    options.rename = Some(name.value());
                }
                () => return Err(meta.error("expected `skip`, `flatten` or `rename = \"name\"`")),
            }
            Ok(())
        })?;
    }
    if options.skip && (options.flatten || options.rename.is_some()) {
        return Err(Error::new(Span::call_site(), "a field that is skipped has no place in a path"));
    }
    Ok(options)
}
