//! What the program answers where no agent is needed: each file in `cmd/` is a case whose name states a promise.
//!
//! A file holds commands and what they give, in order:
//!
//! ```text
//! @ some.yaml          makes a file in the working directory, up to the next line that begins with `@`, `$` or `#`
//! key: value
//! $ NAME=value keyside --flag 'with blanks'
//! ? 2                  the exit code; 0 when it is left out
//! > a line of stdout   all of them, in order; `...` stands for any run of characters
//! ! a line of stderr   likewise
//! ```
//!
//! Each file has a fresh working directory, an empty environment and no standard input.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn every_command_answers_as_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    let mut files: Vec<_> = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the cases are gone");
    let failures: Vec<String> = files.iter().filter_map(|file| run_file(file).err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// One command with what is expected of it.
#[derive(Default)]
struct Case {
    line: String,
    code: i32,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

fn run_file(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).expect("text");
    let directory = tempfile::tempdir().expect("a directory");
    let mut cases: Vec<Case> = Vec::new();
    let mut open_file: Option<String> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("@ ") {
            std::fs::write(directory.path().join(name), "").expect("a file");
            open_file = Some(name.to_owned());
        } else if let Some(command) = line.strip_prefix("$ ") {
            open_file = None;
            cases.push(Case { line: command.to_owned(), ..Case::default() });
        } else if line.starts_with('#') && open_file.is_none() || line.is_empty() && open_file.is_none() {
            // A comment, or air.
        } else if let Some(name) = &open_file {
            let path = directory.path().join(name);
            let before = std::fs::read_to_string(&path).expect("text");
            std::fs::write(path, format!("{before}{line}\n")).expect("written");
        } else {
            let case = cases.last_mut().expect("a command first");
            let (mark, rest) = line.split_at(1);
            let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
            match mark {
                "?" => case.code = rest.parse().expect("an exit code"),
                ">" => case.stdout.push(rest),
                "!" => case.stderr.push(rest),
                _ => panic!("{}: cannot read {line:?}", file.display()),
            }
        }
    }
    assert!(!cases.is_empty(), "{} has no command", file.display());
    for case in cases {
        check(&case, directory.path()).map_err(|what| format!("{}:\n$ {}\n{what}", file.display(), case.line))?;
    }
    Ok(())
}

fn check(case: &Case, directory: &Path) -> Result<(), String> {
    let mut words = words(&case.line).into_iter().peekable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyside"));
    command.env_clear().env("RUST_BACKTRACE", "0").current_dir(directory).stdin(Stdio::null());
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        command.env(name, value);
        words.next();
    }
    assert_eq!(words.next().as_deref(), Some("keyside"), "{}", case.line);
    let output = command.args(words).output().expect("the program starts");
    let code = output.status.code();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let good = code == Some(case.code) && matches(&case.stdout, &stdout) && matches(&case.stderr, &stderr);
    if good {
        Ok(())
    } else {
        Err(format!("exit code {code:?}, expected {}\nstdout:\n{stdout}stderr:\n{stderr}", case.code))
    }
}

/// Compares line by line; `...` alone stands for any number of lines.
fn matches(expected: &[String], seen: &str) -> bool {
    let lines: Vec<&str> = seen.lines().collect();
    fn rest(expected: &[String], lines: &[&str]) -> bool {
        match expected.split_first() {
            None => lines.is_empty(),
            Some((first, more)) if first == "..." => (0..=lines.len()).any(|skip| rest(more, &lines[skip..])),
            Some((first, more)) => {
                lines.split_first().is_some_and(|(line, lines)| line_matches(first, line) && rest(more, lines))
            }
        }
    }
    rest(expected, &lines)
}

fn line_matches(expected: &str, line: &str) -> bool {
    let Some((before, after)) = expected.split_once("...") else { return expected == line };
    let Some(rest) = line.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| line_matches(after, &rest[at..]))
}

/// Splits a command line: blanks, and single quotes around what holds some.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for char in line.chars() {
        match char {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(char),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}
