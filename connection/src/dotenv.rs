//! Reads `.env` text the way npm `dotenv` 16 does (without `dotenv-expand`).
//!
//! Whatever [`parse`] accepts, it reads as `dotenv.parse` would: `$` is literal, `#` ends an
//! unquoted value even in the middle of a word, single, double and backtick quotes may span lines,
//! and `\n` and `\r` are escapes only in a value that starts with a double quote. (The one
//! exception is a variable called `__proto__`: JavaScript loses it, this keeps it.)
//!
//! Where dotenv skips a line or guesses, this reports an error, so that a typo never silently
//! drops or changes a setting:
//!
//! * a line that is not blank, a comment or (part of) an assignment; dotenv ignores it;
//! * an opening quote that is never closed, as in `A="b`, or that closes on a later line or behind
//!   a `#` with more text after it; dotenv keeps the quote and cuts the value at the end of the
//!   line or the `#`. (Nothing is cut from `A="b" c`: that value is `"b" c`, quotes and all.)
//! * an assignment spread over lines outside quotes: `export`, the name or `KEY:` at the end of a
//!   line, or a quoted value that starts on the line after its `=`; dotenv joins the lines;
//! * U+2028 and U+2029, which end a line for parts of dotenv and not for others.

/// Why the text could not be read.
///
/// It names the place and never the content: the line may hold a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The line, counted from 1. For an unclosed quote, the line that opens it.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

const NO_NAME: &str = "no name at the start (ASCII letters, digits, `_`, `.` and `-`)";
const NO_EQUALS: &str = "no `=` after the name";
const UNCLOSED: &str = "the quote opened here is never closed, or text follows where it closes";
const SEPARATOR: &str = "a Unicode line or paragraph separator (U+2028 or U+2029)";

/// Reads `.env` text into name-value pairs, each name once: the last assignment wins.
///
/// The pairs are in the order of those last assignments.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, Malformed> {
    // dotenv starts with this too, so a lone CR ends a line and CRLF in a quoted value is LF.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let malformed = |rest: &str, what| {
        let before = &text[..text.len() - rest.len()];
        Malformed {
            line: 1 + before.matches('\n').count(),
            what,
        }
    };
    if let Some(at) = text.find(['\u{2028}', '\u{2029}']) {
        return Err(malformed(&text[at..], SEPARATOR));
    }

    let mut pairs: Vec<(String, String)> = Vec::new();
    // At the top of the loop `rest` is at the first visible character of a line, or at the comment
    // after a value. A byte order mark needs no special case: it is white space in JavaScript.
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, next_line)| next_line);
        } else {
            let (name, after_name) =
                split_assignment(rest).map_err(|what| malformed(rest, what))?;
            let (value, after) = read_value(after_name).map_err(|what| malformed(rest, what))?;
            pairs.retain(|(earlier, _)| earlier != name);
            pairs.push((name.to_owned(), value));
            rest = after;
        }
        rest = rest.trim_start_matches(is_space);
    }
    Ok(pairs)
}

/// Splits `export NAME = value…` into the name and what follows the `=` (or the `:`).
fn split_assignment(line: &str) -> Result<(&str, &str), &'static str> {
    let (mut name, mut rest) = split_name(line);
    if name == "export" {
        let (exported, after) = split_name(skip_blanks(rest));
        // Without a second name, as in `export=x`, this is a variable called `export`.
        if !exported.is_empty() {
            (name, rest) = (exported, after);
        }
    }
    if name.is_empty() {
        return Err(NO_NAME);
    }
    // White space may precede `=` but not `:`, and must follow `:` but not `=`.
    let colon = || {
        rest.strip_prefix(':')
            .filter(|value| value.starts_with(is_blank))
    };
    let value = skip_blanks(rest).strip_prefix('=').or_else(colon);
    Ok((name, value.ok_or(NO_EQUALS)?))
}

fn split_name(text: &str) -> (&str, &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
}

/// Reads the value at the start of `text`; also returns what follows it: white space up to the
/// end of the line, or a comment.
fn read_value(text: &str) -> Result<(String, &str), &'static str> {
    let text = skip_blanks(text);
    let quote = text
        .chars()
        .next()
        .filter(|c| matches!(c, '\'' | '"' | '`'));
    let Some(quote) = quote else {
        let (value, after) = split_unquoted(text);
        return Ok((value.to_owned(), after));
    };

    let inside = &text[1..];
    let (value, after) = if let Some(end) = closing_quote(inside, quote) {
        (&inside[..end], &inside[end + 1..])
    } else {
        // No quote has only white space or a comment behind it: dotenv falls back to an unquoted
        // value, though it still drops the quotes if the value both starts and ends with one.
        let (value, after) = split_unquoted(text);
        unescaped_quote(&value[1..], quote).ok_or(UNCLOSED)?;
        let stripped = value[1..].strip_suffix(quote);
        (stripped.unwrap_or(value), after)
    };
    if quote == '"' {
        // A doubled backslash is not an escape to dotenv: `\\n` is a backslash and a newline.
        Ok((value.replace("\\n", "\n").replace("\\r", "\r"), after))
    } else {
        Ok((value.to_owned(), after))
    }
}

fn split_unquoted(text: &str) -> (&str, &str) {
    let (value, after) = text.split_at(text.find(['#', '\n']).unwrap_or(text.len()));
    (value.trim_end_matches(is_space), after)
}

/// Finds the quote that closes a value: only white space and a comment follow it on its line.
///
/// dotenv's regular expression prefers the first quote without a backslash. Failing that it
/// backtracks over the ones with a backslash before it, from the last to the first, which is how
/// `'C:\dir\'` ends where it looks as if it does.
fn closing_quote(inside: &str, quote: char) -> Option<usize> {
    let closes = |at: &usize| {
        let after = skip_blanks(&inside[at + 1..]);
        after.is_empty() || after.starts_with(['\n', '#'])
    };
    let first = unescaped_quote(inside, quote);
    let escaped = &inside[..first.unwrap_or(inside.len())];
    let backtracked = escaped.rmatch_indices(quote).map(|(at, _)| at);
    first.into_iter().chain(backtracked).find(closes)
}

fn unescaped_quote(inside: &str, quote: char) -> Option<usize> {
    let mut quotes = inside.match_indices(quote).map(|(at, _)| at);
    quotes.find(|&at| !inside[..at].ends_with('\\'))
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

/// White space within a line.
fn is_blank(c: char) -> bool {
    c != '\n' && is_space(c)
}

/// White space as JavaScript's `\s` and `trim` have it, which is not quite Unicode's.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (&'static str, &'static [(&'static str, &'static str)]);

    /// The expected values are what npm dotenv 16.6.1 printed for this input.
    const CASES: &[Case] = &[
        // plain values and white space
        ("", &[]),
        ("\n \t\n", &[]),
        ("A=b", &[("A", "b")]),
        ("A = b ", &[("A", "b")]),
        ("  A=b  c\t", &[("A", "b  c")]),
        ("A=", &[("A", "")]),
        ("A= \nB=c", &[("A", ""), ("B", "c")]),
        ("A=b=c==", &[("A", "b=c==")]),
        ("A=\u{a0}b\u{a0}", &[("A", "b")]),
        ("A=b\u{85}", &[("A", "b\u{85}")]),
        ("A=é", &[("A", "é")]),
        ("\u{feff}A=b", &[("A", "b")]),
        ("A.b-C_9=d", &[("A.b-C_9", "d")]),
        ("-=d", &[("-", "d")]),
        ("9=d", &[("9", "d")]),
        // `export` and `:`
        ("export A=b", &[("A", "b")]),
        ("export \t A=b", &[("A", "b")]),
        ("export=b", &[("export", "b")]),
        ("export =b", &[("export", "b")]),
        ("export export=b", &[("export", "b")]),
        ("exportA=b", &[("exportA", "b")]),
        ("export: b", &[("export", "b")]),
        ("export A: b", &[("A", "b")]),
        ("A: b", &[("A", "b")]),
        ("A:\tb:c", &[("A", "b:c")]),
        ("A: \nB=c", &[("A", ""), ("B", "c")]),
        (r#"A: "b" # c"#, &[("A", "b")]),
        ("A: =b", &[("A", "=b")]),
        // comments
        ("# A=b", &[]),
        ("  # it's\nA=b", &[("A", "b")]),
        ("A=b # c", &[("A", "b")]),
        ("A=b#c", &[("A", "b")]),
        ("A=#b", &[("A", "")]),
        ("A= # b", &[("A", "")]),
        (r#"A="b#c""#, &[("A", "b#c")]),
        (r##"A="b"#c"##, &[("A", "b")]),
        (r#"A="b" # "c""#, &[("A", "b")]),
        ("A='#'", &[("A", "#")]),
        ("A=b # 'c\nB=d", &[("A", "b"), ("B", "d")]),
        (r#"A=b"c#d""#, &[("A", r#"b"c"#)]),
        // quotes
        (r#"A="b""#, &[("A", "b")]),
        ("A='b'", &[("A", "b")]),
        ("A=`b`", &[("A", "b")]),
        ("A=''", &[("A", "")]),
        (r#"A="""#, &[("A", "")]),
        (r#"A=" b ""#, &[("A", " b ")]),
        ("A= ' b ' ", &[("A", " b ")]),
        (r#"A="it's""#, &[("A", "it's")]),
        (r#"A='a "b"'"#, &[("A", r#"a "b""#)]),
        (r#"A=`a "b" 'c'`"#, &[("A", r#"a "b" 'c'"#)]),
        (r#"A={"b": "c"}"#, &[("A", r#"{"b": "c"}"#)]),
        (r#"A=b"c"#, &[("A", r#"b"c"#)]),
        ("A=it's", &[("A", "it's")]),
        (r#"A="b" c"#, &[("A", r#""b" c"#)]),
        (r#"A="b"c"#, &[("A", r#""b"c"#)]),
        (r#"A="b" "c""#, &[("A", r#"b" "c"#)]),
        (r##"A="b"c"# d"##, &[("A", r#"b"c"#)]),
        ("A='it's'", &[("A", "it's")]),
        (r#"A=b "c""#, &[("A", r#"b "c""#)]),
        // `$` and the escapes
        (r"A=$B${C}\$", &[("A", r"$B${C}\$")]),
        (r#"A="$B""#, &[("A", "$B")]),
        (r#"A="b\nc\rd\te""#, &[("A", "b\nc\rd\\te")]),
        (r"A='b\nc'", &[("A", r"b\nc")]),
        (r"A=`b\nc`", &[("A", r"b\nc")]),
        (r"A=b\nc", &[("A", r"b\nc")]),
        (r#"A="b\\nc""#, &[("A", "b\\\nc")]),
        (r#"A="b\n" c"#, &[("A", "\"b\n\" c")]),
        (r#"A=\"b"#, &[("A", r#"\"b"#)]),
        // a backslash before a quote
        (r#"A="b\"c""#, &[("A", r#"b\"c"#)]),
        (r"A='b\'c'", &[("A", r"b\'c")]),
        (r"A=`b\`c`", &[("A", r"b\`c")]),
        (r"A='C:\d\'", &[("A", r"C:\d\")]),
        ("A='b\\'\nB='c'", &[("A", r"b\"), ("B", "c")]),
        (r"A='b\' # 'c'", &[("A", r"b\")]),
        (r"A='b\' # c\'", &[("A", r"b\' # c\")]),
        ("A='b\\'c\\' d\nB=e\\'", &[("A", "b\\'c\\' d\nB=e\\")]),
        (r#"A="b\" "c""#, &[("A", r#"b\" "c"#)]),
        (r#"A="b\\""#, &[("A", r"b\\")]),
        // several lines
        ("A=\"b\nc\"", &[("A", "b\nc")]),
        ("A='b\n\n c '\nB=d", &[("A", "b\n\n c "), ("B", "d")]),
        ("A=`b\n#c\nD=e`# f", &[("A", "b\n#c\nD=e")]),
        ("A=\"b\r\nc\"\r\nB=d\r\n", &[("A", "b\nc"), ("B", "d")]),
        ("A=b\r\nB=c\r\n", &[("A", "b"), ("B", "c")]),
        ("A=b\rB=c", &[("A", "b"), ("B", "c")]),
        ("A=\"b\"\n\n  # c\n  B=d", &[("A", "b"), ("B", "d")]),
        ("A=\"\nB=c\nD=\"", &[("A", "\nB=c\nD=")]),
        // duplicates
        ("A=b\nA=c", &[("A", "c")]),
        ("A=b\nB=c\nA=", &[("A", ""), ("B", "c")]),
        ("A=\"b\"\nexport A: c", &[("A", "c")]),
    ];

    #[test]
    fn reads_what_dotenv_reads() {
        for (input, expected) in CASES {
            let mut pairs = parse(input).unwrap_or_else(|e| panic!("{input:?}: {e:?}"));
            pairs.sort();
            let expected = expected
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            assert_eq!(pairs, expected.collect::<Vec<_>>(), "{input:?}");
        }
    }

    #[test]
    fn reports_what_dotenv_ignores_or_garbles() {
        let cases = [
            ("=b", 1, NO_NAME),
            ("A=b\n\n  \"c\"", 3, NO_NAME),
            ("A=b\r\n# c\r\n$D=e", 3, NO_NAME),
            ("A=\n'b'", 2, NO_NAME),
            ("A=\"b\nc\"\n\rd\u{e9}=e\n=", 4, NO_EQUALS),
            ("A", 1, NO_EQUALS),
            ("\n\nA b=c", 3, NO_EQUALS),
            ("A=b\rA\n=b", 2, NO_EQUALS),
            ("export\nA=b", 1, NO_EQUALS),
            ("export A", 1, NO_EQUALS),
            ("A # b=c", 1, NO_EQUALS),
            ("A:b", 1, NO_EQUALS),
            ("A : b", 1, NO_EQUALS),
            ("A:\nB=c", 1, NO_EQUALS),
            ("A:", 1, NO_EQUALS),
            ("A='b\nc' # d\ne f", 3, NO_EQUALS),
            ("A=b\nC=\"d", 2, UNCLOSED),
            ("A='", 1, UNCLOSED),
            ("A=`b # `c", 1, UNCLOSED),
            ("\nA=\"b\nC=\"d\"", 2, UNCLOSED),
            ("A=\"b\nc\" d", 1, UNCLOSED),
            ("A=\"b#c\" d", 1, UNCLOSED),
            ("A='b\\' c", 1, UNCLOSED),
            ("A=b\nC=d\u{2028}E=f", 2, SEPARATOR),
            ("# \u{2029}", 1, SEPARATOR),
        ];
        for (input, line, what) in cases {
            assert_eq!(parse(input), Err(Malformed { line, what }), "{input:?}");
        }
    }

    #[test]
    fn never_panics_and_points_into_the_text() {
        let pieces = "'|\"|`|#|=|:| |\n|\r|\\|$|n|A=|export|_|\\'|\\\"|\t|é|\u{feff}|\u{2028}|🔑";
        let pieces: Vec<&str> = pieces.split('|').collect();
        let mut state: u32 = 1;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            (state >> 8) as usize % below
        };
        for _ in 0..5_000 {
            let length = random(24);
            let noise: String = (0..length).map(|_| pieces[random(pieces.len())]).collect();
            // Half of them start with a value, or most would end at their first character.
            let input = if random(2) == 0 {
                noise
            } else {
                format!("A={noise}")
            };
            if let Err(Malformed { line, .. }) = parse(&input) {
                let lines = 1 + input.matches(['\n', '\r']).count();
                assert!((1..=lines).contains(&line), "{input:?}: line {line}");
            }
        }
    }
}
