//! Pages, orders and searches, over the users; every list is read the same way.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::entity::users;
use aura_db::page::MAX_PAGE;
use aura_db::sea_orm::{EntityTrait, Set};
use aura_db::users::OwnedRows;
use aura_db::{
    Cursor, Database, Deleted, Error, NewUser, PageRequest, Role, User, UserFilter, UserId,
    UserSort, password,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    filters, searches, what_is_searched_is_literal, orders, a_walk_in_every_order,
    a_walk_while_rows_come_and_go, numbered_pages, sizes, cursors_of_elsewhere,
    forged_cursors, an_empty_list, a_cursor_as_text, only_so_many_are_read,
);

/// Users without passwords, in one statement.
async fn people(db: &Database, names: &[&str]) -> Vec<UserId> {
    let rows = names
        .iter()
        .enumerate()
        .map(|(at, name)| users::ActiveModel {
            name: Set((*name).to_owned()),
            email: Set(format!("p{at}@example.org")),
            hashed_password: Set(password::unusable()),
            role: Set(Role::User),
            is_active: Set(true),
            created_at: Set(db.now() + Duration::from_millis(at as u64 / 2)),
            updated_at: Set(db.now()),
            ..Default::default()
        });
    let writer = db.seaorm().writer().await.expect("open");
    let rows = users::Entity::insert_many(rows).exec_with_returning(&*writer);
    let rows = rows.await.expect("users");
    rows.into_iter().map(|user| user.id).collect()
}

async fn list(db: &Database, filter: UserFilter) -> Vec<User> {
    let list = db.users().list(filter, PageRequest::first(1_000)).await;
    list.expect("a list").items
}

async fn names(db: &Database, filter: UserFilter) -> Vec<String> {
    let users = list(db, filter).await;
    users.into_iter().map(|user| user.name).collect()
}

async fn filters(db: TestDb) {
    let db = open(&db).await;
    for (name, role) in [("a", Role::Admin), ("e", Role::Editor), ("u", Role::User)] {
        let id = user(&db, name).await.id;
        db.users().set_role(id, role).await.expect("a role");
    }
    let off = user(&db, "off").await.id;
    db.users().deactivate(off).await.expect("deactivated");
    let gone = user(&db, "gone").await.id;
    db.users()
        .delete(gone, OwnedRows::Refuse)
        .await
        .expect("deleted");

    let all = UserFilter::new;
    assert_eq!(names(&db, all()).await, ["a", "e", "u", "off"]);
    assert_eq!(names(&db, all().role(Role::Admin)).await, ["a"]);
    assert_eq!(names(&db, all().role(Role::User)).await, ["u", "off"]);
    assert_eq!(names(&db, all().role(Role::Viewer)).await, [""; 0]);
    assert_eq!(names(&db, all().active(true)).await, ["a", "e", "u"]);
    assert_eq!(names(&db, all().active(false)).await, ["off"]);
    let with = |deleted| all().deleted(deleted);
    assert_eq!(names(&db, with(Deleted::Only)).await, ["gone"]);
    assert_eq!(
        names(&db, with(Deleted::Included)).await,
        ["a", "e", "u", "off", "gone"]
    );
    let both = all().role(Role::User).active(true).text("u").descending();
    assert_eq!(names(&db, both).await, ["u"]);
    let found = list(&db, all().role(Role::Admin)).await;
    let read = db.users().get(found[0].id).await.expect("there");
    assert_eq!(found, [read], "a list has whole rows");
}

async fn searches(db: TestDb) {
    let db = open(&db).await;
    people(&db, &["Ada Lovelace", "ADA", "Zoë", "ZOË", "Grace"]).await;
    let found = async |text: &str| names(&db, UserFilter::new().text(text)).await;
    assert_eq!(found("ada").await, ["Ada Lovelace", "ADA"]);
    assert_eq!(found("dA lOVE").await, ["Ada Lovelace"]);
    assert_eq!(found("zo").await, ["Zoë", "ZOË"]);
    assert_eq!(found("zoë").await, ["Zoë"], "only ASCII has no case");
    assert_eq!(found("ZOË").await, ["ZOË"]);
    assert_eq!(found("P4@EXAMPLE").await, ["Grace"], "the address too");
    assert_eq!(found("").await.len(), 5);
    assert_eq!(found("nobody").await, [""; 0]);

    let search = async |text: String| {
        let filter = UserFilter::new().text(text);
        db.users().list(filter, PageRequest::first(1)).await
    };
    search("é".repeat(200)).await.expect("the longest");
    for wrong in ["é".repeat(201), "a\0".to_owned()] {
        assert_eq!(refused(search(wrong).await), ["text"]);
    }
}

async fn what_is_searched_is_literal(db: TestDb) {
    let db = open(&db).await;
    let odd = [
        "100%", "a_b", r"c:\temp", "o'brien", "\"q\"", "[x]", "a*b", "a?b", "$1", "?1", r"\%",
        "--", "{}", "^a$",
    ];
    people(&db, &odd).await;
    people_with(&db, "plain", 100).await;
    for name in odd {
        let found = names(&db, UserFilter::new().text(name)).await;
        let expected: Vec<&str> = odd
            .into_iter()
            .filter(|other| other.contains(name))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(
        names(&db, UserFilter::new().text("%")).await,
        ["100%", r"\%"]
    );
    assert_eq!(names(&db, UserFilter::new().text("_")).await, ["a_b"]);
    assert_eq!(
        names(&db, UserFilter::new().text(r"\")).await,
        [r"c:\temp", r"\%"]
    );
}

async fn people_with(db: &Database, name: &str, number: u32) {
    let new = NewUser::new(name, format!("n{number}@example.org"), "x");
    db.users().create(new).await.expect("a user");
}

async fn orders(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    // By code point: upper case before lower, then the others as they come.
    let sorted = [
        " ", "A", "B", "Z", "a", "a ", "aa", "b", "z", "Ä", "ß", "ä", "İ", "ё", "李", "\u{fffd}",
        "🦀",
    ];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(2, 9);
    shuffled.swap(5, 14);
    let ids = people(&db, &shuffled).await;
    let by = |sort| UserFilter::new().sort(sort);
    assert_eq!(names(&db, by(UserSort::Name)).await, sorted);
    let mut backwards = names(&db, by(UserSort::Name).descending()).await;
    backwards.reverse();
    assert_eq!(backwards, sorted);
    assert_eq!(names(&db, by(UserSort::Id)).await, shuffled);
    assert_eq!(names(&db, by(UserSort::CreatedAt)).await, shuffled);

    clock.advance(Duration::from_secs(1));
    let first = db.users().set_role(ids[0], Role::Viewer).await;
    let newest = by(UserSort::UpdatedAt).descending();
    assert_eq!(list(&db, newest).await.first(), Some(&first.expect("set")));

    let emails: Vec<_> = list(&db, by(UserSort::Email)).await;
    assert!(emails.is_sorted_by(|one, two| one.email < two.email));
}

/// Every page of a list.
async fn walk(db: &Database, filter: &UserFilter, size: u64) -> Vec<User> {
    let (mut all, mut page) = (Vec::new(), PageRequest::first(size));
    loop {
        let list = db.users().list(filter.clone(), page).await.expect("a page");
        assert_eq!(list.total, None);
        assert!(list.items.len() as u64 <= size);
        all.extend(list.items);
        let Some(next) = list.next else { break };
        page = PageRequest::after(next, size);
    }
    all
}

async fn a_walk_in_every_order(db: TestDb) {
    let (db, _) = open_at(&db).await;
    // Names and times that are the same, whole seconds and fractions.
    people(
        &db,
        &["b", "a", "b", "é", "a", "b", "é\"\\,", "\u{1}", "a", "b"],
    )
    .await;
    for sort in [
        UserSort::Id,
        UserSort::Name,
        UserSort::Email,
        UserSort::CreatedAt,
        UserSort::UpdatedAt,
    ] {
        for filter in [
            UserFilter::new().sort(sort),
            UserFilter::new().sort(sort).descending(),
        ] {
            let all = list(&db, filter.clone()).await;
            assert_eq!(all.len(), 10);
            for size in [1, 3, 5, 9, 10, 11] {
                assert_eq!(walk(&db, &filter, size).await, all, "{filter:?} {size}");
            }
        }
    }
}

/// Rows that were there all the time are told once, whatever else happens.
async fn a_walk_while_rows_come_and_go(test: TestDb) {
    let (db, _) = open_at(&test).await;
    let old = people(&db, &["m"; 40]).await;
    let churn = |number: u32| {
        let (db, test, old) = (&db, &test, &old);
        async move {
            // Before and after the place where the walk is.
            for name in ["a", "m", "z"] {
                people_with(
                    db,
                    name,
                    1_000 + number * 3 + u32::from(name.as_bytes()[0]) * 1_000,
                )
                .await;
            }
            // The one that the last page ended with goes too.
            let gone = old[number as usize * 5 + 4];
            test.execute(&format!("DELETE FROM users WHERE id = {gone}"))
                .await;
        }
    };
    for descending in [false, true] {
        let mut filter = UserFilter::new().sort(UserSort::Name);
        if descending {
            filter = filter.descending();
        }
        let (mut seen, mut page) = (Vec::new(), PageRequest::first(5));
        let mut round = if descending { 4 } else { 0 };
        loop {
            let list = db.users().list(filter.clone(), page).await.expect("a page");
            seen.extend(list.items.iter().map(|user| user.id));
            let Some(next) = list.next else { break };
            page = PageRequest::after(next, 5);
            if round < if descending { 8 } else { 4 } {
                churn(round).await;
                round += 1;
            }
        }
        let once: BTreeSet<_> = seen.iter().collect();
        assert_eq!(once.len(), seen.len(), "a row was told twice");
        let there = list(&db, UserFilter::new()).await;
        for user in there.iter().filter(|user| old.contains(&user.id)) {
            assert!(once.contains(&user.id), "{} was skipped", user.id);
        }
    }
}

async fn numbered_pages(db: TestDb) {
    let (db, _) = open_at(&db).await;
    people(&db, &["a", "b", "c", "d", "e", "f", "g"]).await;
    let filter = UserFilter::new().sort(UserSort::Name).descending();
    let page = async |number, size| {
        let page = PageRequest::number(number, size);
        let list = db.users().list(filter.clone(), page).await.expect("a page");
        let names: String = list.items.iter().map(|user| user.name.as_str()).collect();
        (names, list.total, list.next.is_some())
    };
    assert_eq!(page(1, 3).await, ("gfe".to_owned(), Some(7), true));
    assert_eq!(page(2, 3).await, ("dcb".to_owned(), Some(7), true));
    assert_eq!(page(3, 3).await, ("a".to_owned(), Some(7), false));
    assert_eq!(page(4, 3).await, (String::new(), Some(7), false));
    assert_eq!(page(1, 7).await, ("gfedcba".to_owned(), Some(7), false));
    assert_eq!(
        page(i64::MAX as u64 / 1_000, 1_000).await,
        (String::new(), Some(7), false)
    );
    // The total is the filter's.
    let some = UserFilter::new().text("p1@");
    let list = db.users().list(some, PageRequest::number(1, 5)).await;
    assert_eq!(list.expect("a page").total, Some(1));
    // A list can be gone on with from a numbered page.
    let first = db
        .users()
        .list(filter.clone(), PageRequest::number(2, 3))
        .await;
    let next = first.expect("a page").next.expect("there is more");
    let rest = db.users().list(filter, PageRequest::after(next, 3)).await;
    assert_eq!(rest.expect("a page").items[0].name, "a");
}

async fn sizes(db: TestDb) {
    let db = open(&db).await;
    let list = async |page| db.users().list(UserFilter::new(), page).await;
    assert_eq!(MAX_PAGE, 1_000);
    for size in [0, 1_001, u64::MAX] {
        assert_eq!(refused(list(PageRequest::first(size)).await), ["page.size"]);
        assert_eq!(
            refused(list(PageRequest::number(1, size)).await),
            ["page.size"]
        );
    }
    for number in [0, u64::MAX, i64::MAX as u64] {
        assert_eq!(
            refused(list(PageRequest::number(number, 1_000)).await),
            ["page.number"]
        );
    }
    list(PageRequest::first(1_000)).await.expect("the largest");
}

async fn only_so_many_are_read(db: TestDb) {
    let (db, _) = open_at(&db).await;
    people(&db, &["x"; 1_002]).await;
    let list = db
        .users()
        .list(UserFilter::new(), PageRequest::first(1_000))
        .await;
    let list = list.expect("a page");
    assert_eq!(list.items.len(), 1_000);
    let rest = PageRequest::after(list.next.expect("there is more"), 1_000);
    let rest = db.users().list(UserFilter::new(), rest).await;
    let rest = rest.expect("a page");
    assert_eq!((rest.items.len(), rest.next), (2, None));
}

async fn cursors_of_elsewhere(db: TestDb) {
    let (db, _) = open_at(&db).await;
    people(&db, &["a", "b", "c"]).await;
    let by = |sort| UserFilter::new().sort(sort);
    let cursor = async |filter| {
        let list = db.users().list(filter, PageRequest::first(1)).await;
        list.expect("a page").next.expect("there is more")
    };
    let by_name = cursor(by(UserSort::Name)).await;
    let filters = [
        by(UserSort::Name).descending(),
        by(UserSort::Email),
        by(UserSort::Id),
        by(UserSort::CreatedAt),
    ];
    for filter in filters {
        let page = PageRequest::after(by_name.clone(), 1);
        let list = db.users().list(filter.clone(), page).await;
        assert_eq!(refused(list), ["page.after"], "{filter:?}");
        let other = PageRequest::after(cursor(filter).await, 1);
        let list = db.users().list(by(UserSort::Name), other).await;
        assert_eq!(refused(list), ["page.after"]);
    }
}

async fn forged_cursors(db: TestDb) {
    let (db, _) = open_at(&db).await;
    people(&db, &["a", "b"]).await;
    let forge = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let by_time = || UserFilter::new().sort(UserSort::CreatedAt);
    let by_name = || UserFilter::new().sort(UserSort::Name);
    // What ours look like, to be sure that the others are wrong for their fault.
    for (filter, ours) in [
        (by_name(), r#"["users+name+id",["a",0]]"#),
        (
            by_time(),
            r#"["users+created_at+id",["2026-01-01T00:00:00+00:00",0]]"#,
        ),
    ] {
        let page = PageRequest::after(forge(ours).into(), 5);
        let list = db.users().list(filter, page).await.expect("a page");
        assert_eq!(list.items.len(), 2);
    }
    let long = format!(r#"["users+name+id",["{}",0]]"#, "a".repeat(8_000));
    let garbage = [
        String::new(),
        "garbage".to_owned(),
        "%%%\0".to_owned(),
        "x".repeat(10_000_000),
        forge(""),
        forge("[]"),
        forge(r#"["users+name+id",["a"]]"#),
        forge(r#"["users+name+id",["a","0"]]"#),
        forge(r#"["users+name+id",["a",1e300]]"#),
        forge(r#"["users+name+id",["a\u0000",0]]"#),
        forge(r#"["users+id",[0]]"#),
        forge(r#"["plugins+name+id",["a",0]]"#),
        forge(r#"["users+hashed_password+id",["$argon2id",0]]"#),
        forge(r#"["users+created_at+id",["yesterday",0]]"#),
        forge(r#"["users+created_at+id",["",0]]"#),
        forge(&long),
        forge(&"[".repeat(2_000)),
    ];
    for text in garbage {
        for filter in [by_name(), by_time()] {
            let page = PageRequest::after(Cursor::from(text.clone()), 1);
            let list = db.users().list(filter, page).await;
            let shown = &text[..text.len().min(40)];
            assert_eq!(refused(list), ["page.after"], "{shown}");
        }
    }
    // Inside of a transaction it spoils nothing.
    db.transaction(|tx| async move {
        let page = PageRequest::after(forge(r#"["users+name+id",["a\u0000",0]]"#).into(), 1);
        let users = tx.users();
        let list = users.list(UserFilter::new().sort(UserSort::Name), page);
        assert_error!(list.await, Error::Validation(_));
        tx.users()
            .list(UserFilter::new(), PageRequest::first(1))
            .await
    })
    .await
    .expect("committed");
}

async fn an_empty_list(db: TestDb) {
    let db = open(&db).await;
    let first = db
        .users()
        .list(UserFilter::new(), PageRequest::first(1))
        .await;
    let first = first.expect("a page");
    assert_eq!(
        (first.items.len(), first.next, first.total),
        (0, None, None)
    );
    let one = db
        .users()
        .list(UserFilter::new(), PageRequest::number(1, 1))
        .await;
    let one = one.expect("a page");
    assert_eq!((one.items.len(), one.next, one.total), (0, None, Some(0)));
}

/// As a web service hands it out and takes it back.
async fn a_cursor_as_text(db: TestDb) {
    let (db, _) = open_at(&db).await;
    people(&db, &["李", "é\u{1}"]).await;
    let filter = UserFilter::new().sort(UserSort::Name);
    let list = db.users().list(filter.clone(), PageRequest::first(1)).await;
    let list = list.expect("a page");
    let json = serde_json::to_value(&list).expect("it serializes");
    assert_eq!(json["items"][0]["name"], "é\u{1}");
    assert_eq!(json["items"][0].get("hashed_password"), None);
    let next = json["next"].as_str().expect("text");
    assert!(
        next.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
        "fit for a URL: {next}"
    );
    assert_eq!(list.next.expect("there is more").to_string(), next);
    let next: Cursor = next.parse().expect("any text");
    let rest = db.users().list(filter, PageRequest::after(next, 1)).await;
    assert_eq!(rest.expect("a page").items[0].name, "李");
}
