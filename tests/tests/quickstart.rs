//! From nothing to an injected step, and back to nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use keyside_tests::{Ended, Home};

/// Runs `keyside quickstart` in a directory of its own; the runtime directory is where its socket goes.
fn quickstart(home: &Home, directory: &Path, command: &[&str]) -> Ended {
    let run = home.keyside(["quickstart"]).in_directory(directory);
    if command.is_empty() { run.end() } else { run.arg("--").args(command).end() }
}

fn empty_directory(home: &Home) -> PathBuf {
    let directory = home.join("work");
    std::fs::create_dir(&directory).unwrap();
    // The generated password lies in the store, and nowhere else.
    home.holds_values(directory.join(".keyside/zenml.db"));
    directory
}

/// Reads the generated password back, through an agent of its own, and has it searched for in all output.
fn watch_for_the_password(home: &Home, directory: &Path) -> String {
    let config = directory.join(".keyside/keyside.toml");
    let get = home.keyside(["--config"]).arg(config).args(["--agent", "embedded", "get", "mlflow_secret.password"]);
    let password = get.prints_values().end().expect_code(0).text();
    assert!(password.len() >= 20, "a password of {} characters", password.len());
    home.watch_for(&password);
    password
}

/// No process that was started in `home` is left, and no socket.
fn nothing_is_left(home: &Home) {
    let home_variable = format!("HOME={}", home.path().display()).into_bytes();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let ours = environment.split(|byte| *byte == 0).any(|variable| variable == home_variable);
        // The cleaner may take a moment to see that the step has ended.
        if ours {
            let path = process.path();
            keyside_tests::eventually::eventually("every process of the quickstart ends", || {
                (!path.exists()).then_some(())
            });
        }
    }
    let runtime: Vec<_> = std::fs::read_dir(home.runtime()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(runtime.iter().all(|name| !name.to_string_lossy().contains("quickstart")), "{runtime:?}");
}

#[test]
fn quickstart_runs_the_example_step_from_nothing_and_leaves_only_its_store() {
    let home = Home::new();
    let directory = empty_directory(&home);
    // As a person runs it: without the trace that the other scenarios search.
    let ended = home.keyside(["quickstart"]).in_directory(&directory).without("KEYSIDE_LOG").end().expect_code(0);
    for word in ["mlflow_secret", "{{mlflow_secret.password}}: ok", "MLFLOW_TRACKING_PASSWORD", "stopped"] {
        assert!(ended.stderr.contains(word), "{word} is not in:\n{}", ended.stderr);
    }
    assert!(ended.stderr.lines().count() <= 10, "a few lines:\n{}", ended.stderr);
    assert!(ended.text().contains("mode 0400"), "{}", ended.text());

    let store = directory.join(".keyside");
    assert_eq!(std::fs::metadata(&store).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read_to_string(store.join(".gitignore")).unwrap().trim(), "*");
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".keyside"]);
    nothing_is_left(&home);
    watch_for_the_password(&home, &directory);
}

#[test]
fn quickstart_runs_a_command_with_one_variable_and_one_file_and_ends_as_it_ends() {
    let home = Home::new();
    let directory = empty_directory(&home);
    // What the step sees goes into a file that may hold it.
    let seen = home.join("seen");
    home.holds_values(&seen);
    let script = format!(
        "printf %s \"$MLFLOW_TRACKING_PASSWORD\" > {0}; cat \"$KEYSIDE_FILES/mlflow_credentials\" >> {0}; exit 7",
        seen.display()
    );
    quickstart(&home, &directory, &["sh", "-c", &script]).expect_code(7);
    let password = watch_for_the_password(&home, &directory);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), format!("{password}admin:{password}"));
    nothing_is_left(&home);
}

#[test]
fn a_second_quickstart_reuses_the_store() {
    let home = Home::new();
    let directory = empty_directory(&home);
    quickstart(&home, &directory, &["true"]).expect_code(0);
    let password = watch_for_the_password(&home, &directory);
    let again = quickstart(&home, &directory, &["true"]).expect_code(0);
    assert!(!again.stderr.contains("created the secret"), "{}", again.stderr);
    assert_eq!(watch_for_the_password(&home, &directory), password);
}

#[test]
fn inside_a_quickstart_every_command_reaches_its_agent() {
    let home = Home::new();
    let directory = empty_directory(&home);
    let keyside = keyside_tests::programs::built("keyside");
    let keyside = keyside.display();
    let script = format!(
        "{keyside} ready && {keyside} get mlflow_secret.username && {keyside} secret create mine --a=b 2>/dev/null \
         && {keyside} check mine.a && {keyside} exec -e 'A={{{{mine.a}}}}' -- sh -c 'test \"$A\" = b'"
    );
    quickstart(&home, &directory, &["sh", "-c", &script]).expect_code(0);
    watch_for_the_password(&home, &directory);
}

#[test]
fn a_quickstart_whose_command_does_not_exist_ends_with_127() {
    let home = Home::new();
    let directory = empty_directory(&home);
    quickstart(&home, &directory, &["no-such-command-anywhere"]).expect_complaint(127, &["no-such-command-anywhere"]);
    nothing_is_left(&home);
    watch_for_the_password(&home, &directory);
}
