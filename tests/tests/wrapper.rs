//! A step under the wrapper, with a real agent behind it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::run::Run;
use keyside_tests::step::{agent, printed, shell};
use keyside_tests::{Ended, Home, programs};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn inherited_references_are_resolved_in_place_and_everything_else_keeps_its_bytes() {
    let home = Home::new();
    let agent = agent(&home);
    let run = || {
        home.wrapper(["--", "/usr/bin/env", "-0"])
            .with(&agent)
            .env("A_FIRST", "plain {{db.user}}")
            .env("M_REFERENCE", "{{ db.password }}")
            .env("Z_BINARY", std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe=x" as &[u8]) as &std::ffi::OsStr)
    };
    let bare = Run::new(&home, "/usr/bin/env".into()).arg("-0").with(&agent);
    let bare = bare.env("A_FIRST", "plain {{db.user}}").env("M_REFERENCE", "{{ db.password }}");
    let bare =
        bare.env("Z_BINARY", std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe=x" as &[u8]) as &std::ffi::OsStr);
    let bare = bare.end().expect_code(0).stdout;
    let wrapped = run().prints_values().end().expect_code(0).stdout;
    let resolved = format!("M_REFERENCE={}", home.canary()).into_bytes();
    let expected: Vec<&[u8]> = bare
        .split(|byte| *byte == 0)
        .map(|variable| if variable.starts_with(b"M_REFERENCE=") { &resolved } else { variable })
        .collect();
    assert!(wrapped.split(|byte| *byte == 0).eq(expected), "{}", String::from_utf8_lossy(&wrapped));

    let left =
        home.wrapper(["--no-resolve-env", "--", "printenv", "M_REFERENCE"]).env("M_REFERENCE", "{{db.password}}");
    assert_eq!(left.with(&agent).end().expect_code(0).text(), "{{db.password}}\n");
}

#[test]
fn the_parts_of_a_chunked_reference_are_joined_before_it_is_resolved() {
    let home = Home::new();
    let agent = agent(&home);
    let run = home
        .wrapper(["--", "printenv", "CUT"])
        .with(&agent)
        .env("CUT_CHUNK_0", "{{db.pass")
        .env("CUT_CHUNK_1", "word}}");
    assert_eq!(printed(run), format!("{}\n", home.canary()));
}

#[test]
fn whole_secrets_become_variables_with_and_without_a_prefix_and_a_later_one_wins() {
    let home = Home::new();
    let agent = agent(&home);
    let run = home.wrapper(["-s", "bulk", "--secret", "P_=bulk", "-s", "later", "--", "/usr/bin/env"]).with(&agent);
    let seen = printed(run);
    for line in ["ALPHA=late", "beta.gamma-x=2", "P_ALPHA=1", "P_beta.gamma-x=2"] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in:\n{seen}");
    }
    assert_eq!(seen.lines().filter(|line| line.starts_with("ALPHA=")).count(), 1);
}

#[test]
fn a_whole_secret_cannot_bring_variables_that_steer_the_step() {
    let home = Home::new();
    let agent = agent(&home);
    let started = home.join("started");
    let refused = home.wrapper(["-s", "evil", "--", "touch"]).arg(&started).with(&agent).end();
    refused.expect_complaint(125, &["LD_PRELOAD", "PATH"]);
    assert!(!started.exists());
    // Said on purpose, it is the caller's business.
    let run = home.wrapper([
        "-e",
        "GIT_AUTHOR_NAME={{db.user}}",
        "-s",
        "E_=evil",
        "--",
        "printenv",
        "GIT_AUTHOR_NAME",
        "E_PATH",
    ]);
    assert_eq!(printed(run.with(&agent)), "reader\n/tmp\n");
}

#[test]
fn a_higher_source_wins_over_a_lower_one() {
    let home = Home::new();
    let agent = agent(&home);
    let file =
        home.write("vars.env", "# a comment\nFILE_ONLY={{db.user}}\nALPHA=\"from file\"\nexport BOTH='{{db.user}}'\n");
    let file = file.to_str().unwrap();
    let args = ["-s", "bulk", "--env-file", file, "-e", "BOTH=flag {{db.user}}", "-e", "BOTH=last {{db.user}}"];
    let run = home.wrapper(args).args(["--", "printenv", "FILE_ONLY", "ALPHA", "BOTH", "INHERITED"]);
    let run = run.with(&agent).env("ALPHA", "inherited").env("BOTH", "{{no.such}}").env("INHERITED", "kept");
    // The inherited reference is not even asked for: something higher sets the variable.
    assert_eq!(printed(run), "reader\nfrom file\nlast reader\nkept\n");

    let run = home.wrapper(["-e", "A={{db.user}}", "-F", "A={{db.user}}", "--", "true"]).with(&agent).end();
    run.expect_complaint(125, &["A", "--env", "--file-env"]);
}

#[test]
fn values_are_data_and_their_bytes_are_exact() {
    let home = Home::new();
    let agent = agent(&home);
    let run = home.wrapper([
        "-e",
        "A=[{{db.odd}}]",
        "-e",
        r"B=\{{db.user}} {{db.user | base64}}",
        "--",
        "printenv",
        "A",
        "B",
    ]);
    assert_eq!(printed(run.with(&agent)), "[{{db.user}} ${HOME} $(id)]\n{{db.user}} cmVhZGVy\n");
    let run = home.wrapper([
        "-f",
        "x={{db.password}}",
        "-e",
        "U={{db.password | url}}",
        "--",
        "/bin/sh",
        "-c",
        "cat $KEYSIDE_FILES/x",
    ]);
    assert_eq!(printed(run.with(&agent)), home.canary());
}

#[test]
fn pristine_passes_only_what_was_named() {
    let home = Home::new();
    let agent = agent(&home);
    let run = home.wrapper(["--pristine", "-e", "KEPT", "-e", "ABSENT", "-e", "NEW={{db.user}}", "--", "/usr/bin/env"]);
    let run = run.with(&agent).env("KEPT", "{{db.user}}").env("DROPPED", "x");
    assert_eq!(printed(run), "KEPT=reader\nNEW=reader\n");
}

#[test]
fn nothing_starts_on_a_partial_set_and_all_failures_are_named_at_once() {
    let home = Home::new();
    let agent = agent(&home);
    let (started, report) = (home.join("started"), home.join("report.json"));
    let args = ["-e", "GOOD={{db.password}}", "-e", "A={{db.pasword}}", "-f", "file={{nowhere.key}}", "-s", "absent"];
    let run = home.wrapper(args).env("INHERITED", "{{bulk.OMEGA}}").with(&agent);
    let run = run.arg("--report").arg(&report).args(["--", "touch"]).arg(&started).end();
    let run = run.expect_complaint(125, &["{{db.pasword}}", "{{nowhere.key}}", "absent", "{{bulk.OMEGA}}"]);
    for named in
        ["key_not_found", "secret_not_found", "wanted for A", "file file", "INHERITED", "did you mean `password`?"]
    {
        assert!(run.stderr.contains(named), "{named} is not in:\n{}", run.stderr);
    }
    assert!(!started.exists());
    let failures: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let mut references: Vec<_> =
        failures.as_array().unwrap().iter().map(|failure| failure["reference"].as_str().unwrap()).collect();
    references.sort_unstable();
    assert_eq!(references, ["absent", "{{bulk.OMEGA}}", "{{db.pasword}}", "{{nowhere.key}}"]);
}

#[test]
fn the_exit_code_is_the_commands_own_or_says_why_it_did_not_run() {
    let home = Home::new();
    let agent = agent(&home);
    let with = ["-e", "A={{db.user}}"];
    for code in [0, 1, 7, 125, 255] {
        shell(&home, &agent, &with, &format!("exit {code}")).end().expect_code(code);
    }
    // The wrapper becomes the command, so whoever waits for it sees the signal itself.
    assert_eq!(shell(&home, &agent, &with, "kill -TERM $$").end().signal(), Some(15));
    let wrapper = programs::built("keyside-exec");
    let under_a_shell = format!("{} -e 'A={{{{db.user}}}}' -- sh -c 'kill -SEGV $$'; exit $?", wrapper.display());
    let outer = Run::new(&home, "/bin/sh".into()).args(["-c", &under_a_shell]).with(&agent).end();
    outer.expect_code(128 + 11);

    home.wrapper(with).args(["--", "no-such-program"]).with(&agent).end().expect_complaint(127, &["no-such-program"]);
    home.wrapper(with).args(["--", "/no/such/program"]).with(&agent).end().expect_complaint(127, &["/no/such/program"]);
    let plain = home.write("plain", "#!/bin/sh\n");
    home.wrapper(with).arg("--").arg(&plain).with(&agent).end().expect_complaint(126, &[plain.to_str().unwrap()]);
    home.wrapper(with)
        .arg("--")
        .arg(home.path())
        .with(&agent)
        .end()
        .expect_complaint(126, &[home.path().to_str().unwrap()]);
    let interpreter = home.write("interpreter", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o700)).unwrap();
    let ended = home.wrapper(with).arg("--").arg(&interpreter).with(&agent).end();
    assert!([126, 127].contains(&ended.code().unwrap()), "{ended:?}");
}

#[test]
fn a_command_that_does_not_exist_is_found_out_before_the_agent_is_asked() {
    let home = Home::new();
    let nobody = home.join("nobody.sock");
    let run = home.wrapper(["-e", "A={{db.user}}", "--", "no-such-program"]).env("KEYSIDE_SOCKET", nobody).end();
    run.expect_complaint(127, &["no-such-program"]);
}

/// What a process shows of itself, for comparing: identity, descriptors, signals, limits.
const SELF: &str = "ls -l /proc/$$/fd; \
    grep -E 'Sig(Blk|Ign|Cgt)|NoNewPrivs|Seccomp:' /proc/self/status; ulimit -a; umask; pwd; cat /proc/self/oom_score_adj";

#[test]
fn the_step_sees_nothing_of_the_wrapper() {
    let home = Home::new();
    let agent = agent(&home);
    let seen = |run: Run<'_>| {
        let text = run.umask(0o027).stdin("input").end().expect_code(0).text();
        // Of a descriptor's line, its number and what it is; our own scratch files are others each time.
        let shown = |line: &str| match line.split_once(" -> ") {
            Some((left, _)) if line.contains("(deleted)") => left.split(' ').next_back().map(str::to_owned),
            Some((left, target)) => left.split(' ').next_back().map(|number| format!("{number} -> {target}")),
            None => Some(line.to_owned()),
        };
        text.lines().filter_map(shown).collect::<Vec<_>>()
    };
    let bare = seen(Run::new(&home, "/bin/sh".into()).args(["-c", SELF]).with(&agent));
    let wrapped =
        seen(home.wrapper(["-e", "A={{db.user}}", "-f", "b={{db.user}}", "--", "/bin/sh", "-c", SELF]).with(&agent));
    assert_eq!(wrapped, bare);
    assert!(bare.len() > 10, "{bare:?}");
}

#[test]
fn the_wrapper_becomes_the_step_under_the_same_process_id() {
    let home = Home::new();
    let agent = agent(&home);
    let step = shell(&home, &agent, &["-e", "A={{db.user}}"], "echo $$; cat /proc/$$/comm").start();
    let pid = step.pid();
    assert_eq!(step.end().expect_code(0).text(), format!("{pid}\nsh\n"));
}

#[test]
fn signals_end_the_step_itself() {
    let home = Home::new();
    let agent = agent(&home);
    let mut step = shell(
        &home,
        &agent,
        &["-e", "A={{db.user}}"],
        "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    )
    .start();
    eventually("the step is ready", || (step.stdout_so_far() == b"ready\n").then_some(()));
    step.signal(Signal::TERM);
    let ended = step.end().expect_code(5);
    assert_eq!(ended.text(), "ready\ncaught\n");
}

#[test]
fn without_anything_to_resolve_no_agent_is_needed() {
    let home = Home::new();
    let run =
        home.wrapper(["-e", "A=literal", "--", "printenv", "A"]).env("KEYSIDE_SOCKET", home.join("nobody.sock")).end();
    assert_eq!(run.expect_code(0).text(), "literal\n");
}

#[test]
fn a_named_socket_that_is_dead_is_an_error_and_never_a_fallback() {
    let home = Home::new();
    let store = home.planted();
    let gone = home.agent_with(&store.backend(""));
    let dead = gone.socket().to_owned();
    gone.kill();
    let started = home.join("started");
    for socket in [dead, home.join("nobody.sock")] {
        // The private agent would find everything it needs here.
        let run = home.keyside(["exec", "--wait", "0", "-e", "A={{canary.user}}", "--", "touch"]).arg(&started);
        let run = run.env("KEYSIDE_SOCKET", &socket).env("ZENML_CONFIG_PATH", store.directory()).end();
        run.expect_complaint(125, &[socket.to_str().unwrap()]);
        let get = home.keyside(["get", "canary.user"]).env("KEYSIDE_SOCKET", &socket);
        get.env("ZENML_CONFIG_PATH", store.directory()).end().expect_complaint(69, &[socket.to_str().unwrap()]);
    }
    assert!(!started.exists());
}

#[test]
fn wait_covers_an_agent_that_starts_later() {
    let home = Home::new();
    let store = home.planted();
    let socket = home.join("late.sock");
    let step = home
        .wrapper(["--wait", "30s", "-e", "A={{canary.user}}", "--", "printenv", "A"])
        .env("KEYSIDE_SOCKET", &socket);
    let mut step = step.start();
    // It is waiting, for there is nobody; a moment is enough to fail in if it were not.
    std::thread::sleep(Duration::from_millis(200));
    assert!(step.is_running());
    let agent = home.agent().config(&store.backend("")).socket(&socket).start();
    assert_eq!(step.end().expect_code(0).text(), "admin\n");
    drop(agent);
    let began = Instant::now();
    let nobody =
        home.wrapper(["--wait", "0", "-e", "A={{canary.user}}", "--", "true"]).env("KEYSIDE_SOCKET", &socket).end();
    nobody.expect_complaint(125, &[socket.to_str().unwrap()]);
    assert!(began.elapsed() < Duration::from_secs(20), "--wait 0 tries once");
    let transient = home.wrapper(["--wait", "0", "--unavailable-exit", "75", "-e", "A={{canary.user}}", "--", "true"]);
    transient.env("KEYSIDE_SOCKET", &socket).end().expect_code(75);
}

#[test]
fn wait_does_not_cover_a_definite_no() {
    let home = Home::new();
    let agent = agent(&home);
    let began = Instant::now();
    let args = ["--wait", "5m", "--unavailable-exit", "75", "-e", "A={{db.missing}}", "--", "true"];
    home.wrapper(args).with(&agent).end().expect_code(125);
    assert!(began.elapsed() < Duration::from_secs(25));
}

/// The processes whose home this is, with their names.
fn processes(home: &Path) -> Vec<String> {
    let ours = format!("HOME={}", home.display()).into_bytes();
    let is_ours = |process: &PathBuf| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == ours)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_ours);
    all.map(|process| std::fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn an_embedded_agent_serves_one_command_and_is_gone_before_it_starts() {
    let home = Home::new();
    let store = home.planted();
    let run =
        home.keyside(["exec", "--agent", "embedded", "-e", "A={{canary.value}}", "-f", "b={{canary.user}}", "--"]);
    let children = "printenv A; cat $KEYSIDE_FILES/b; echo; cat /proc/$$/task/$$/children; echo; \
        ls -l /proc/$$/fd | grep -c socket:; exit 0";
    let run = run.args(["/bin/sh", "-c", children]).env("ZENML_CONFIG_PATH", store.directory()).prints_values().end();
    // Only `cat` and `grep` are children of the step: no agent, no socket of one.
    let seen = run.text();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..2], [home.canary(), "admin"], "{seen}");
    assert_eq!(lines[2].split_whitespace().count(), 1, "{seen}");
    assert_eq!(lines[3], "0", "{seen}");
    eventually("no process is left", || processes(home.path()).is_empty().then_some(()));
    assert!(!home.runtime().join("keyside/agent.sock").exists());
    // The wrapper alone has no agent in it.
    let alone = home.wrapper(["--agent", "embedded", "-e", "A={{canary.user}}", "--", "true"]);
    alone.env("ZENML_CONFIG_PATH", store.directory()).end().expect_complaint(125, &["embedded"]);
}

#[test]
fn an_embedded_agent_that_cannot_start_is_an_error_with_its_reason() {
    let home = Home::new();
    let started = home.join("started");
    let run =
        home.keyside(["exec", "--agent", "embedded", "-e", "A={{canary.value}}", "--", "touch"]).arg(&started).end();
    let said = run.expect_code(125).stderr;
    assert!(said.contains("no back-end is configured") && said.contains("hint: "), "{said}");
    assert!(!started.exists());
}

#[test]
fn a_dry_run_makes_no_request_and_shows_names_only() {
    let home = Home::new();
    let nobody = home.join("nobody.sock");
    let args = ["--dry-run", "-e", "A={{db.password}}", "-f", "file={{db.user}}", "-s", "bulk", "--"];
    let literal = format!("L={}", home.canary());
    let run =
        home.wrapper(["-e", &literal]).args(args).arg("true").env("IN", "{{db.user}}").env("KEYSIDE_SOCKET", nobody);
    let ended = run.end().expect_code(0);
    for word in ["A", "{{db.password}}", "file", "{{db.user}}", "bulk", "IN", "true"] {
        assert!(ended.text().contains(word), "{word} is not in:\n{}", ended.text());
    }
    assert!(home.step_directories().is_empty());
}

#[test]
fn check_only_answers_without_starting_anything() {
    let home = Home::new();
    let agent = agent(&home);
    let started = home.join("started");
    let check = |reference: &str| -> Ended {
        let run = home.wrapper(["--check-only", "-s", "bulk", "-e", reference, "--", "touch"]).arg(&started);
        run.with(&agent).end()
    };
    let good = check("A={{db.password}}").expect_code(0);
    assert!(good.text().contains("{{db.password}}") && good.text().contains("ok"), "{}", good.text());
    let bad = check("A={{db.pasword}}").expect_code(125);
    assert!(bad.text().contains("key_missing") && bad.text().contains("password"), "{}", bad.text());
    assert!(!started.exists() && home.step_directories().is_empty());
}

#[test]
fn nul_bytes_and_values_over_the_kernels_limit_are_refused_with_variable_and_size() {
    let home = Home::new();
    let store = home.planted();
    store.plant("large", &json!({ "value": "x".repeat(200_000), "nul": "a\u{0}b" }));
    let agent = home.agent_with(&store.backend(""));
    let started = home.join("started");
    let step = |args: &[&str]| home.wrapper(args).with(&agent).args(["--", "touch"]).arg(&started).end();
    step(&["-e", "LARGE={{large.value}}"]).expect_complaint(125, &["LARGE", "200", "file"]);
    step(&["-e", "WITH_NUL={{large.nul}}"]).expect_complaint(125, &["WITH_NUL", "NUL"]);
    assert!(!started.exists());
    step(&["-f", "large={{large.value}}", "-f", "nul={{large.nul}}"]).expect_code(0);
}

#[test]
fn exec_in_the_configuration_is_laid_under_the_flags() {
    let home = Home::new();
    let agent = agent(&home);
    let config = "[exec]\nenv = { A = \"{{db.user}}\", B = \"configured\" }\n[profile.ci]\nenv = { B = \"profile {{db.user}}\" }\n";
    let config = home.write("exec.toml", config);
    let seen = |args: &[&str]| {
        let run = home.wrapper(args).env("KEYSIDE_CONFIG", &config).with(&agent);
        printed(run.args(["--", "/bin/sh", "-c", "echo \"$A,$B,$C\""]))
    };
    assert_eq!(seen(&[]), "reader,configured,\n");
    assert_eq!(seen(&["--profile", "ci"]), "reader,profile reader,\n");
    assert_eq!(seen(&["--profile", "ci", "-e", "B=flag", "-e", "C={{db.user}}"]), "reader,flag,reader\n");
    let unknown = home.wrapper(["--profile", "nope", "--", "true"]).env("KEYSIDE_CONFIG", &config).with(&agent).end();
    unknown.expect_complaint(125, &["nope"]);
}

#[test]
fn a_configuration_in_the_working_directory_may_set_variables_and_not_name_an_agent() {
    let home = Home::new();
    let agent = agent(&home);
    let directory = home.join("cloned");
    std::fs::create_dir(&directory).unwrap();
    let run = |content: &str| {
        home.write("cloned/keyside.toml", content);
        home.wrapper(["--", "/bin/sh", "-c", "echo \"$A\""]).with(&agent).in_directory(&directory).end()
    };
    assert_eq!(run("[exec]\nenv = { A = \"{{db.user}}\" }\n").expect_code(0).text(), "reader\n");
    for content in [
        "[agent]\nsocket = \"/tmp/evil.sock\"\n",
        "[backend.x]\ntype = \"zenml-sql\"\n",
        "[exec]\nagent = \"embedded\"\n",
        "[exec]\nuser = \"0\"\n",
        "[exec]\nchdir = \"/\"\n",
        "[exec]\nreport = \"/tmp/report\"\n",
        "[exec]\nenv = { LD_PRELOAD = \"/tmp/evil.so\" }\n",
        "[exec]\ntemplate = { x = \"../../etc/passwd\" }\n",
    ] {
        run(content).expect_complaint(125, &["keyside.toml", "--config"]);
    }
}

#[test]
fn the_wrapper_does_not_trust_an_agent_of_another_user() {
    if !programs::is_root() {
        remark("skipped: only root can run an agent as somebody else");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let store = home.planted();
    home.give_to(1000);
    let config = "[agent]\nsocket_mode = \"0666\"\n[grant.root]\nuid = [0, 1234]\nread = [\"*\"]\n";
    let agent = home.agent().config(&format!("{config}{}", store.backend(""))).as_user(1000).start();
    let started = home.join("started");
    let step = |args: &[&str]| {
        home.wrapper(["--wait", "0", "-e", "A={{canary.value}}"])
            .args(args)
            .with(&agent)
            .args(["--", "touch"])
            .arg(&started)
            .end()
    };
    step(&[]).expect_complaint(125, &["1000"]);
    assert!(!started.exists());
    step(&["--agent-uid", "1000"]).expect_code(0);
    assert!(started.exists());
}
