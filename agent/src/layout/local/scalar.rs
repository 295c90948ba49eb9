//! Scalars as PyYAML 5 and 6 read and write them (`resolver.py`, `emitter.py`): YAML 1.1, in which `on` is a truth value
//! and `1e5` a text, and of the styles the simplest that brings the text back.

use keyside_protocol::json::SecretBuffer;

/// Characters from which on a key gets a line of its own, behind `? `.
const SIMPLE_KEY_CHARS: usize = 128;

/// Tells whether a plain scalar is a text, and not a number, a date, a truth value or nothing.
pub(super) fn is_text(plain: &str) -> bool {
    !(matches!(plain, "" | "~" | "null" | "Null" | "NULL" | "<<" | "=" | "!" | "&" | "*")
        || is_truth(plain)
        || is_integer(plain)
        || is_float(plain)
        || is_date(plain))
}

fn is_truth(text: &str) -> bool {
    ["yes", "no", "true", "false", "on", "off"].iter().any(|word| {
        let capital = word[..1].to_ascii_uppercase() + &word[1..];
        text == *word || text == capital || text == word.to_ascii_uppercase()
    })
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, fits: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'_' || fits(byte))
}

fn is_decimal(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn is_octal(byte: u8) -> bool {
    (b'0'..=b'7').contains(&byte)
}

/// `[0-9][0-9_]*`
fn is_digits(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && all(text, is_decimal)
}

/// `:[0-5]?[0-9]`, once or more, after a number.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let is_first = parts.next().is_some_and(is_digits);
    let rest: Vec<&str> = parts.collect();
    let is_part = |part: &&str| match part.as_bytes() {
        [last] => last.is_ascii_digit(),
        [first, last] => (b'0'..=b'5').contains(first) && last.is_ascii_digit(),
        _ => false,
    };
    is_first && !rest.is_empty() && rest.iter().all(is_part)
}

fn is_integer(text: &str) -> bool {
    let text = unsigned(text);
    if let Some(digits) = text.strip_prefix("0b") {
        return all(digits, |byte| matches!(byte, b'0' | b'1'));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, |byte| byte.is_ascii_hexdigit());
    }
    match text.strip_prefix('0') {
        Some("") => true,
        Some(digits) => all(digits, is_octal),
        None => is_digits(text) || is_sexagesimal(text),
    }
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let text = unsigned(text);
    if matches!(text, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, rest)) = text.split_once('.') else { return false };
    if whole.contains(':') {
        return is_sexagesimal(whole) && (rest.is_empty() || all(rest, is_decimal));
    }
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    // The exponent needs its sign, which makes `1.5e3` a text.
    let is_exponent = exponent.is_none_or(|exponent| {
        exponent.starts_with(['-', '+'])
            && exponent.len() > 1
            && exponent[1..].bytes().all(|byte| byte.is_ascii_digit())
    });
    let is_fraction = fraction.is_empty() || all(fraction, is_decimal);
    // PyYAML 5 takes `._` for a number, PyYAML 6 does not; quoted, it is a text to both.
    is_exponent && is_fraction && (is_digits(whole) || (whole.is_empty() && !fraction.is_empty()))
}

/// A date, or a date with a time; anything of that outline is taken for one.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    if !digits(0, 4) || bytes.get(4) != Some(&b'-') {
        return false;
    }
    if bytes.len() == 10 && digits(5, 7) && bytes[7] == b'-' && digits(8, 10) {
        return true;
    }
    let mut parts = text.splitn(3, '-').skip(1);
    let (Some(month), Some(rest)) = (parts.next(), parts.next()) else { return false };
    let day = rest.bytes().take_while(u8::is_ascii_digit).count();
    let month_fits = matches!(month.len(), 1 | 2) && month.bytes().all(|byte| byte.is_ascii_digit());
    month_fits && matches!(day, 1 | 2) && rest[day..].starts_with(['T', 't', ' ', '\t']) && rest.contains(':')
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

/// Writes a key with what leads to its value: `key:`, or `? key` and `:` on a line of its own.
///
/// Differs from PyYAML, which breaks the lines of such long keys, in layout only.
pub(super) fn push_key(out: &mut SecretBuffer, key: &str, indent: &str) {
    let is_simple = !key.is_empty() && !has_line_break(key) && key.chars().count() < SIMPLE_KEY_CHARS;
    if is_simple {
        push_scalar(out, key, style(key));
        out.push(b":");
        return;
    }
    let style = match style(key) {
        // Both would have to be broken.
        Style::Single if has_line_break(key) => Style::Double,
        style => style,
    };
    out.push(b"? ");
    push_scalar(out, key, style);
    out.push(b"\n");
    out.push(indent.as_bytes());
    out.push(b":");
}

/// Writes a scalar that is a value.
pub(super) fn push_value(out: &mut SecretBuffer, text: &str) {
    let style = match style(text) {
        Style::Single if has_line_break(text) => Style::Double,
        style => style,
    };
    push_scalar(out, text, style);
}

fn push_scalar(out: &mut SecretBuffer, text: &str, style: Style) {
    match style {
        Style::Plain => out.push(text.as_bytes()),
        Style::Single => {
            out.push(b"'");
            out.push(text.replace('\'', "''").as_bytes());
            out.push(b"'");
        }
        Style::Double => {
            out.push(b"\"");
            let mut escaped = String::with_capacity(text.len() * 2);
            text.chars().for_each(|character| escape(character, &mut escaped));
            out.push(escaped.as_bytes());
            out.push(b"\"");
        }
    }
}

fn escape(character: char, out: &mut String) {
    let short = match character {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        ' '..='~' => return out.push(character),
        _ => {
            let code = u32::from(character);
            return out.push_str(&match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    out.extend(['\\', short]);
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn has_line_break(text: &str) -> bool {
    text.contains(is_break)
}

/// PyYAML's `analyze_scalar` and `choose_scalar_style` for block context and ASCII output.
fn style(text: &str) -> Style {
    let is_white = |character: Option<char>| {
        character.is_none_or(|character| matches!(character, '\0' | ' ' | '\t' | '\r') || is_break(character))
    };
    if text.is_empty() {
        return Style::Single;
    }
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let mut special = false;
    let (mut break_space, mut space_break) = (false, false);
    let mut previous = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next_is_white = is_white(characters.peek().copied());
        indicators |= match (previous, character) {
            (None, '?' | ':' | '-') | (Some(_), ':') => next_is_white,
            (None, _) => "#,[]{}&*!|>'\"%@`".contains(character),
            (Some(_), '#') => is_white(previous),
            (Some(_), _) => false,
        };
        special |= character != '\n' && !matches!(character, ' '..='~');
        break_space |= character == ' ' && previous.is_some_and(is_break);
        space_break |= is_break(character) && previous == Some(' ');
        previous = Some(character);
    }
    if special || space_break || break_space {
        return Style::Double;
    }
    let is_edge = |character: char| character == ' ' || is_break(character);
    let plain = !indicators && !text.starts_with(is_edge) && !text.ends_with(is_edge) && !has_line_break(text);
    if plain && is_text(text) { Style::Plain } else { Style::Single }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_texts_where_python_takes_them_for_texts() {
        // Right: `yaml.safe_load(...)` of PyYAML 6.0.3 gives a str.
        for text in [
            "abc123",
            "YWJjMTIz",
            "1e55",
            "1.5e3",
            "0o17",
            "08",
            "y",
            "n",
            "Y",
            "0x",
            "0b",
            "1:60",
            "12:3:456",
            "-",
            "+",
            ".",
            "2001-1-1",
            "2001-01-01x",
            "nULL",
            "yEs",
            "trUe",
            "a=",
            "==",
            "1a",
            "0x1g",
            "e30=",
            "12345=",
        ] {
            assert!(is_text(text), "{text}");
        }
        for text in [
            "",
            "~",
            "null",
            "Null",
            "NULL",
            "yes",
            "No",
            "TRUE",
            "false",
            "on",
            "OFF",
            "0",
            "1234",
            "-1",
            "+1_000",
            "010",
            "0x1F",
            "0b101",
            "1:30",
            "190:20:30",
            "1.",
            "1.5",
            ".5",
            "-1.5e+3",
            "1:30.5",
            ".inf",
            "-.INF",
            ".nan",
            "<<",
            "=",
            "2001-01-01",
            "2001-1-1 1:00:00",
            "2001-12-14t21:59:43.10-05:00",
        ] {
            assert!(!is_text(text), "{text}");
        }
    }

    #[test]
    fn scalars_are_written_as_python_writes_them() {
        // Right: the key in `yaml.dump({key: ""})` of PyYAML 6.0.3.
        let check = |text: &str, expected: &str| {
            let mut out = SecretBuffer::with_capacity(0);
            push_key(&mut out, text, "");
            assert_eq!(String::from_utf8_lossy(out.expose()), format!("{expected}:"));
        };
        for plain in
            ["simple", "With Spaces", "a,b", "a#b", "a\"b", "a'b c", "q'", "y", "a\\b", "dots.and-dashes", "-x"]
        {
            check(plain, plain);
        }
        for single in [
            " lead",
            "trail ",
            "#x",
            "%a",
            "-",
            "---",
            "--- a",
            "...",
            "1",
            "1.5",
            "1:30",
            "2001-01-01",
            "<<",
            "=",
            "?",
            "? a",
            "@a",
            "[x]",
            "`",
            "a #b",
            "a:",
            "a: b",
            "null",
            "true",
        ] {
            check(single, &format!("'{single}'"));
        }
        check("'", "''''");
        check("'a", "'''a'");
        check("tab\tkey", "\"tab\\tkey\"");
        check("a\u{a0}b", "\"a\\_b\"");
        check("é", "\"\\xE9\"");
        check("ключ", "\"\\u043A\\u043B\\u044E\\u0447\"");
        check("emoji🔐", "\"emoji\\U0001F510\"");
        check("\u{e000}", "\"\\uE000\"");
        check("\u{7f}\"", "\"\\x7F\\\"\"");
        check("\u{feff}", "\"\\uFEFF\"");
        let long = "k".repeat(128);
        check(&long, &format!("? {long}\n"));
        check("", "? ''\n");
        check("multi\nline", "? \"multi\\nline\"\n");
    }
}
