//! From random bytes to arguments that are worth trying. A byte of 0 is the
//! plainest choice, so that shrinking makes steps plain.

use std::time::Duration;

use aura_db::sea_orm::ActiveValue::{self, NotSet, Set};
use aura_db::sea_orm::sea_query;
use aura_db::{Deleted, Document};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// A step before it is known what it is about.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    /// What most of the sequence is about.
    pub(crate) theme: usize,
    pub(crate) kind: u16,
    pub(crate) bytes: [u8; 24],
}

/// Chooses.
pub(crate) struct Draw<'a> {
    bytes: &'a [u8],
}

/// Rows that never are: their handles stand for themselves.
pub(crate) const NOBODY: [i64; 5] = [4_000_000_000, 0, -1, i64::MAX, i64::MIN];

/// Text that means something to somebody on the way to the database.
const HOSTILE: [&str; 16] = [
    "O'Hara",
    "%",
    "_",
    "\\",
    "100%_\\",
    "'; DROP TABLE users; --",
    "\" OR \"\"=\"",
    "$1 ?1 :name @x {}",
    "line\nbreak\ttab",
    "a\u{2028}b",
    "🦀 İstanbul ß",
    "ÉCOLE école",
    "NULL",
    "\u{FEFF}x\u{200B}",
    "{\"$ne\": null}",
    "\u{E000}\u{10FFFF}",
];

const NAMES: [&str; 7] = ["a", "b", "A", "ab", "B_b", "Ä", "z%"];

pub(crate) const PASSWORDS: [&str; 3] = ["correct canary", "canary 'word'", "🔑 canary"];

impl<'a> Draw<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn byte(&mut self) -> usize {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.byte() % of.len()].clone()
    }

    pub(crate) fn yes(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One time of so many.
    pub(crate) fn rarely(&mut self, of: usize) -> bool {
        self.byte() % of == of - 1
    }

    pub(crate) fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.yes().then(|| some(self))
    }

    /// Mostly no change, or one that may empty the field.
    pub(crate) fn change<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> ActiveValue<Option<T>>
    where
        Option<T>: Into<sea_query::Value>,
    {
        if self.rarely(3) {
            Set(self.maybe(some))
        } else {
            NotSet
        }
    }

    /// One of the handles that were given out, or now and then a row that
    /// never was. The newest are likelier.
    pub(crate) fn handle(&mut self, count: i64) -> i64 {
        let byte = self.byte();
        if count == 0 || byte % 16 >= 14 {
            return NOBODY[byte / 16 % NOBODY.len()];
        }
        let recent = if byte % 16 < 6 { count.min(4) } else { count };
        count - i64::try_from(byte / 16).unwrap_or(0) * recent / 16
    }

    /// Half of the time one of these, which are more interesting than any.
    pub(crate) fn rather<I>(&mut self, some: impl Iterator<Item = I>, any: I) -> I {
        let mut some: Vec<I> = some.collect();
        if some.is_empty() || self.yes() {
            return any;
        }
        some.swap_remove(self.byte() % some.len())
    }

    pub(crate) fn name(&mut self, max: usize) -> String {
        match self.byte() % 32 {
            byte @ 0..21 => NAMES[byte % NAMES.len()].to_owned(),
            byte @ 21..28 => self.pick(&HOSTILE).repeat(byte / 27 * 3 + 1),
            28 => " \t".to_owned(),
            29 => "n\0l".to_owned(),
            30 => "ü".repeat(max),
            _ => "ü".repeat(max + 1),
        }
    }

    /// Text without a short limit.
    pub(crate) fn text(&mut self) -> String {
        match self.byte() % 16 {
            0..5 => self.pick(&NAMES).to_owned(),
            5..7 => String::new(),
            15 => "\0".to_owned(),
            _ => self.pick(&HOSTILE).to_owned(),
        }
    }

    /// What to search for.
    pub(crate) fn search(&mut self) -> String {
        match self.byte() % 20 {
            byte @ 0..7 => NAMES[byte].to_owned(),
            16 | 17 => "x".repeat(201),
            18 | 19 => "\0".to_owned(),
            7 => String::new(),
            8 => "É".to_owned(),
            9 => "NULL".to_lowercase(),
            _ => self.pick(&HOSTILE).to_owned(),
        }
    }

    pub(crate) fn email(&mut self) -> String {
        let byte = self.byte();
        match byte % 32 {
            byte @ 0..26 => format!("u{}@example.org", byte % 13),
            26 => format!(" U{}@EXAMPLE.ORG\n", byte % 13),
            27 => "o'hara+%_\\@ex--ample.org".to_owned(),
            28 => ["İ@ß.de", "\u{e9}@ß.de", "E\u{301}@ß.de"][byte / 32 % 3].to_owned(),
            29 => format!("{}@example.org", "x".repeat(byte)),
            30 => {
                let wrong = [
                    "",
                    "@",
                    "a@b@c",
                    "a b@c.org",
                    "a@.org",
                    "a@b.",
                    "a\u{200b}@b.org",
                ];
                wrong[byte / 32 % 7].to_owned()
            }
            _ => "n\0l@example.org".to_owned(),
        }
    }

    pub(crate) fn password(&mut self) -> String {
        match self.byte() % 32 {
            30 => String::new(),
            31 => "p".repeat(1025),
            byte => PASSWORDS[byte % PASSWORDS.len()].to_owned(),
        }
    }

    /// A JSON document, also one that can't be stored.
    pub(crate) fn json(&mut self) -> Document {
        self.value().into()
    }

    fn value(&mut self) -> Value {
        match self.byte() % 16 {
            0..3 => json!({"b": [1, 1.5, true, null], "a": {"'; --": "\"\\\u{2028}🦀"}}),
            3 => json!([]),
            4 => json!({}),
            5 => json!({"schedule": {"cron": "* * * * *"}}),
            6 => json!({"schedule": null, "": "?1 $1"}),
            7 => json!({"schedule": false}),
            8 => json!([{"name": "A", "type": "n8n-nodes-base.Cron"}, {"name": "A"}, 7]),
            9 => json!({"x": {"type": "ScheduleTrigger", "id": "1"}, "y": {"type": 5}}),
            10 => json!([{"id": "1", "name": "Start"}, {"id": 2, "name": "O'\"$.[0]"}]),
            11 => json!({"Start": {"main": [[{"node": "2"}, {"node": "Start"}], null]}}),
            12 => json!([{"source": "1", "target": "x"}, {"source": "x", "target": "Gone"}]),
            13 => json!(["schedule", {"type": ["cron"]}, {"type": null}]),
            14 => self.pick(&[json!("text"), json!(7), json!(false), Value::Null]),
            _ => match self.byte() % 3 {
                0 => json!({"k\0": 1}),
                1 => nested(128),
                _ => nested(127),
            },
        }
    }

    pub(crate) fn deleted(&mut self) -> Deleted {
        self.pick(&[Deleted::Hidden, Deleted::Included, Deleted::Only])
    }

    /// A moment near this one, finer than the databases keep, or absurd.
    pub(crate) fn moment(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.byte() % 16 {
            0..4 => now,
            4 => now + TimeDelta::nanoseconds(1),
            5 => now - TimeDelta::nanoseconds(1),
            6 => now + TimeDelta::microseconds(1),
            7..10 => now + TimeDelta::seconds(1),
            10 => now - TimeDelta::milliseconds(500),
            11 | 12 => now - TimeDelta::seconds(2),
            13 => now - TimeDelta::days(1),
            14 => now + TimeDelta::days(30),
            _ => self.pick(&[
                DateTime::UNIX_EPOCH,
                DateTime::<Utc>::MIN_UTC,
                DateTime::<Utc>::MAX_UTC,
            ]),
        }
    }

    /// How far the clock moves before a step.
    pub(crate) fn tick(&mut self) -> Duration {
        match self.byte() % 32 {
            0..14 => Duration::ZERO,
            14..19 => Duration::from_micros(1),
            19..22 => Duration::from_millis(1),
            22..26 => Duration::from_secs(1),
            26..28 => Duration::from_secs(30),
            28 => Duration::from_mins(1),
            29 => Duration::from_micros(3_599_999_999),
            30 => Duration::from_hours(13),
            _ => Duration::from_hours(24 * 3 + 12),
        }
    }
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}
