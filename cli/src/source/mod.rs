//! Strings in files of any kind, each with its line and its path: where `check --file` looks for references.
//!
//! One file a format; [`strings`] is the list of all.

mod dotenv;
mod json;
mod path;
mod toml;
mod yaml;

use std::path::Path;

/// A string value in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// 1-based.
    pub line: usize,
    /// Such as `env.db.password` or `steps[2].url`; the variable's name in a dotenv file; empty at the root.
    pub path: String,
    /// The string, decoded.
    pub text: String,
    /// It looks like a reference but is a YAML mapping, because the quotes are missing.
    pub unquoted: bool,
}

/// A file that is not what it should be. Carries no piece of the file: it may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct SourceError {
    /// 1-based.
    pub line: usize,
    /// 1-based.
    pub column: usize,
    /// What it is not.
    pub what: &'static str,
}

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Yaml,
    Json,
    Toml,
    Dotenv,
}

impl Format {
    fn read(self, text: &str) -> Result<Vec<Found>, SourceError> {
        match self {
            Self::Yaml => yaml::strings(text),
            Self::Json => json::strings(text),
            Self::Toml => toml::strings(text),
            Self::Dotenv => dotenv::strings(text),
        }
    }
}

/// Collects every string value of a file at any depth; the format is told by the extension, else by the content.
///
/// Errors: the text is not of the format its extension promises, or, without one, of none.
pub fn strings(path: &Path, text: &str) -> Result<Vec<Found>, SourceError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match by_name(path) {
        Some(format) => format.read(text),
        None => by_content(text),
    }
}

fn by_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    // `.env`, `.env.local`, `prod.env`
    if name == ".env" || name.starts_with(".env.") {
        return Some(Format::Dotenv);
    }
    match name.rsplit_once('.')?.1 {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        "toml" => Some(Format::Toml),
        "env" => Some(Format::Dotenv),
        _ => None,
    }
}

/// JSON first, because it is also YAML; then what has `NAME=...` lines; YAML last, which takes almost anything.
fn by_content(text: &str) -> Result<Vec<Found>, SourceError> {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(found) = json::strings(text)
    {
        return Ok(found);
    }
    if let Ok(found) = toml::strings(text) {
        return Ok(found);
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let assigns = first.split_once('=').is_some_and(|(name, _)| !name.contains([':', ' ', '{', '"', '\'']))
        || first.starts_with("export ");
    if assigns && let Ok(found) = dotenv::strings(text) {
        return Ok(found);
    }
    yaml::strings(text)
        .map_err(|error| SourceError { what: "not YAML, JSON, TOML or dotenv (tried as YAML last)", ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: &[(usize, &str, &str)]) {
        let found = strings(Path::new(name), text).expect(name);
        let seen: Vec<_> = found.iter().map(|found| (found.line, found.path.as_str(), found.text.as_str())).collect();
        assert_eq!(seen, expected, "{name}");
    }

    #[test]
    fn yaml_strings_have_line_and_path_at_any_depth() {
        check(
            "stack.yaml",
            "a: 1\nenv:\n  db:\n    password: \"{{db.password}}\"\n    list: ['{{a.b}}', {x.y: '{{c.d}}'}]\n---\nsecond: '{{ e.f }}'\n",
            &[
                (4, "env.db.password", "{{db.password}}"),
                (5, "env.db.list[0]", "{{a.b}}"),
                (5, "env.db.list[1].\"x.y\"", "{{c.d}}"),
                (7, "second", "{{ e.f }}"),
            ],
        );
    }

    #[test]
    fn a_yaml_string_behind_an_anchor_is_reported_once() {
        check("a.yml", "a: &x\n  p: '{{a.b}}'\nb: *x\nc:\n  <<: *x\nd: 'z'\n", &[(2, "a.p", "{{a.b}}"), (6, "d", "z")]);
    }

    #[test]
    fn a_yaml_reference_without_quotes_is_noticed() {
        let found = strings(Path::new("a.yaml"), "a:\n  b: {{db.password}}\n  c: {d: 'e'}\n").expect("YAML");
        assert_eq!((found[0].line, found[0].path.as_str(), found[0].unquoted), (2, "a.b", true));
        assert_eq!(found[0].text, "{{db.password}}");
        assert_eq!((found[1].path.as_str(), found[1].unquoted), ("a.c.d", false));
    }

    #[test]
    fn json_strings_have_line_and_path() {
        check(
            "a.json",
            "{\"n\": -1.5e3, \"a\": [true, null,\n \"x\\\"\\u00e9\", {\"k\": \"{{a.b}}\"}],\n\"z\": \"{{c.d}}\"}",
            &[(2, "a[2]", "x\"é"), (2, "a[3].k", "{{a.b}}"), (3, "z", "{{c.d}}")],
        );
    }

    #[test]
    fn toml_strings_have_line_and_path() {
        check(
            "a.toml",
            "z = '{{a.b}}'\n[exec.env]\n\"A B\" = \"{{c.d}}\"\n[[x]]\ny = [1, \"{{e.f}}\"]\n",
            &[(1, "z", "{{a.b}}"), (3, "exec.env.\"A B\"", "{{c.d}}"), (5, "x[0].y[1]", "{{e.f}}")],
        );
    }

    #[test]
    fn dotenv_values_have_their_line() {
        check(
            "prod.env",
            "# c\nA={{a.b}}\nexport B=\"{{c.d}}\" # note\nC='two\nlines'\nD = {{e.f}} # x\nPASS\nE=\n",
            &[(2, "A", "{{a.b}}"), (3, "B", "{{c.d}}"), (4, "C", "two\nlines"), (6, "D", "{{e.f}}"), (8, "E", "")],
        );
    }

    #[test]
    fn without_an_extension_the_content_tells() {
        check("conf", "{\"a\": \"{{a.b}}\"}", &[(1, "a", "{{a.b}}")]);
        check("conf", "a: '{{a.b}}'\n", &[(1, "a", "{{a.b}}")]);
        check("conf", "A={{a.b}}\n", &[(1, "A", "{{a.b}}")]);
        check("conf", "[t]\nb = '{{a.b}}'\n", &[(2, "t.b", "{{a.b}}")]);
    }

    #[test]
    fn a_broken_file_is_named_by_place_and_never_quoted() {
        for (name, text) in [
            ("a.json", "{\"canary\": canary}"),
            ("a.yaml", "a: 'canary\n"),
            ("a.toml", "a = canary"),
            ("a.env", "A='canary\n"),
        ] {
            let error = strings(Path::new(name), text).expect_err(name).to_string();
            assert!(error.contains("line 1") && !error.contains("canary") || name == "a.yaml", "{name}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
