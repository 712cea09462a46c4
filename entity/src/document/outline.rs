//! What can be told of a document without parsing it, and how a value becomes
//! one.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

/// What can be told of a document without parsing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Outline {
    /// It is an object or an array.
    pub container: bool,
    /// So many arrays and objects inside each other, at most.
    pub depth: usize,
    /// A string or the name of a member holds the character U+0000.
    pub nul: bool,
    /// How many digits the longest number has at most when it is written out
    /// without an exponent: 1e3 has 4.
    pub digits: usize,
    /// Where half of a surrogate pair is escaped. (No document has one, except
    /// one that something else wrote to the database.)
    pub(super) unpaired: Option<usize>,
}

impl Outline {
    /// Of text that is JSON; of other text it is of no use.
    pub(super) fn of(text: &str) -> Self {
        let mut outline = Self::default();
        let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0_usize);
        let begin = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        outline.container = matches!(begin, Some(b'[' | b'{'));
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'[' | b'{' => {
                    depth += 1;
                    outline.depth = outline.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'"' => at = outline.string(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let rest = &bytes[at - 1..];
                    let length = rest.iter().take_while(|byte| is_of_number(**byte)).count();
                    outline.digits = outline.digits.max(digits(&rest[..length]));
                    at += length - 1;
                }
                _ => {}
            }
        }
        outline
    }

    /// Behind the string that begins at `at`.
    fn string(&mut self, bytes: &[u8], mut at: usize) -> usize {
        // Where the first half of a surrogate pair was just passed.
        let mut half = None;
        while let Some(byte) = bytes.get(at) {
            if half.is_none() && !matches!(byte, b'"' | b'\\') {
                at += 1;
                continue;
            }
            let unit = escaped(&bytes[at..]);
            let second = matches!(unit, Some(0xDC00..=0xDFFF));
            match (half.take(), second) {
                (Some(first), false) => self.unpaired = self.unpaired.or(Some(first)),
                (None, true) => self.unpaired = self.unpaired.or(Some(at)),
                _ => {}
            }
            half = matches!(unit, Some(0xD800..=0xDBFF)).then_some(at);
            self.nul |= unit == Some(0);
            at += match byte {
                b'"' => return at + 1,
                b'\\' if unit.is_some() => 6,
                b'\\' => 2,
                _ => 1,
            };
        }
        at
    }
}

/// The number of the `\uXXXX` that stands here.
fn escaped(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(br"\u")?.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| {
        Some(sum * 16 + char::from(*digit).to_digit(16)?)
    })
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// How many digits a number has at most, written out.
fn digits(number: &[u8]) -> usize {
    let mut parts = number.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let count = |part: &[u8]| part.iter().filter(|byte| byte.is_ascii_digit()).count();
    let mantissa = parts.next().map_or(0, count);
    let exponent = parts.next().unwrap_or_default().iter();
    let exponent = exponent
        .filter(|byte| byte.is_ascii_digit())
        .fold(0_usize, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(usize::from(digit - b'0'))
        });
    mantissa.saturating_add(exponent)
}

/// An array or an object that is being written.
enum Open {
    Array(std::vec::IntoIter<Json>),
    Object(<Map<String, Json> as IntoIterator>::IntoIter),
}

/// The text of a value. Takes it apart on the way, because dropping recurses
/// too.
pub(super) fn written(json: Json) -> String {
    let mut text = String::new();
    let mut open = Vec::new();
    begin(json, &mut text, &mut open);
    while let Some(inner) = open.last_mut() {
        let first = text.ends_with(['[', '{']);
        let next = match inner {
            Open::Array(items) => items.next().ok_or(']'),
            Open::Object(members) => members.next().ok_or('}').map(|(name, value)| {
                if !first {
                    text.push(',');
                }
                scalar(&Json::String(name), &mut text);
                text.push(':');
                value
            }),
        };
        match next {
            Ok(value) => {
                if !first && matches!(inner, Open::Array(_)) {
                    text.push(',');
                }
                begin(value, &mut text, &mut open);
            }
            Err(end) => {
                text.push(end);
                open.pop();
            }
        }
    }
    text
}

fn begin(json: Json, text: &mut String, open: &mut Vec<Open>) {
    match json {
        Json::Array(items) => {
            text.push('[');
            open.push(Open::Array(items.into_iter()));
        }
        Json::Object(members) => {
            text.push('{');
            open.push(Open::Object(members.into_iter()));
        }
        json => scalar(&json, text),
    }
}

fn scalar(json: &Json, text: &mut String) {
    // Writing to a string doesn't fail.
    let _ = write!(text, "{json}");
}
