//! The attribute `#[aura_db::test]`, which `aura-db` re-exports with its feature `testing`
//! and documents there.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Error, FnArg, Ident, ItemFn, Path, Result, ReturnType};

/// Runs an `async fn` that takes a `TestDatabase` as tests on SQLite and on PostgreSQL, each
/// on a migrated database of its own: see `aura_db::testing`.
///
/// * `migrations = path` names a function that returns the `Runner` of the application's
///   steps, which are applied after those of AURA's tables.
/// * `sqlite` or `postgres` leaves out the other database.
#[proc_macro_attribute]
pub fn test(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let item: TokenStream = item.into();
    expand(arguments.into(), item.clone())
        .unwrap_or_else(|error| {
            let error = error.into_compile_error();
            // The function stays, for the sake of editors.
            quote! { #error #item }
        })
        .into()
}

/// What stands in the parentheses of the attribute.
#[derive(Default)]
struct Options {
    migrations: Option<Path>,
    only: Option<Ident>,
}

impl Options {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("migrations") && self.migrations.is_none() {
            self.migrations = Some(meta.value()?.parse()?);
            return Ok(());
        }
        let only = ["sqlite", "postgres"]
            .iter()
            .any(|name| meta.path.is_ident(name));
        if only && self.only.is_none() {
            self.only = meta.path.get_ident().cloned();
            return Ok(());
        }
        Err(meta.error(
            "expected `migrations = path::to::runner`, and `sqlite` or `postgres` for a test \
             that runs on one of them only",
        ))
    }
}

fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut options = Options::default();
    syn::meta::parser(|meta| options.read(&meta)).parse2(arguments)?;
    let Options { migrations, only } = options;
    let test: ItemFn = syn::parse2(item)?;
    check(&test)?;

    let name = &test.sig.ident;
    let migrations = migrations.map_or_else(
        || quote! { ::std::option::Option::None },
        |path| quote! { ::std::option::Option::Some(#path) },
    );
    let of_tests = ["ignore", "should_panic", "cfg"];
    let (of_tests, mut of_function): (Vec<_>, Vec<_>) = test
        .attrs
        .iter()
        .partition(|attribute| of_tests.iter().any(|name| attribute.path().is_ident(name)));
    let is_cfg = |attribute: &&syn::Attribute| attribute.path().is_ident("cfg");
    let conditions: Vec<_> = of_tests.iter().copied().filter(is_cfg).collect();
    of_function.extend(&conditions);
    // With `should_panic` a test must return nothing.
    let output = match test.sig.output {
        ReturnType::Default => TokenStream::new(),
        ReturnType::Type(..) => quote! { -> impl ::std::process::Termination },
    };
    let tests = [("sqlite", quote!(Sqlite)), ("postgres", quote!(Postgres))]
        .into_iter()
        .filter(|(backend, _)| only.as_ref().is_none_or(|only| only == backend))
        .map(|(function, backend)| {
            let function = Ident::new(function, name.span());
            quote! {
                #[::core::prelude::v1::test]
                #(#of_tests)*
                fn #function() #output {
                    ::aura_db::testing::run(
                        ::aura_db::testing::Backend::#backend,
                        #migrations,
                        super::#name,
                    )
                }
            }
        });
    let ItemFn {
        vis, sig, block, ..
    } = &test;
    Ok(quote! {
        #[cfg(test)]
        #(#of_function)*
        #vis #sig #block

        #[cfg(test)]
        #(#conditions)*
        mod #name {
            // For the path of the migrations.
            #[allow(unused_imports, clippy::wildcard_imports)]
            use super::*;

            #(#tests)*
        }
    })
}

/// Checks the signature. Its types are the compiler's to check.
fn check(test: &ItemFn) -> Result<()> {
    let signature = &test.sig;
    let name = &signature.ident;
    let expected =
        |what: &str| format!("{what}: `async fn {name}(db: aura_db::testing::TestDatabase)`");
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(
            signature.fn_token,
            expected("a test is `async`"),
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            expected("a test has no generic parameters"),
        ));
    }
    match (signature.inputs.len(), signature.inputs.first()) {
        (1, Some(FnArg::Typed(_))) => Ok(()),
        _ => Err(Error::new_spanned(
            signature,
            expected("a test takes its database as its one parameter"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{TokenStream, expand};

    fn expanded(arguments: &str, item: &str) -> std::result::Result<String, String> {
        let tokens = |text: &str| text.parse::<TokenStream>().expect("tokens");
        expand(tokens(arguments), tokens(item))
            .map(|tokens| tokens.to_string())
            .map_err(|error| error.to_string())
    }

    const TEST: &str = "async fn a(db: TestDatabase) {}";

    #[test]
    fn a_test_is_made_for_each_database() {
        let both = expanded("", TEST).expect("it expands");
        assert!(
            both.contains("fn sqlite") && both.contains("fn postgres"),
            "{both}"
        );
        let one = expanded("postgres, migrations = crate::runner", TEST).expect("it expands");
        assert!(!one.contains("fn sqlite"), "{one}");
        assert!(one.contains("Some (crate :: runner)"), "{one}");
    }

    #[test]
    fn attributes_of_tests_go_to_the_tests() {
        let item = format!("#[ignore = \"slow\"] #[cfg(unix)] #[expect(dead_code)] {TEST}");
        let both = expanded("", &item).expect("it expands");
        let times = |text| both.matches(text).count();
        assert_eq!(
            (times("ignore"), times("cfg (unix)"), times("expect")),
            (2, 4, 1),
            "{both}"
        );
    }

    #[test]
    fn a_wrong_signature_says_what_it_should_be() {
        for (item, words) in [
            (
                "fn a(db: TestDatabase) {}",
                "a test is `async`: `async fn a(db: ",
            ),
            (
                "async fn a() {}",
                "takes its database as its one parameter: `async fn a(db: ",
            ),
            (
                "async fn a(db: TestDatabase, x: u8) {}",
                "its one parameter",
            ),
            ("async fn a(&self) {}", "its one parameter"),
            ("async fn a<T>(db: T) {}", "no generic parameters"),
            ("struct A;", "expected"),
        ] {
            let error = expanded("", item).expect_err("refused");
            assert!(error.contains(words), "{item}: {error}");
        }
        for arguments in [
            "mysql",
            "sqlite, postgres",
            "migrations",
            "migration = a",
            "sqlite = 1",
        ] {
            let error = expanded(arguments, TEST).expect_err("refused");
            assert!(error.contains("expected"), "{arguments}: {error}");
        }
    }
}
