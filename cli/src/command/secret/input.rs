//! Values from the command line, files, standard input and a terminal, into wiped buffers.

use std::fs::File;
use std::io::{BufRead as _, IsTerminal as _, Read, Write as _};
use std::path::Path;

use keyside_protocol::value::{SecretValue, SecretValues};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::args::{Origin, SecretArgs, check_key};
use crate::exit::Failure;
use crate::output::{io_text, printable, warn};

/// Most bytes of one value: ZenML's limit for a whole secret.
const MAX_VALUE: u64 = 64 << 10;
/// Most bytes of a file of pairs.
const MAX_PAIRS: u64 = 1 << 20;

/// Gathers the pairs of `create` and `update` from wherever they come; no key stands twice.
pub(super) fn values(args: &mut SecretArgs) -> Result<SecretValues, Failure> {
    let from_stdin =
        args.pairs.iter().map(|(_, origin)| origin).chain(&args.values).filter(|o| matches!(o, Origin::Stdin));
    if from_stdin.count() > 1 {
        return Err(Failure::usage("standard input can be read only once"));
    }
    let inline =
        args.pairs.iter().map(|(_, origin)| origin).chain(&args.values).any(|o| matches!(o, Origin::Inline(_)));
    if inline {
        warn(
            "a value on the command line shows in the process list and in the shell's history; -i or @file keeps it out",
        );
    }
    let mut values = match args.values.take() {
        None => SecretValues::new(),
        Some(origin) => pairs_of(&read(origin, "--values", MAX_PAIRS)?)?,
    };
    for (key, origin) in std::mem::take(&mut args.pairs) {
        let value = read(origin, &format!("--{}", printable(&key)), MAX_VALUE)?;
        put(&mut values, key, value)?;
    }
    if args.interactive {
        ask(&mut values)?;
    }
    if let Some(key) = args.remove_keys.iter().find(|key| values.get(key).is_some()) {
        return Err(Failure::usage(format!("cannot set and remove `{}` at once", printable(key))));
    }
    Ok(values)
}

fn put(values: &mut SecretValues, key: String, value: SecretValue) -> Result<(), Failure> {
    if values.get(&key).is_some() {
        return Err(Failure::usage(format!("the key `{}` stands twice", printable(&key))));
    }
    values.insert(key, value);
    Ok(())
}

fn read(origin: Origin, option: &str, limit: u64) -> Result<SecretValue, Failure> {
    match origin {
        Origin::Inline(value) => Ok(value),
        Origin::Stdin => read_all(std::io::stdin().lock(), limit, "standard input", option),
        Origin::File(path) => {
            let named = printable(&path.to_string_lossy()).into_owned();
            let failed =
                |error: &std::io::Error| Failure::usage(format!("{option}: cannot read {named}: {}", io_text(error)));
            let file =
                File::open(&path).map_err(|error| failed(&error).hint("`@@` in front of a text keeps its `@`"))?;
            read_all(file, limit, &named, option)
        }
    }
}

/// Reads everything into a buffer that never moves, so that no copy is left behind.
fn read_all(mut source: impl Read, limit: u64, named: &str, option: &str) -> Result<SecretValue, Failure> {
    let capacity = usize::try_from(limit).expect("limits fit") + 1;
    let mut bytes = Zeroizing::new(vec![0; capacity]);
    let mut filled = 0;
    while filled < capacity {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => return Ok(SecretValue::copy_of(&bytes[..filled])),
            Ok(more) => filled += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::usage(format!("{option}: cannot read {named}: {}", io_text(&error)))),
        }
    }
    Err(Failure::usage(format!("{option}: {named} has more than {} KiB", limit >> 10)))
}

/// Reads a JSON object, or a YAML mapping, of strings.
fn pairs_of(text: &SecretValue) -> Result<SecretValues, Failure> {
    // expose: to the parsers below, whose results are wiped values; their errors are not passed on, they may quote.
    let text = std::str::from_utf8(text.expose()).map_err(|_| Failure::usage("--values: not UTF-8"))?;
    let hint = "write a JSON object or a YAML mapping of strings, such as {\"user\": \"admin\"}";
    let mut wrong = None;
    let pairs = if text.trim_start().starts_with('{') {
        let mut reader = serde_json::Deserializer::from_str(text);
        let pairs =
            PairsSeed { wrong: &mut wrong }.deserialize(&mut reader).and_then(|pairs| reader.end().map(|()| pairs));
        pairs.map_err(|error| (error.line(), error.column()))
    } else {
        serde_saphyr::with_deserializer_from_str(text, |reader| PairsSeed { wrong: &mut wrong }.deserialize(reader))
            .map_err(|error| error.location().map_or((0, 0), |at| (at.line() as usize, at.column() as usize)))
    };
    let failure = |what: String| Failure::usage(format!("--values: {what}")).hint(hint);
    let pairs = match (pairs, wrong) {
        (Ok(pairs), _) => pairs,
        (Err(_), Some(what)) => return Err(failure(what)),
        (Err((0, _)), None) => return Err(failure("neither a JSON object nor a YAML mapping".into())),
        (Err((line, column)), None) => {
            return Err(failure(format!("neither a JSON object nor a YAML mapping (line {line}, column {column})")));
        }
    };
    for key in pairs.keys() {
        check_key(key)?;
    }
    if pairs.is_empty() { Err(failure("no pair in it".into())) } else { Ok(pairs) }
}

/// Like `SecretValues`' own reader, but says which key is wrong.
struct PairsSeed<'w> {
    wrong: &'w mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for PairsSeed<'_> {
    type Value = SecretValues;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<SecretValues, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PairsSeed<'_> {
    type Value = SecretValues;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a mapping of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretValues, A::Error> {
        let mut pairs = SecretValues::new();
        while let Some(key) = map.next_key::<String>()? {
            if pairs.get(&key).is_some() {
                *self.wrong = Some(format!("the key `{}` stands twice", printable(&key)));
                return Err(A::Error::custom("a key stands twice"));
            }
            match map.next_value::<SecretValue>() {
                Ok(value) => pairs.insert(key, value),
                Err(error) => {
                    *self.wrong = Some(format!("the value of `{}` is not a string; put it in quotes", printable(&key)));
                    return Err(error);
                }
            }
        }
        Ok(pairs)
    }
}

/// Asks for keys and values until an empty key.
fn ask(values: &mut SecretValues) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("`-i` needs a terminal").hint("--KEY=@- reads one value from standard input"));
    }
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read from the terminal: {}", io_text(&error)));
    loop {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "key (empty to end): ").and_then(|()| stderr.flush());
        drop(stderr);
        let mut key = String::new();
        let ended = std::io::stdin().lock().read_line(&mut key).map_err(failed)? == 0;
        let key = key.trim_end_matches(['\n', '\r']).to_owned();
        if ended || key.is_empty() {
            if values.is_empty() {
                return Err(Failure::usage("no pair was given"));
            }
            return Ok(());
        }
        check_key(&key)?;
        let value =
            rpassword::prompt_password(format!("value of {} (not shown): ", printable(&key))).map_err(failed)?;
        put(values, key, SecretValue::new(value.into_bytes()))?;
    }
}

/// Asks a yes-or-no question on the terminal; without one the caller must say `-y`.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on").hint("say -y if you are sure"));
    }
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    drop(stderr);
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Returns the file that a secret called `name` is exported to unless one is named.
pub(super) fn default_file(name: &str) -> Result<std::path::PathBuf, Failure> {
    if name.contains('/') || name.starts_with('.') || name.starts_with('-') {
        return Err(Failure::usage(format!("`{}` is no good file name", printable(name))).hint("name the file with -f"));
    }
    Ok(Path::new(&format!("{name}.yaml")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, Failure> {
        let values = pairs_of(&SecretValue::copy_of(text.as_bytes()))?;
        Ok(values
            .iter()
            .map(|(key, value)| (key.to_owned(), String::from_utf8_lossy(value.expose()).into_owned()))
            .collect())
    }

    #[test]
    fn json_and_yaml_give_the_same_pairs() {
        let expected = [("a", "1"), ("b", "two\nlines"), ("c.d", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        for text in
            ["{\"a\": \"1\", \"b\": \"two\\nlines\", \"c.d\": \"\"}", "a: '1'\nb: |-\n  two\n  lines\nc.d: \"\"\n"]
        {
            assert_eq!(pairs(text).map_err(|failure| failure.what).expect("pairs"), expected);
        }
    }

    #[test]
    fn a_value_that_is_no_string_is_refused_by_key_and_never_quoted() {
        for text in ["{\"pin\": 12345}", "pin: 12345", "pin:\n  x: '12345'", "pin: ['12345']", "pin: null", "pin: true"]
        {
            let failure = pairs(text).expect_err(text);
            assert!(failure.what.contains("`pin`"), "{text}: {}", failure.what);
            assert!(!failure.what.contains("12345"), "{}", failure.what);
        }
    }

    #[test]
    fn what_is_no_mapping_is_refused_and_never_quoted() {
        for text in ["", "canary", "['canary']", "{\"a\": \"canary\"", "a: 'canary", "{}", "a: x\na: y\n", "name: x"] {
            let failure = pairs(text).expect_err(text);
            assert!(!failure.what.contains("canary"), "{text}: {}", failure.what);
        }
    }

    #[test]
    fn bytes_that_are_not_text_come_back_from_an_export() {
        let values = pairs_of(&SecretValue::copy_of(b"k: {\"base64\":\"/wA=\"}\n")).map_err(|f| f.what).expect("pairs");
        assert_eq!(values.get("k").expect("a key").expose(), &[0xff, 0]);
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let failure = read_all(&[b'x'; 11][..], 10, "f", "--k").err().expect("too large");
        assert!(failure.what.contains("--k"), "{}", failure.what);
        assert_eq!(read_all(&[b'x'; 10][..], 10, "f", "--k").map_err(|f| f.what).expect("fits").len(), 10);
    }
}
