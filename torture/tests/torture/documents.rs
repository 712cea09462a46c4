//! Documents of any shape come back as they were written, from both databases,
//! or are refused by both before either has seen them.

use aura_db::{Database, Document, Error, NewUser, NewWorkflow, UserId, Workflow};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use testdb::{Backend, TestDb};

use crate::rounds;

/// JSON as somebody may write it: numbers that no type holds, members of the
/// same name, escapes, blanks, and what PostgreSQL can't hold.
fn any_document() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,60})(\\.[0-9]{1,60})?([eE][+-]?[0-9]{1,4})?";
    let string = r#""([^\x00-\x1f"\\]|\\["\\/bfnrt]|\\u[0-9a-cA-C][0-9a-fA-F]{3}){0,9}""#;
    let odd = prop_oneof![
        Just("\"\\u0000\"".to_owned()),
        Just("\"\\ud800\"".to_owned())
    ];
    let leaf = prop_oneof![9 => number, 9 => string, 3 => "null|true|false", 1 => odd];
    let blank = "[ \t\r\n]{0,2}";
    let value = leaf.prop_recursive(8, 64, 6, move |inner| {
        let member = (string, blank, inner.clone())
            .prop_map(|(name, blank, value)| format!("{name}{blank}:{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|items| items.join(", ")),
            prop::collection::vec(member, 1..6).prop_map(|members| members.join(" ,")),
        ]
        .prop_map(|inside| {
            let object = inside.starts_with('"') && inside.contains("\":");
            if object {
                format!("{{{inside}}}")
            } else {
                format!("[{inside}]")
            }
        })
    });
    (0..140_usize, value).prop_map(|(depth, value)| {
        let depth = if depth < 120 { 1 } else { depth };
        format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth))
    })
}

async fn write(db: &Database, owner: UserId, text: &str) -> Result<Workflow, Vec<String>> {
    let Ok(document) = text.parse::<Document>() else {
        return Err(vec!["not JSON".to_owned()]);
    };
    let new = NewWorkflow::new("w").owner(owner);
    let new = new.settings(document.clone()).nodes(document);
    match db.workflows().create(new).await {
        Ok(flow) => {
            let found = db.workflows().get(flow.id).await.expect("there");
            assert_eq!(found, flow);
            Ok(found)
        }
        Err(Error::Validation(fields)) => {
            Err(fields.into_iter().map(|field| field.to_string()).collect())
        }
        Err(error) => panic!("{text}: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_back_or_are_refused_by_both() {
    let mut databases = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test = TestDb::migrated(backend).await;
        let db = Database::connect(test.plain_config())
            .await
            .expect("it connects");
        let ada = NewUser::new("Ada", "ada@example.org", "correct horse battery");
        let ada = db.users().create(ada).await.expect("created").id;
        databases.push((test, db, ada));
    }
    let mut runner = TestRunner::deterministic();
    let documents = any_document();
    let (mut stored, mut refused) = (0, 0);
    for _ in rounds(150) {
        let text = documents
            .new_tree(&mut runner)
            .expect("a document")
            .current();
        let mut answers = Vec::new();
        for (_, db, ada) in &databases {
            let written = write(db, *ada, &text).await;
            answers.push(written.map(|flow| {
                let same = |document: Option<Document>| {
                    document.is_some_and(|document| document.as_str() == text)
                };
                assert!(same(flow.nodes) && same(flow.settings), "{text}");
            }));
        }
        assert_eq!(answers[0], answers[1], "{text}");
        match answers.pop() {
            Some(Ok(())) => stored += 1,
            _ => refused += 1,
        }
    }
    assert!(
        stored > 0 && refused > 0,
        "{stored} stored, {refused} refused"
    );
    println!("{stored} documents stored by both and equal, {refused} refused by both");
    for (_, db, _) in databases {
        db.close().await;
    }
}
