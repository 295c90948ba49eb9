//! Which file is read, and which is refused.

use std::os::unix::fs::{PermissionsExt, chown};

use crate::scene::{BACKEND, Scene, assert_holds};

#[test]
fn without_a_flag_the_file_in_the_users_configuration_directory_is_read() {
    let scene = Scene::new();
    let path = scene.write(".config/keyside/keyside.toml", BACKEND);
    assert_eq!(scene.load().sources, [path.display().to_string()]);
}

#[test]
fn xdg_config_home_goes_before_home_and_counts_only_if_absolute() {
    let scene = Scene::new();
    scene.write("xdg/keyside/keyside.toml", format!("[cache]\nttl = \"7m\"\n{BACKEND}"));
    scene.write(".config/keyside/keyside.toml", BACKEND);
    let xdg = scene.path("xdg").display().to_string();
    let scene = scene.variable("XDG_CONFIG_HOME", xdg);
    assert_eq!(scene.load().cache.ttl.as_secs(), 420);
    let scene = scene.variable("XDG_CONFIG_HOME", "relative");
    assert_eq!(scene.load().cache.ttl.as_secs(), 300);
}

#[test]
fn a_named_file_is_read_alone_and_must_be_there() {
    let scene = Scene::new();
    scene.write(".config/keyside/keyside.toml", BACKEND);
    let missing = scene.path("missing.toml");
    assert_eq!(scene.config(&missing).mistake(), "missing.toml: there is no such file");
}

#[test]
fn the_settings_name_every_file_to_look_at_again_the_absent_ones_too() {
    let scene = Scene::new();
    let default = scene.path(".config/keyside/keyside.toml");
    let zenml = scene.write(".config/zenml/config.yaml", "");
    scene.write(".config/zenml/local_stores/default_zen_store/zenml.db", "");
    let files = scene.load().files;
    assert_eq!(files, [default.clone(), "/etc/keyside/keyside.toml".into(), zenml]);

    let key = scene.write("key", "k");
    let text = format!("{BACKEND}encryption_key_file = \"{}\"\n", key.display());
    scene.write(".config/keyside/keyside.toml", &text);
    assert_eq!(scene.load().files, [default, key.clone()]);

    let named = scene.write("named.toml", text);
    assert_eq!(scene.config(&named).load().files, [named, key]);
}

#[test]
fn what_is_no_regular_file_is_named_for_what_it_is() {
    let scene = Scene::new();
    let folder = scene.path("folder");
    std::fs::create_dir(&folder).expect("made");
    let scene = scene.config(&folder);
    assert_eq!(scene.mistake(), "folder: this is a directory, not a file");

    let fifo = scene.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).expect("made");
    assert_eq!(scene.config(&fifo).mistake(), "fifo: this is a FIFO, not a regular file");
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let scene = Scene::with_config(BACKEND);
    std::fs::set_permissions(scene.path("keyside.toml"), std::fs::Permissions::from_mode(0o602)).expect("set");
    assert_holds(&scene.mistake(), &["keyside.toml: others may write to this file", "chmod o-w"]);
    std::fs::set_permissions(scene.path("keyside.toml"), std::fs::Permissions::from_mode(0o644)).expect("set");
    scene.load();
}

#[test]
fn a_file_of_another_user_is_refused() {
    let mut scene = Scene::with_config(BACKEND);
    if scene.uid == 0 {
        // Root's own files are everybody's to trust, so this one gets another owner.
        chown(scene.path("keyside.toml"), Some(4242), None).expect("we are root");
        scene.uid = 4242;
        scene.load();
    }
    scene.uid += 1;
    assert_holds(&scene.mistake(), &["keyside.toml: this file belongs to uid", "must belong to root"]);
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_refused() {
    let scene = Scene::with_config(&format!("{BACKEND}{}", "#".repeat(1 << 20)));
    assert_eq!(scene.mistake(), "keyside.toml: this file is larger than 1048576 bytes");
}

#[test]
fn a_file_that_is_not_utf8_says_in_which_line() {
    let scene = Scene::new();
    let path = scene.write("keyside.toml", b"[cache]\nttl = \"\xff\"\n");
    assert_eq!(scene.config(&path).mistake(), "keyside.toml: line 2 of this file is not UTF-8");
}

#[test]
fn an_unreadable_file_at_a_default_path_stops_the_agent_and_is_absent_to_a_client() {
    let scene = Scene::new();
    if scene.uid == 0 {
        // Root may read everything; the tests run as an ordinary user too.
        return;
    }
    let path = scene.write(".config/keyside/keyside.toml", BACKEND);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("set");
    assert_holds(&scene.mistake(), &["keyside.toml: the permissions do not allow"]);
    assert_eq!(scene.client_socket().expect("absent"), None);
    assert!(scene.config(&path).client_socket().is_err(), "a named file must be readable");
}

#[test]
fn a_client_reads_the_socket_and_skips_every_other_table() {
    let scene =
        Scene::with_config("[agent]\nsocket = \"/run/a.sock\"\nnonsense = 1\n[cache]\nttl = 5\n[no_such.table]\n");
    assert_eq!(scene.client_socket().expect("read"), Some("/run/a.sock".into()));
    let scene = scene.variable("KEYSIDE_AGENT__SOCKET", "/run/b.sock").variable("KEYSIDE_CACHE__TTL", "wrong");
    assert_eq!(scene.client_socket().expect("read"), Some("/run/b.sock".into()));
    assert_eq!(Scene::new().client_socket().expect("nothing names one"), None);
}

#[test]
fn a_client_refuses_a_socket_path_that_cannot_be_one() {
    let scene = Scene::with_config("[agent]\nsocket = \"run/a.sock\"\n");
    let error = scene.client_socket().expect_err("relative").to_string();
    assert_holds(&error, &["keyside.toml:2:10: ", "must be absolute"]);
    let mut scene = Scene::new();
    scene.socket = Some(format!("/{}", "s".repeat(107)).into());
    assert_holds(&scene.client_socket().expect_err("too long").to_string(), &["shorter than 108 bytes", "108"]);
}

#[test]
fn a_client_cannot_go_on_with_a_file_that_is_no_toml() {
    let error = Scene::with_config("[agent\n").client_socket().expect_err("no TOML").to_string();
    assert_holds(&error, &["keyside.toml:1:", "this is not TOML"]);
}
