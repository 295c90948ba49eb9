//! `keyside.toml` and the variables that lie over it.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Place, is_root, ran};

const SHOW: [&str; 4] = ["--", "sh", "-c", "echo $A $B"];

#[test]
fn exec_and_a_profile_hold_flags_and_flags_lie_over_both() {
    let place = Place::with_agent();
    place.write(
        "config/keyside/keyside.toml",
        "[exec]\nenv = { A = '{{db.user}}', B = 'exec' }\n[profile.ci]\nenv.B = 'ci'\n",
    );
    place.run(&SHOW).printed("alice exec\n");
    place.run(&[&["--profile", "ci"], &SHOW[..]].concat()).printed("alice ci\n");
    place.run(&[&["--profile", "ci", "-e", "B=flag"], &SHOW[..]].concat()).printed("alice flag\n");
    place.run(&[&["--profile", "cd"], &SHOW[..]].concat()).refused(125, &["no profile cd", "ci"]);
}

#[test]
fn the_socket_of_the_configuration_counts_after_flag_and_variable() {
    let place = Place::with_agent();
    let text =
        format!("[agent]\nsocket = '{}'\n[backend.x]\ntype = 'unknown to the wrapper'\n", place.socket().display());
    place.write("config/keyside/keyside.toml", text);
    let args = ["-e", "A={{db.user}}", "--wait", "0", "--", "printenv", "A"];
    ran(place.wrapper(&args).env_remove("KEYSIDE_SOCKET")).printed("alice\n");
    ran(place.wrapper(&args).env("KEYSIDE_SOCKET", "/no/such")).refused(125, &["/no/such"]);
}

#[test]
fn a_file_of_the_working_directory_lies_above_and_may_not_steer() {
    let place = Place::with_agent();
    place.write("config/keyside/keyside.toml", "[exec]\nenv = { A = 'user', B = 'user' }\n");
    let local = place.write("work/keyside.toml", "[exec]\nenv.B = 'local'\n");
    place.run(&SHOW).printed("user local\n");
    place.write("work/keyside.toml", "[agent]\nsocket = '/evil'\n[exec]\nuser = '0'\nenv.LD_PRELOAD = 'x'\n");
    place.run(&SHOW).refused(125, &["./keyside.toml:1", "[agent]", "`user`", "LD_PRELOAD", "--config"]);
    // Named, it is the operator's.
    place.write("work/keyside.toml", "[exec]\ninsecure_files = false\nenv.A = 'named'\n");
    let config = local.to_str().expect("text");
    place.run(&[&["--config", config], &SHOW[..]].concat()).printed("named\n");
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let place = Place::with_agent();
    let file = place.write("k.toml", "[exec]\nenvv = { A = '1' }\nwait = 5\n");
    let run = place.run(&[&["--config", file.to_str().expect("text")], &SHOW[..]].concat());
    run.refused(
        125,
        &["k.toml:2:1: exec: unknown key `envv`", "did you mean `env`?", "k.toml:3:8: exec: `wait` is wrong"],
    );
    place.run(&[&["--config", "/no/such.toml"], &SHOW[..]].concat()).refused(125, &["/no/such.toml"]);
    place.run(&[&["--config", "/"], &SHOW[..]].concat()).refused(125, &["not a regular file"]);
}

#[test]
fn what_is_no_regular_file_in_the_working_directory_neither_hangs_nor_is_read() {
    let place = Place::with_agent();
    let local = place.write("work/keyside.toml", "");
    let run = || {
        place.run(&SHOW).refused(125, &["./keyside.toml: not a regular file", "--config"]);
        std::fs::remove_file(&local).expect("removed");
    };
    for target in ["/dev/zero", "/"] {
        std::fs::remove_file(&local).ok();
        std::os::unix::fs::symlink(target, &local).expect("made");
        run();
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, &local, rustix::fs::Mode::from_raw_mode(0o600)).expect("made");
    run();
    let _listening = std::os::unix::net::UnixListener::bind(&local).expect("bound");
    run();
}

#[test]
fn a_file_that_others_may_write_or_that_belongs_to_another_user_is_refused() {
    let place = Place::with_agent();
    let file = place.write("config/keyside/keyside.toml", "[exec]\nenv.A = 'x'\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).expect("chmod");
    place.run(&SHOW).refused(125, &["everybody may write"]);
    if is_root("a file of another user") {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        std::os::unix::fs::chown(&file, Some(4242), None).expect("chown");
        place.run(&SHOW).refused(125, &["uid 4242"]);
    }
}

#[test]
fn variables_with_a_double_underscore_lie_over_the_files() {
    let place = Place::with_agent();
    place.write("config/keyside/keyside.toml", "[exec]\nenv = { A = 'file', B = 'file' }\n");
    let mut wrapper = place.wrapper(&SHOW);
    wrapper
        .env("KEYSIDE_EXEC__ENV__B", "{{db.user}}")
        .env("KEYSIDE_EXEC", "ignored")
        .env("KEYSIDE_EXEC__INIT", "never");
    ran(&mut wrapper).printed("file alice\n");
    ran(place.wrapper(&SHOW).env("KEYSIDE_EXEC__WAITT", "1s")).refused(125, &["KEYSIDE_EXEC__WAITT", "`wait`"]);
}
