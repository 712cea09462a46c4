//! Documents as text and as values, without a database.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Document, Outline};

fn document(text: &str) -> Document {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn text_stays_as_it_was_written() {
    for text in [
        "9007199254740993",
        "-0.0000000000000000000000000000000000000001",
        "[1e400, 1E+2]",
        r#"{"b": 1, "a": 2, "b": 3}"#,
        " \t\r\n{ \"a\" : [ ] } \n",
        r#""\ud83d\ude00 \/ é""#,
    ] {
        let read = document(text);
        assert_eq!(read.as_str(), text);
        assert_eq!(
            (read.to_string(), format!("{read:?}")),
            (text.into(), text.into())
        );
        assert_eq!(String::from(read), text);
    }
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (text, line, column) in [
        ("", 1, 0),
        ("[1,\n }", 2, 2),
        ("{} x", 1, 4),
        ("'a'", 1, 1),
        ("01", 1, 2),
        ("\"\u{1}\"", 1, 1),
        ("\u{feff}{}", 1, 1),
        (r#""\ud800""#, 1, 2),
        ("[\n \"é\\udc00\"]", 2, 5),
        (r#""\ud800 \udc00""#, 1, 2),
        (r#""\ud800\ud800\udc00""#, 1, 2),
        (r#""\ud800\n""#, 1, 2),
    ] {
        let error = text.parse::<Document>().expect_err(text);
        assert_eq!(
            (error.line(), error.column()),
            (line, column),
            "{text}: {error}"
        );
        assert!(!error.problem().contains("line"), "{error}");
        let tried = Document::try_from(text.to_owned());
        assert_eq!(tried, Err(error), "{text}");
    }
}

#[test]
fn equal_are_those_of_the_same_text() {
    assert_eq!(document("[1]"), json!([1]).into());
    assert_ne!(document("[ 1]"), document("[1]"));
    assert_ne!(document("1.0"), document("1"));
}

#[test]
fn it_is_parsed_when_asked() {
    #[derive(Deserialize)]
    struct Node<'a> {
        name: &'a str,
    }
    let nodes = document(r#"[{"name": "a", "n": 1e400}, {"name": "b"}]"#);
    let read: Vec<Node<'_>> = nodes.read().expect("nodes");
    assert_eq!((read[0].name, read[1].name), ("a", "b"));

    let error = nodes.json().expect_err("no f64 is as large");
    assert_eq!(error.to_string(), "number out of range at line 1 column 25");
    assert_eq!(document("[1.50]").json(), Ok(json!([1.5])));
    assert!(nodes.read::<u8>().is_err());
}

#[test]
fn serde_json_passes_the_text_through() {
    #[derive(Deserialize)]
    struct Row {
        data: Option<Document>,
    }
    let text = r#"{"data":{"z": 9007199254740993, "a": 1e400, "z": []}}"#;
    let row: Row = serde_json::from_str(text).expect("a row");
    let data = row.data.expect("data");
    assert_eq!(data.as_str(), &text[8..text.len() - 1]);
    assert_eq!(
        serde_json::to_string(&[&data]).expect("text"),
        format!("[{data}]")
    );
    let pretty = serde_json::to_string_pretty(&[&data]).expect("text");
    assert!(pretty.contains(data.as_str()), "{pretty}");

    let none: Row = serde_json::from_str(r#"{"data":null}"#).expect("a row");
    assert_eq!(none.data, None);
    let half = serde_json::from_str::<Row>(r#"{"data":"\ud800"}"#);
    assert!(half.is_err());

    let value = json!({"b": [1], "a": null});
    let from_value: Document = serde_json::from_value(value.clone()).expect("a document");
    assert_eq!(serde_json::to_value(&from_value).expect("a value"), value);
}

#[test]
fn an_outline_tells_without_parsing() {
    let outline = |text: &str| {
        let Outline {
            container,
            depth,
            nul,
            digits,
            ..
        } = document(text).outline();
        (container, depth, nul, digits)
    };
    assert_eq!(outline("null"), (false, 0, false, 0));
    assert_eq!(outline(" [[],{\"a\":[\"[[[\"]}]"), (true, 3, false, 0));
    assert_eq!(outline(r#"["\\u0000", "\\\\u0000"]"#), (true, 1, false, 0));
    assert_eq!(outline(r#"{"\u0000": 1}"#), (true, 1, true, 1));
    assert_eq!(outline(r#""\\\u0000""#), (false, 0, true, 0));
    assert_eq!(outline("[-1.25e-10, 7]"), (true, 1, false, 13));
    assert_eq!(
        outline("1e99999999999999999999999"),
        (false, 0, false, usize::MAX)
    );
    assert_eq!(outline(r#""12345\"678""#), (false, 0, false, 0));
}

#[test]
fn depth_takes_no_stack() {
    let deep = 1_000_000;
    let text = "[".repeat(deep) + &"]".repeat(deep);
    assert_eq!(document(&text).outline().depth, deep);
    let mut value = json!([]);
    for _ in 1..deep {
        value = Json::Array(vec![value]);
    }
    assert_eq!(Document::from(value).as_str(), text);
}

/// Any JSON text up to a depth: also with numbers that Rust has no type for,
/// members of the same name, escapes and blanks.
fn any_text() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,60})(\\.[0-9]{1,60})?([eE][+-]?[0-9]{1,4})?";
    let string = r#""([^\x00-\x1f"\\]|\\["\\/bfnrt]|\\u[0-9a-cA-C][0-9a-fA-F]{3}){0,9}""#;
    let leaf = prop_oneof![number, string, "null|true|false"];
    let blank = "[ \t\r\n]{0,2}";
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let padded = (blank, inner, blank).prop_map(|(a, b, c)| a + &b + &c);
        let member = (blank, string, blank, padded.clone())
            .prop_map(|(a, name, b, value)| a + &name + &b + ":" + &value);
        prop_oneof![
            prop::collection::vec(padded, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..6)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any_text()) {
        let read = document(&text);
        prop_assert_eq!(read.as_str(), &text);
        let told = serde_json::to_string(&[&read]).expect("text");
        let again: Vec<Document> = serde_json::from_str(&told).expect("documents");
        prop_assert_eq!(again[0].as_str(), text.trim());
    }

    #[test]
    fn any_value_is_written_as_serde_json_does(value in any_value()) {
        let text = value.to_string();
        prop_assert_eq!(String::from(Document::from(value)), text);
    }

    #[test]
    fn any_value_has_its_outline(value in any_value()) {
        let outline = Document::from(value.clone()).outline();
        let (depth, nul) = look(&value);
        prop_assert_eq!((outline.depth, outline.nul), (depth, nul));
        prop_assert_eq!(outline.container, value.is_array() || value.is_object());
    }

    #[test]
    fn anything_is_refused_or_read(text in "[\\[\\]{}\":,0-9eE.+\\\\udD8c \n-]{0,12}") {
        let same = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        if let Ok(read) = text.parse::<Document>() {
            prop_assert!(same);
            let range = |error: &super::DocumentError| error.problem() == "number out of range";
            prop_assert!(read.json().map_or_else(|error| range(&error), |_| true), "{}", text);
        }
    }
}

fn look(value: &Json) -> (usize, bool) {
    let both = |a: (usize, bool), b: (usize, bool)| (a.0.max(b.0), a.1 || b.1);
    match value {
        Json::String(text) => (0, text.contains('\0')),
        Json::Array(items) => {
            let (depth, nul) = items.iter().map(look).fold((0, false), both);
            (depth + 1, nul)
        }
        Json::Object(members) => {
            let inner = members.iter().map(|(name, value)| {
                let (depth, nul) = look(value);
                (depth, nul || name.contains('\0'))
            });
            let (depth, nul) = inner.fold((0, false), both);
            (depth + 1, nul)
        }
        _ => (0, false),
    }
}
