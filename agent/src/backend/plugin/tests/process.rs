//! The process: when it starts, what it is given, and that nothing is left of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::super::{Backend, Scopes};
use super::super::Plugin;
use super::{PRELUDE, fetch, settings, shell, shell_within};
use keyside_config::settings::BackendKind;

const SERVE: &str = r#"while next; do reply '"result":{"values":{"k":"v"}}'; done"#;

/// Waits until `path` has a whole line, and returns the text.
async fn text_of(path: &Path) -> String {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(text) = fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')) {
            return text;
        }
        assert!(Instant::now() < give_up, "{} was not written", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_gone(pid: &str) {
    let give_up = Instant::now() + Duration::from_secs(20);
    let path = Path::new("/proc").join(pid.trim());
    // A process that ended and was not waited for by whoever took it over has no memory any more.
    let is_there = || fs::read_to_string(path.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while is_there() {
        assert!(Instant::now() < give_up, "{} is still there", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_is_started_by_the_first_call_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("started");
    let plugin = shell(&format!("echo $$ >'{}'; greet; {SERVE}", mark.display()));
    assert_eq!(plugin.describe(&[], Scopes::PrivateFirst).await.expect("nothing asked"), []);
    tokio::task::yield_now().await;
    assert!(!mark.exists());
    fetch(&plugin, "db").await.expect("found");
    let pid = text_of(&mark).await;
    plugin.close().await;
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "ended and waited for");
}

#[tokio::test]
async fn it_is_given_a_small_environment_and_none_of_our_descriptors() {
    let folder = tempfile::tempdir().expect("a folder");
    let (variables, descriptors) = (folder.path().join("variables"), folder.path().join("descriptors"));
    // One that is not closed on exec, as a careless library leaves it.
    let file = fs::File::open("/dev/null").expect("it is there");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("ours");
    let script = format!(
        "env >'{0}.new'; mv '{0}.new' '{0}'; ls -l /proc/$$/fd >'{1}.new'; ulimit -n >>'{1}.new'; ulimit -c >>'{1}.new'; mv '{1}.new' '{1}'; greet; {SERVE}",
        variables.display(),
        descriptors.display()
    );
    let mut settings = settings(vec!["/bin/sh".into(), "-c".into(), format!("{PRELUDE}\n{script}")], super::TIMEOUT);
    let BackendKind::Plugin(plugin) = &mut settings.kind else { unreachable!("made above") };
    plugin.env.insert("STORE".into(), "a b=c".into());
    let BackendKind::Plugin(plugin) = &settings.kind else { unreachable!("made above") };
    let plugin = Plugin::new(&settings, plugin, 1000);
    fetch(&plugin, "db").await.expect("found");
    let seen = text_of(&variables).await;
    let allowed = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "STORE", "PWD", "OLDPWD", "SHLVL", "_"];
    for line in seen.lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(allowed.contains(&name), "{line}");
    }
    assert!(seen.lines().any(|line| line == "STORE=a b=c"), "{seen}");
    assert!(seen.lines().any(|line| line.starts_with("PATH=")), "{seen}");
    let seen = text_of(&descriptors).await;
    assert!(!seen.contains("/dev/null"), "{seen}");
    let limit = seen.lines().rev().nth(1).expect("a limit").trim();
    assert!(limit.parse::<u64>().is_ok_and(|limit| limit <= 1024), "{seen}");
    plugin.close().await;
    drop(file);
}

#[tokio::test]
async fn it_is_greeted_with_limits_and_what_the_settings_say_of_the_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("greeting");
    let mut settings = settings(
        vec![
            "/bin/sh".into(),
            "-c".into(),
            format!(
                "read -r line; printf '%s\\n' \"$line\" >'{}'; echo '{{\"id\":1,\"result\":null}}'; read -r line",
                mark.display()
            ),
        ],
        super::TIMEOUT,
    );
    settings.network.ca_file = Some("/etc/ca.pem".into());
    settings.network.no_proxy = Some("localhost".into());
    settings.network.proxy = Some("http://proxy:3128".to_owned().into());
    let BackendKind::Plugin(plugin) = &settings.kind else { unreachable!("made above") };
    let plugin = Plugin::new(&settings, plugin, 1000);
    let _ = plugin.list().await;
    let greeting: serde_json::Value = serde_json::from_str(&text_of(&mark).await).expect("JSON");
    assert_eq!(
        greeting,
        serde_json::json!({"id": 1, "method": "initialize", "params": {
            "protocol": 1, "client": concat!("keyside/", env!("CARGO_PKG_VERSION")), "backend": "own",
            "max_value": 1000, "parallelism": 8,
            "ca_file": "/etc/ca.pem", "proxy": "http://proxy:3128", "no_proxy": "localhost",
        }})
    );
    plugin.close().await;
}

#[tokio::test]
async fn what_does_not_want_to_end_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("pids");
    let script = format!(
        "trap '' TERM HUP INT; sleep 600 & echo $$ $! >'{}'; greet; {SERVE} ; while :; do sleep 600; done",
        mark.display()
    );
    // `next` ends the shell at the end of its input; this one goes on.
    let script = format!(
        "next() {{ IFS= read -r line; id=${{line#'{{\"id\":'}}; id=${{id%%,*}}; [ -n \"$line\" ]; }}; {script}"
    );
    let plugin = shell_within(&script, super::TIMEOUT);
    fetch(&plugin, "db").await.expect("found");
    let pids = text_of(&mark).await;
    plugin.close().await;
    for pid in pids.split_whitespace() {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn one_that_is_wanted_no_more_is_ended_without_a_close() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("pid");
    let plugin = shell(&format!("echo $$ >'{}'; greet; {SERVE}", mark.display()));
    fetch(&plugin, "db").await.expect("found");
    let pid = text_of(&mark).await;
    drop(plugin);
    until_gone(&pid).await;
}

#[tokio::test]
async fn a_close_during_the_start_waits_for_nothing_but_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("pid");
    let plugin = std::sync::Arc::new(shell(&format!("echo $$ >'{}'; exec sleep 600", mark.display())));
    let caller = tokio::spawn({
        let plugin = std::sync::Arc::clone(&plugin);
        async move { fetch(&plugin, "db").await.map(|secret| secret.description) }
    });
    let pid = text_of(&mark).await;
    plugin.close().await;
    until_gone(&pid).await;
    assert!(caller.await.expect("no panic").is_err());
}

#[tokio::test]
async fn many_starts_leave_no_process_and_no_descriptor() {
    let descriptors = || fs::read_dir("/proc/self/fd").map(Iterator::count).expect("a directory");
    let round = async || {
        let plugin = shell(&format!("greet; {SERVE}"));
        fetch(&plugin, "db").await.expect("found");
        plugin.close().await;
    };
    round().await;
    let before = descriptors();
    for _ in 0..10 {
        round().await;
    }
    // Other tests of this process may run at the same time, where they are not given processes of their own.
    assert!(descriptors() < before + 30, "three pipes and a process each");
}
