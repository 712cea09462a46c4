//! Conditions as PostgreSQL prints them, which differs between a schema and its restored
//! dump: `CHECK (x::text = ANY (ARRAY['a'::character varying, 'b'::character varying]::text[]))`
//! becomes `CHECK (x::text = ANY (ARRAY['a'::character varying::text, 'b'::character varying::text]))`.

/// Casts between kinds of text, which decide nothing where both sides are text.
const CASTS: [&str; 5] = [
    "::character varying",
    "::text",
    "::bpchar",
    "::varchar",
    "::character",
];

/// Returns a condition without casts between kinds of text, white space, and parentheses
/// around a single value, all outside of quotes.
pub(super) fn normal(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let taken = if matches!(character, '\'' | '"') {
            let end = quoted(rest, character);
            plain.push_str(&rest[..end]);
            end
        } else if let Some(length) = cast(rest) {
            length
        } else if character.is_whitespace() {
            let next = rest.trim_start();
            let between = plain.chars().next_back().zip(next.chars().next());
            // Words stay apart.
            if between.is_some_and(|(before, after)| is_word(before) && is_word(after)) {
                plain.push(' ');
            }
            rest.len() - next.len()
        } else {
            plain.push(character);
            character.len_utf8()
        };
        rest = &rest[taken..];
    }
    without_single_values(&plain)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the length of the quoted text at the start.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

/// Returns the length of the cast at the start, with its limit and its brackets.
fn cast(text: &str) -> Option<usize> {
    let name = CASTS.iter().find(|name| text.starts_with(**name))?;
    let mut length = name.len();
    let behind = text[length..].chars().next();
    if behind.is_some_and(is_word) {
        return None;
    }
    if text[length..].starts_with('(') {
        length += text[length..].find(')')? + 1;
    }
    if text[length..].starts_with("[]") {
        length += 2;
    }
    Some(length)
}

/// Takes the parentheses off a value that stands alone in them, but for those of a call.
fn without_single_values(text: &str) -> String {
    let mut plain = text.to_owned();
    while let Some((open, close)) = single_value(&plain) {
        plain.remove(close);
        plain.remove(open);
    }
    plain
}

fn single_value(text: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut before = None;
    while let Some(character) = text[at..].chars().next() {
        if matches!(character, '\'' | '"') {
            at += quoted(&text[at..], character);
            before = Some(character);
            continue;
        }
        if character == '(' && before.is_none_or(|before| !is_word(before) && before != '"') {
            let inside = &text[at + 1..];
            let end = match inside.chars().next() {
                Some(quote @ ('\'' | '"')) => quoted(inside, quote),
                _ => inside.find(|c| !is_word(c)).unwrap_or(inside.len()),
            };
            if end > 0 && inside[end..].starts_with(')') {
                return Some((at, at + 1 + end));
            }
            // As of an array.
            if inside.starts_with("ARRAY[")
                && let Some(end) = inside.find(']')
                && inside[end + 1..].starts_with(')')
            {
                return Some((at, at + 2 + end));
            }
        }
        before = Some(character);
        at += character.len_utf8();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_restored_dump_says_the_same() {
        for (one, other) in [
            (
                "CHECK (role::text = ANY (ARRAY['admin'::character varying, 'user'::character varying]::text[]))",
                "CHECK (role::text = ANY (ARRAY['admin'::character varying::text, 'user'::character varying::text]))",
            ),
            (
                "CHECK (((level)::text = ANY ((ARRAY['a'::character varying])::text[])))",
                "CHECK (((level)::text = ANY (ARRAY[('a'::character varying)::text])))",
            ),
            ("CHECK (a > 0)", "CHECK  ((a) > 0)"),
        ] {
            assert_eq!(normal(one), normal(other));
        }
    }

    #[test]
    fn what_decides_stays() {
        for (one, other) in [
            ("CHECK (x = ' a')", "CHECK (x = 'a')"),
            ("CHECK (x = '::text')", "CHECK (x = '')"),
            ("CHECK (f(x))", "CHECK (fx)"),
            ("CHECK (x::integer > 0)", "CHECK (x > 0)"),
            ("CHECK (x = 'it''s (a)')", "CHECK (x = 'it''s a')"),
            ("CHECK ((a OR b) AND c)", "CHECK (a OR b AND c)"),
            ("CHECK (x::textual = 'a')", "CHECK (x = 'a')"),
        ] {
            assert_ne!(normal(one), normal(other));
        }
    }
}
