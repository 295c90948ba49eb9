//! What happens to standard output when nobody reads it, or nobody can.

use std::process::{Command, Stdio};

fn keyside() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyside"));
    command.env_clear().env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = keyside().arg("--help").stdout(writer).stderr(Stdio::piped()).output().expect("runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_full_disk_is_a_failure_that_is_said() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = keyside().arg("--help").stdout(full).stderr(Stdio::piped()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("keyside: cannot write to standard output: no space left"), "{stderr}");
}

#[test]
fn a_result_is_not_lost_silently_when_standard_output_is_closed() {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    let line = format!("exec '{}' --help >&-", env!("CARGO_BIN_EXE_keyside"));
    let output = shell.args(["-c", &line]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("keyside: cannot write to standard output: bad file descriptor"), "{stderr}");
}
