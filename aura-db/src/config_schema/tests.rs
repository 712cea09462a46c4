use super::*;
use serde_json::{Map, json};

async fn run(schema: &Value, config: Value) -> Result<Vec<ConfigProblem>> {
    let limit = Duration::from_secs(30);
    timeout(limit, check(schema.clone(), config))
        .await
        .expect("ends by itself")
}

fn nested(levels: usize, start: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(start, |inner, _| wrap(inner))
}

fn list(inner: Value) -> Value {
    Value::Array(vec![inner])
}

/// `d0` includes `d1`, which includes `d2`, and so on.
fn chain(levels: usize, last: Value, wrap: impl Fn(Value) -> Value) -> Value {
    let next = |i| wrap(json!({"$ref": format!("#/$defs/d{}", i + 1)}));
    let mut defs: Map<_, _> = (0..levels).map(|i| (format!("d{i}"), next(i))).collect();
    defs.insert(format!("d{levels}"), last);
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

#[tokio::test]
async fn a_config_is_checked() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/p.json",
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": {
            "url": {"format": "uri"}, "id": {"pattern": "^[a-z]{1,63}$"},
            "tree": {"$ref": "#/definitions/a%20tree"}, "name": {"pattern": "^\\p{L}+$"}
        },
        "definitions": {"a tree": {"type": "array", "items": {"$ref": "#/definitions/a%20tree"}}}
    });
    let tree = nested(100, json!([]), list);
    let config = json!({"url": "https://example.com", "id": "abc", "tree": tree, "name": "Zoë"});
    assert_eq!(
        compile(&schema).and_then(|checker| checker.check(&config)),
        Ok(vec![])
    );
    let found = run(
        &schema,
        json!({"url": "no", "id": "A", "tree": [[], [1]], "x": 1}),
    )
    .await;
    let mut found: Vec<_> = found
        .expect("checked")
        .iter()
        .map(ToString::to_string)
        .collect();
    found.sort();
    let expected = [
        "/id: value does not match \"^[a-z]{1,63}$\"",
        "/tree/1/0: value is not of type \"array\"",
        "/url: value is not a \"uri\"",
        ": Additional properties are not allowed ('x' was unexpected)",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_schema_is_refused() {
    let patterns: Map<_, _> = (0..300).map(|i| (format!("^{i}"), json!(true))).collect();
    let twice = |next| json!({"anyOf": [next, next]});
    let draft = "https://json-schema.org/draft/2020-12/schema";
    for (expected, schemas) in [
        (
            "refers to something outside it",
            json!([
                {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///etc/passwd"}, {"$ref": draft},
                {"$defs": {"unused": {"$ref": "//127.0.0.1:9/x"}}}, {"$ref": "#anchor"}, {"$ref": "#/%+5", "\u{5}": true},
                {"contentSchema": {"$ref": "relative.json#/a"}}, {"$ref": 1},
                {"$schema": "http://127.0.0.1:9/schema"}, {"items": {"$schema": draft}}
            ]),
        ),
        (
            "is not supported",
            json!([
                {"items": {"$id": "http://127.0.0.1:9/"}}, {"$dynamicRef": "#a"},
                {"$ref": "#/x/y", "x": {"id": "file:///", "y": true}}, {"unevaluatedItems": false}
            ]),
        ),
        (
            "is invalid",
            json!([
                {"$ref": "#/nowhere"}, {"type": "strin"}, [1],
                {"patternProperties": {"(": true}}, {"anyOf": [1]}, {"anyOf": {}}
            ]),
        ),
        (
            "not a regular expression",
            json!([
                {"pattern": "^(?=a)b(?!c)"}, {"pattern": "((a{1,100}){1,100}){1,100}"}
            ]),
        ),
        (
            "includes itself without end",
            json!([
                {"$ref": "#"}, {"not": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
                {"$ref": "#/$defs/a", "$defs": {
                    "a": {"if": {"$ref": "#/$defs/b"}}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}
                }}
            ]),
        ),
        (
            "too much work",
            json!([
                chain(60, json!(true), twice), chain(60, json!(true), |next| twice(twice(next))),
                {"patternProperties": patterns}, {"pattern": "a".repeat(600)},
                {"anyOf": vec![true; 20_000]}, {"properties": {"k".repeat(2000): true}}
            ]),
        ),
        ("larger than", json!([{"default": "x".repeat(300_000)}])),
        (
            "deeper than",
            json!([nested(65, json!({}), |inner| json!({"allOf": [inner]}))]),
        ),
    ] {
        for schema in schemas.as_array().expect("a list") {
            let told = compile(schema).err();
            let text = told.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains(expected), "{text:?} for {schema}");
            assert_eq!(run(schema, json!({"a": [1]})).await.err(), told);
        }
    }
}

#[tokio::test]
async fn what_costs_too_much_is_refused() {
    let bit = |i: i32, v, bit: i32| {
        if i >> bit & 1 == 1 {
            json!([v])
        } else {
            json!([v, []])
        }
    };
    let alike = (0..8192).map(|i| (0..13).fold(json!([]), |v, n| bit(i, v, n)));
    let twice = json!({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
    let deep = nested(100, json!(1), list);
    let laughs = |next: Value| json!({"anyOf": [{"items": next}, {"items": next}]});
    for (schema, config) in [
        (twice, deep.clone()),
        (chain(60, json!(true), laughs), deep),
        (json!({"uniqueItems": true}), alike.collect()),
        (
            json!({"pattern": "((a{1,30}){1,20}b){1,2}"}),
            json!("a".repeat(1_000_000)),
        ),
        (
            json!({"additionalProperties": {"items": {"type": "string"}}}),
            json!({"k".repeat(500_000): vec![1; 50_000]}),
        ),
        (
            json!({"items": {"not": {"enum": vec![1; 1000]}}}),
            json!(vec![1; 50_000]),
        ),
    ] {
        let found = run(&schema, config).await;
        assert_eq!(
            found,
            Err(SchemaProblem::TooComplex("this config with this schema"))
        );
    }
    let config = json!("a".repeat(50_000) + "!");
    let linear = run(&json!({"pattern": "(a+)+$"}), config).await;
    assert_eq!(linear.map(|found| found.len()), Ok(1));
}

#[tokio::test]
async fn the_stack_is_large_enough() {
    let deep = nested(DEPTH, json!(1), list);
    let items = |inner| json!({"items": inner});
    let any = |inner| json!({"anyOf": [inner]});
    for (schema, config, problems) in [
        (nested(5, items(json!({"$ref": "#"})), any), &deep, 0),
        (nested(62, json!(false), any), &deep, 1),
        (chain(4000, json!(false), items), &deep, 0),
        (
            chain(25, json!({"type": "null"}), |next| {
                items(nested(35, next, any))
            }),
            &deep,
            1,
        ),
    ] {
        let found = run(&schema, config.clone()).await;
        assert_eq!(found.map(|found| found.len()), Ok(problems), "{schema}");
    }
    let found = run(&json!(true), nested(100_000, json!(1), list)).await;
    assert_eq!(found, Err(SchemaProblem::TooDeep("config")));
    let found = run(&json!(true), json!("x".repeat(2_000_000))).await;
    assert_eq!(found, Err(SchemaProblem::TooLarge("config", CONFIG_BYTES)));
}

#[tokio::test]
async fn problems_are_few_and_short() {
    let found = run(&json!({"items": {"type": "null"}}), json!(vec![1; 5000])).await;
    assert_eq!(found.map(|found| found.len()), Ok(PROBLEMS));
    let found = run(&json!({"enum": ["é".repeat(5000)]}), json!(1)).await;
    assert_eq!(found.expect("checked")[0].message.chars().count(), TEXT + 1);
    let found = run(
        &json!({"propertyNames": {"maxLength": 3}}),
        json!({"CANARY": 1}),
    )
    .await;
    let text = found.expect("checked")[0].to_string();
    assert_eq!(
        text,
        ": a key is not allowed: value is longer than 3 characters"
    );
}

#[tokio::test]
async fn problems_have_no_values() {
    let draft = "http://json-schema.org/draft-07/schema";
    for (config, schemas) in [
        (
            json!("CANARY"),
            json!([
                {"type": "null"}, {"type": ["null", "array"]}, {"enum": [1]}, {"const": 1}, false,
                {"maxLength": 1}, {"minLength": 99}, {"pattern": "^x"}, {"format": "email"},
                {"format": "uuid"}, {"not": {"type": "string"}}, {"anyOf": [{"type": "null"}]},
                {"oneOf": [true, true]}, {"oneOf": [false, false]}, {"if": true, "then": false},
                {"$schema": draft, "contentMediaType": "application/json"},
                {"$schema": draft, "contentEncoding": "base64"}
            ]),
        ),
        (
            json!(["CANARY", "CANARY", ["CANARY"]]),
            json!([
                {"contains": {"type": "null"}}, {"maxItems": 1}, {"minItems": 9}, {"items": false},
                {"uniqueItems": true}, {"prefixItems": [true], "items": false},
                {"$schema": draft, "items": [true], "additionalItems": false},
                {"contains": {"type": "string"}, "maxContains": 1}
            ]),
        ),
        (
            json!({"k": "CANARY", "l": {"k": "CANARY"}}),
            json!([
                {"required": ["x"]}, {"maxProperties": 0}, {"minProperties": 9},
                {"additionalProperties": false}, {"dependentRequired": {"k": ["x"]}},
                {"additionalProperties": {"type": "null"}}, {"properties": {"k": false}},
                {"propertyNames": {"pattern": "^x"}}, {"dependentSchemas": {"k": false}}
            ]),
        ),
        (
            json!(8_675_309),
            json!([
                {"maximum": 1}, {"exclusiveMaximum": 1.5}, {"multipleOf": 2}, {"minimum": 1e9}
            ]),
        ),
    ] {
        for schema in schemas.as_array().expect("a list") {
            let found = run(schema, config.clone()).await.expect("checked");
            assert!(!found.is_empty(), "{schema}");
            let text = format!("{found:?}");
            assert!(
                !text.contains("CANARY") && !text.contains("8675309"),
                "{schema}: {text}"
            );
        }
    }
}
