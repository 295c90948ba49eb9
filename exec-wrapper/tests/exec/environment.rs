//! Variables: where values come from, in which order, and what is refused.

use crate::harness::{CANARY, Place, ran, reply};

#[test]
fn an_inherited_reference_is_resolved_in_place_and_everything_else_keeps_bytes_and_order() {
    let place = Place::with_agent();
    let run = |program: &mut std::process::Command| {
        program.env("A", "x{{db.password}}").env("M", "{{ db.password }}").env("Z", "2").env("ÿ", "\u{80}");
        ran(program)
    };
    let plain = run(place.program("/bin/cat").arg("/proc/self/environ")).stdout;
    let wrapped = run(&mut place.wrapper(&["--", "/bin/cat", "/proc/self/environ"])).stdout;
    assert_eq!(wrapped, plain.replace("M={{ db.password }}", &format!("M={CANARY}")));
    assert_eq!(place.seen.count(), 1);
    assert!(place.seen.all()[0].0.starts_with("POST /v1/resolve "));
}

#[test]
fn references_are_left_alone_with_no_resolve_env_and_nobody_is_asked() {
    let place = Place::with_agent();
    ran(place.wrapper(&["--no-resolve-env", "--", "printenv", "M"]).env("M", "{{db.password}}"))
        .printed("{{db.password}}\n");
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn a_plain_command_needs_no_agent() {
    Place::without_agent().run(&["--", "echo", "hi"]).printed("hi\n");
}

#[test]
fn chunks_of_a_reference_are_joined() {
    let place = Place::with_agent();
    let script = "echo $LONG; env | grep -c CHUNK";
    let mut wrapper = place.wrapper(&["--", "sh", "-c", script]);
    let run = ran(wrapper.env("LONG_CHUNK_0", "{{db.").env("LONG_CHUNK_1", "user}}").env("X_CHUNK_0", "text"));
    assert_eq!(run.stdout, "alice\n1\n");
}

#[test]
fn what_zenml_takes_for_a_reference_and_we_refuse_is_left_with_a_warning() {
    let run = ran(Place::without_agent().wrapper(&["--", "printenv", "ODD"]).env("ODD", "{{.a.b}}"));
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "{{.a.b}}\n"));
    assert!(run.stderr.contains("ODD"), "{run:?}");
}

#[test]
fn sources_lie_over_each_other_in_their_order() {
    let place = Place::with_agent();
    let file = place.write("vars.env", "user=file\nFROM='{{db.user}}'\n");
    let file = file.to_str().expect("text");
    let show = ["--", "sh", "-c", "echo $user $FROM $password"];
    let with = |flags: &[&str]| place.run(&[flags, &show].concat()).stdout;
    assert_eq!(with(&["-s", "db"]), format!("alice {CANARY}\n"));
    assert_eq!(with(&["-s", "db", "--env-file", file]), format!("file alice {CANARY}\n"));
    assert_eq!(with(&["-e", "user=flag", "--env-file", file, "-s", "db", "-e", "password=p"]), "flag alice p\n");
    assert_eq!(with(&["-e", "user=1", "-e", "user=2"]), "2\n");
}

#[test]
fn a_whole_secret_sets_every_key_after_its_prefix() {
    let place = Place::with_agent();
    let run = place.run(&["-s", "DB_=db", "--pristine", "--", "/usr/bin/env"]);
    run.printed(&format!("DB_password={CANARY}\nDB_template={{{{db.user}}}} ${{HOME}}\nDB_user=alice\n"));
}

#[test]
fn a_value_is_data_and_never_read_as_a_template_again() {
    let place = Place::with_agent();
    place.run(&["-e", "T=<{{db.template}}>", "--", "printenv", "T"]).printed("<{{db.user}} ${HOME}>\n");
}

#[test]
fn a_template_knows_filters_and_two_references_side_by_side() {
    let place = Place::with_agent();
    place.run(&["-e", "T={{db.user}}:{{db.user | base64}}", "--", "printenv", "T"]).printed("alice:YWxpY2U=\n");
    assert_eq!(place.seen.count(), 1);
}

#[test]
fn pristine_starts_from_nothing_but_what_is_passed_through() {
    let place = Place::with_agent();
    let mut wrapper = place.wrapper(&["--pristine", "-e", "KEEP", "-e", "NEW=1", "-e", "ABSENT", "--", "/usr/bin/env"]);
    ran(wrapper.env("KEEP", "{{db.user}}").env("OTHER", "{{no.such}}")).printed("KEEP=alice\nNEW=1\n");
}

#[test]
fn a_bulk_name_that_steers_programs_is_refused_and_an_explicit_one_is_not() {
    let place = Place::with_agent();
    place.run(&["-s", "evil", "--", "true"]).refused(125, &["LD_PRELOAD", "hint: "]);
    place.run(&["-s", "odd", "--", "true"]).refused(125, &["a b", "1x"]);
    place.run(&["-s", "X_=evil", "--", "printenv", "X_OK"]).printed("1\n");
    place.run(&["-s", "evil", "-e", "LD_PRELOAD=", "--", "printenv", "OK"]).printed("1\n");
}

#[test]
fn what_no_environment_can_hold_is_refused_by_name_before_the_start() {
    let place = Place::with_agent();
    place.run(&["-e", "N={{nul.key}}", "--", "echo", "started"]).refused(125, &["N ", "NUL", "--file"]);
    place.run(&["-e", "B={{big.131069}}", "--", "true"]).printed("");
    place.run(&["-e", "B={{big.131070}}", "--", "echo", "started"]).refused(125, &["variable B ", "131072", "--file"]);
    let many: Vec<String> = (0..70).map(|number| format!("V{number}={{{{big.{}}}}}", 100_000 + number)).collect();
    let mut args: Vec<&str> = many.iter().flat_map(|pair| ["-e", pair.as_str()]).collect();
    args.extend(["--", "echo", "started"]);
    place.run(&args).refused(125, &["V69", "too large together", "hint: "]);
}

#[test]
fn nothing_starts_on_a_partial_set_and_every_failure_is_named_with_what_it_feeds() {
    let place = Place::with_agent();
    let report = place.path("report.json");
    let mut wrapper = place.wrapper(&[
        "-e",
        "A={{db.password}}",
        "-e",
        "B={{no.key}}",
        "-f",
        "c=x{{gone.k}}",
        "-s",
        "lost",
        "--report",
    ]);
    let run = ran(wrapper.arg(&report).args(["--", "echo", "started"]));
    run.refused(
        125,
        &["{{no.key}}", "wanted for B", "{{gone.k}}", "file c", "lost", "secret_not_found", "store", "hint: try this"],
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    assert_eq!(report.as_array().map(Vec::len), Some(3));
    assert_eq!((&report[0]["code"], &report[0]["retry"]), (&"secret_not_found".into(), &false.into()));
}

#[test]
fn every_malformed_template_is_named_before_anybody_is_asked() {
    let place = Place::with_agent();
    let run = place.run(&["-e", "A={{oops", "-f", "b={{x.y | nonsense}}", "--", "echo", "started"]);
    run.refused(125, &["--env A: malformed", "--file b: malformed"]);
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn a_dry_run_names_everything_asks_nobody_and_shows_no_text() {
    let place = Place::with_agent();
    let mut wrapper = place.wrapper(&[
        "--dry-run",
        "-e",
        "A=literal-{{db.password}}",
        "-s",
        "P_=db",
        "-f",
        "c=x{{tls.key}}",
        "--",
        "true",
    ]);
    let run = ran(wrapper.env("M", "{{db.user}}"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for line in [
        "variable M <- {{db.user}}",
        "variable A <- {{db.password}}",
        "variables P_* <- every key of db",
        "file c <- {{tls.key}}",
        "KEYSIDE_FILES",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    assert!(!run.stdout.contains("literal-"));
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn check_only_prints_one_line_a_reference_and_starts_nothing() {
    let place = Place::with_script(|_, line, body| {
        if line.starts_with("GET /v1/secrets?prefix=tls&size=1 ") {
            return crate::harness::reply(
                200,
                r#"{"secrets":[{"name":"tls","scope":null,"backend":"s","keys":null,"age_seconds":null}],"next":null,"unavailable":[]}"#,
            );
        }
        assert!(line.starts_with("POST /v1/check ") && body.contains("SECRET_EXISTS"), "{line} {body}");
        crate::harness::reply(
            200,
            r#"{"level":"SECRET_EXISTS","ok":false,"results":[{"reference":"{{db.a}}","status":"ok"},{"reference":"{{no.b}}","status":"secret_missing","hint":"near"}],"backend_calls":1}"#,
        )
    });
    let mut wrapper =
        place.wrapper(&["--check-only", "-e", "A={{db.a}}{{no.b}}", "-s", "tls", "--", "echo", "started"]);
    let run = ran(wrapper.env("ZENML_SECRET_VALIDATION_LEVEL", "SECRET_EXISTS"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(125), ""));
    let lines: Vec<_> =
        run.stdout.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["ok {{db.a}}", "secret_missing {{no.b}}", "ok tls"]);
}

#[test]
fn a_proxy_in_a_whole_secret_is_refused_with_the_way_that_works() {
    let place = Place::with_agent();
    for flag in ["proxy", "P_=proxy"] {
        let stderr = place.run(&["-s", flag, "--", "true"]).refused(125, &["http_proxy='{{proxy.http_proxy}}'"]);
        assert!(!stderr.contains("prefix"), "{stderr}");
    }
    place.run(&["-e", "P_http_proxy={{proxy.http_proxy}}", "--", "printenv", "P_http_proxy"]).printed("http://evil\n");
}

#[test]
fn check_only_writes_its_failures_into_the_report() {
    let place = Place::with_script(|_, line, _| match line {
        line if line.starts_with("POST /v1/check ") => reply(
            200,
            r#"{"level":"SECRET_AND_KEY_EXISTS","ok":false,"backend_calls":1,"results":[{"reference":"{{db.a}}","status":"ok","backend":"x"},{"reference":"{{no.b}}","status":"secret_missing","backend":"x, y","hint":"try db"}]}"#,
        ),
        _ => reply(503, r#"{"type":"urn:x","title":"t","status":503,"code":"not_ready","detail":"d"}"#),
    });
    let report = place.path("report.json");
    let shown = report.display().to_string();
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON") };
    let run = place.run(&["--check-only", "--report", &shown, "-e", "A={{db.a}}{{no.b}}", "--", "true"]);
    assert_eq!(run.code, Some(125), "{run:?}");
    let expected = serde_json::json!([{"reference": "{{no.b}}", "code": "secret_not_found", "backends": ["x", "y"], "retry": false, "hint": "try db"}]);
    assert_eq!(read(), expected);
    // Where the whole request is refused, nothing could be checked.
    place.run(&["--check-only", "--report", &shown, "-s", "tls", "--", "true"]).refused(125, &["d (not_ready)"]);
    assert_eq!((&read()[0]["reference"], &read()[0]["code"]), (&"tls".into(), &"not_ready".into()));
    // Where nothing is to be resolved, nothing fails.
    place.run(&["--check-only", "--report", &shown, "--", "true"]).printed("");
    assert_eq!(read(), serde_json::json!([]));
}
