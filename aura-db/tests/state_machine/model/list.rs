//! Parts of lists.

use aura_db::Deleted;
use serde::Serialize;
use serde_json::{Value, json};

use super::Answer;
use crate::outcome::{Failed, json_of};
use crate::steps::pages::{At, Pages};

/// Sorts by a key and the id, and takes the part.
pub(super) fn page<T, K: Ord>(
    mut rows: Vec<&T>,
    key: impl Fn(&T) -> (K, i64),
    descending: bool,
    pages: Pages,
    tell: impl Fn(&T) -> Value,
) -> Answer {
    rows.sort_by_key(|row| key(row));
    if descending {
        rows.reverse();
    }
    part(&rows.into_iter().map(tell).collect::<Vec<_>>(), pages)
}

/// The part of rows that are in order.
pub(super) fn part(rows: &[Value], pages: Pages) -> Answer {
    if !(1..=1_000).contains(&pages.size) {
        return Err(Failed::validation(&["page.size"]));
    }
    let size = usize::try_from(pages.size).unwrap_or(usize::MAX);
    let part = |skip: usize, total: Option<usize>| {
        let items: Vec<&Value> = rows.iter().skip(skip).take(size).collect();
        let more = rows.len() > skip.saturating_add(size);
        json!({"items": items, "more": more, "total": total})
    };
    let parts = match pages.at {
        At::First => vec![part(0, None)],
        At::All => {
            let last = rows.len().div_ceil(size).max(1);
            (0..last).map(|number| part(number * size, None)).collect()
        }
        At::Number(number) => {
            let skip = number
                .checked_sub(1)
                .and_then(|n| n.checked_mul(pages.size));
            let skip = skip.and_then(|skip| i64::try_from(skip).ok());
            let Some(skip) = skip.and_then(|skip| usize::try_from(skip).ok()) else {
                return Err(Failed::validation(&["page.number"]));
            };
            vec![part(skip, Some(rows.len()))]
        }
        At::Bad(_) => return Err(Failed::validation(&["page.after"])),
    };
    Ok(Value::Array(parts))
}

/// A row with all its columns.
pub(super) fn whole<T: Serialize>(row: &T) -> Value {
    json_of(row)
}

/// Whether a row is listed that is deleted, or not.
pub(super) fn visible(deleted: Deleted, is: bool) -> bool {
    match deleted {
        Deleted::Hidden => !is,
        Deleted::Included => true,
        Deleted::Only => is,
    }
}

/// A row without some of its columns.
pub(super) fn without(mut row: Value, columns: &[&str]) -> Value {
    if let Value::Object(members) = &mut row {
        for column in columns {
            members.shift_remove(*column);
        }
    }
    row
}
