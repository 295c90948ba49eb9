//! The pairs of a secret as text: JSON, YAML, shell assignments, dotenv. Each reads back byte for byte; what a format
//! cannot hold is an error that names the key. Everything is written into a wiped buffer.

use keyside_protocol::json::{SecretBuffer, push_string, push_value};
use keyside_protocol::value::SecretValue;

use crate::exit::{Exit, Failure};

/// Key and value, in the order they are printed.
pub type Pairs<'a> = [(&'a str, &'a SecretValue)];

/// One JSON object, two blanks deep, with a newline at the end; bytes that are not UTF-8 are `{"base64": "..."}`.
pub fn json(out: &mut SecretBuffer, pairs: &Pairs<'_>, indent: &str) {
    if pairs.is_empty() {
        out.push(b"{}");
        return;
    }
    out.push(b"{\n");
    for (index, (key, value)) in pairs.iter().enumerate() {
        out.push(format!("{indent}  ").as_bytes());
        push_string(out, key);
        out.push(b": ");
        push_value(out, *value);
        out.push(if index + 1 == pairs.len() { b"\n" } else { b",\n" });
    }
    out.push(indent.as_bytes());
    out.push(b"}");
}

/// A flat YAML mapping; values always in double quotes, so that no reader takes `0123`, `yes` or a date for anything but
/// text; bytes that are not UTF-8 are `{base64: "..."}`.
pub fn yaml(out: &mut SecretBuffer, pairs: &Pairs<'_>, indent: &str) {
    if pairs.is_empty() {
        out.push(indent.as_bytes());
        out.push(b"{}\n");
        return;
    }
    for (key, value) in pairs {
        out.push(indent.as_bytes());
        push_yaml_key(out, key);
        out.push(b": ");
        // expose: into the wiped buffer of the result.
        match std::str::from_utf8(value.expose()) {
            Ok(text) => push_yaml_string(out, text),
            // Flow style of one JSON object is YAML too.
            Err(_) => push_value(out, *value),
        }
        out.push(b"\n");
    }
}

/// A key that only a plain scalar-safe alphabet holds stands bare; others are quoted.
fn push_yaml_key(out: &mut SecretBuffer, key: &str) {
    let bare = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        // Words that YAML 1.1 or 1.2 takes for something else.
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&key.to_ascii_lowercase().as_str());
    if bare { out.push(key.as_bytes()) } else { push_yaml_string(out, key) }
}

/// Appends `text` in YAML double quotes. Beyond JSON's escapes, whatever YAML 1.1 takes for a line break or does not
/// take at all is escaped, since PyYAML would fold or refuse it.
pub fn push_yaml_string(out: &mut SecretBuffer, text: &str) {
    out.push(b"\"");
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        let awkward =
            matches!(char, '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
        if awkward {
            keyside_protocol::json::push_escaped(out, &text[plain..at]);
            out.push(format!("\\u{:04x}", u32::from(char)).as_bytes());
            plain = at + char.len_utf8();
        }
    }
    keyside_protocol::json::push_escaped(out, &text[plain..]);
    out.push(b"\"");
}

/// Shell assignments, `KEY='value'`, one a line; for `eval` in any POSIX shell.
///
/// Errors: a key that is no shell variable, a value with NUL.
pub fn env(out: &mut SecretBuffer, pairs: &Pairs<'_>) -> Result<(), Failure> {
    for (key, value) in pairs {
        if !is_shell_name(key) {
            return Err(cannot_hold(key, "is no name of a shell variable", "--format json"));
        }
        let text = text_of(key, value)?;
        out.push(key.as_bytes());
        out.push(b"='");
        for (index, part) in text.split('\'').enumerate() {
            if index > 0 {
                // A single quote cannot stand inside single quotes.
                out.push(b"'\\''");
            }
            out.push(part.as_bytes());
        }
        out.push(b"'\n");
    }
    Ok(())
}

/// A dotenv file, one `KEY=value` a line. Single quotes hold the text as it stands; only a text with a single quote, a
/// backslash or a line break goes into double quotes with backslash escapes.
///
/// Errors: a key with a character that no dotenv reader takes, a value with NUL.
pub fn dotenv(out: &mut SecretBuffer, pairs: &Pairs<'_>) -> Result<(), Failure> {
    for (key, value) in pairs {
        let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if !good {
            return Err(cannot_hold(key, "cannot stand in a dotenv file", "--format json"));
        }
        let text = text_of(key, value)?;
        out.push(key.as_bytes());
        if !text.contains(['\'', '\\', '\n', '\r']) {
            out.push(b"='");
            out.push(text.as_bytes());
            out.push(b"'\n");
            continue;
        }
        out.push(b"=\"");
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                // Else `$X` would be replaced by readers that know variables.
                b'$' => b"\\$",
                _ => continue,
            };
            out.push(&text.as_bytes()[plain..at]);
            out.push(escape);
            plain = at + 1;
        }
        out.push(&text.as_bytes()[plain..]);
        out.push(b"\"\n");
    }
    Ok(())
}

/// Tells whether a POSIX shell can assign to `name`.
fn is_shell_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn text_of<'v>(key: &str, value: &'v SecretValue) -> Result<&'v str, Failure> {
    // expose: into the wiped buffer of the result.
    match std::str::from_utf8(value.expose()) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(cannot_hold(key, "has a value with a NUL byte", "--format json")),
        Err(_) => Err(cannot_hold(key, "has a value that is not UTF-8", "--format json")),
    }
}

fn cannot_hold(key: &str, why: &str, instead: &str) -> Failure {
    Failure::new(Exit::No, format!("the key `{}` {why}", crate::output::printable(key)))
        .hint(format!("use {instead}, or print one key at a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that break careless quoting.
    const NASTY: [&str; 14] = [
        "",
        "plain",
        "two\nlines\n",
        "it's",
        "\"q\"",
        "back\\slash",
        "$HOME ${X} $(id) `id`",
        " edges ",
        "a#b #c",
        "tab\t",
        "cr\r\n",
        "naïve 🔐\u{2028}\u{85}\u{feff}x",
        "{{a.b}}",
        "0123",
    ];

    fn pairs(values: &[SecretValue]) -> Vec<(String, &SecretValue)> {
        values.iter().enumerate().map(|(index, value)| (format!("K{index}"), value)).collect()
    }

    fn written(write: impl Fn(&mut SecretBuffer, &Pairs<'_>)) -> String {
        let values: Vec<_> = NASTY.iter().map(|text| SecretValue::copy_of(text.as_bytes())).collect();
        let owned = pairs(&values);
        let borrowed: Vec<_> = owned.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let mut out = SecretBuffer::with_capacity(0);
        write(&mut out, &borrowed);
        String::from_utf8(out.expose().to_vec()).expect("text")
    }

    #[test]
    fn json_reads_back() {
        let text = written(|out, pairs| json(out, pairs, ""));
        let read: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).expect("JSON");
        for (index, value) in NASTY.iter().enumerate() {
            assert_eq!(read[&format!("K{index}")], *value);
        }
    }

    #[test]
    fn yaml_reads_back() {
        let text = written(|out, pairs| yaml(out, pairs, ""));
        let read: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&text).expect("YAML");
        for (index, value) in NASTY.iter().enumerate() {
            assert_eq!(read[&format!("K{index}")], *value);
        }
        for awkward in ['\u{2028}', '\u{85}', '\u{feff}'] {
            assert!(!text.contains(awkward), "PyYAML would change {awkward:?}");
        }
    }

    #[test]
    fn a_shell_reads_env_back() {
        let text = written(|out, pairs| env(out, pairs).expect("text"));
        let output = std::process::Command::new("/bin/sh")
            .args([
                "-c",
                "eval \"$1\"; i=0; while [ $i -lt 14 ]; do eval \"printf '%s\\037' \\\"\\$K$i\\\"\"; i=$((i+1)); done",
                "sh",
                &text,
            ])
            .output()
            .expect("sh");
        let read: Vec<_> = output.stdout.split(|&byte| byte == 0x1f).map(|part| part.to_vec()).collect();
        for (index, value) in NASTY.iter().enumerate() {
            assert_eq!(String::from_utf8_lossy(&read[index]), *value);
        }
    }

    #[test]
    fn dotenv_reads_back() {
        let text = written(|out, pairs| dotenv(out, pairs).expect("text"));
        let read = crate::source::strings(std::path::Path::new(".env"), &text).expect("dotenv");
        for (index, value) in NASTY.iter().enumerate() {
            assert_eq!(read[index].text, *value, "{text}");
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_by_key() {
        let bytes = SecretValue::new(vec![0xff]);
        let text = SecretValue::copy_of(b"x");
        let mut out = SecretBuffer::with_capacity(0);
        for (key, value) in [("k", &bytes), ("a-b", &text), ("1", &text)] {
            let failure = env(&mut out, &[(key, value)]).expect_err("no env");
            assert!(failure.what.contains(&format!("`{key}`")), "{}", failure.what);
        }
        assert!(dotenv(&mut out, &[("a b", &text)]).is_err());
        assert!(out.is_empty());
        yaml(&mut out, &[("k", &bytes)], "");
        assert_eq!(out.expose(), b"k: {\"base64\":\"/w==\"}\n");
    }
}
