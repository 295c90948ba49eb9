//! Where the agent listens: several sockets, shared volumes, sockets that are replaced, sockets of a supervisor.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::Duration;

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Client, Home, programs};
use rustix::process::Signal;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Words of a shell that start the agent with these sockets handed over.
fn activated(names: &str, kinds: &[(&str, &Path)]) -> String {
    let script = programs::package().join("peers/activate.py");
    let kinds: Vec<_> = kinds.iter().map(|(kind, path)| format!("'{kind}={}'", path.display())).collect();
    let (python, script) = (programs::python(), script.display().to_string());
    format!("exec {} '{script}' '{names}' {} -- \"$0\" \"$@\"", python.display(), kinds.join(" "))
}

#[test]
fn in_a_shared_volume_the_agent_listens_in_a_directory_of_its_own_and_says_that_this_is_weak() {
    let home = Home::new();
    let store = home.planted();
    for (number, (socket_mode, mode)) in [("0600", 0o700), ("0660", 0o711), ("0666", 0o711)].into_iter().enumerate() {
        let volume = home.join(format!("vol{number}"));
        std::fs::create_dir(&volume).unwrap();
        set_mode(&volume, 0o777);
        let socket = volume.join("keyside/agent.sock");
        let config = format!("[agent]\nsocket_mode = \"{socket_mode}\"\n{}", store.backend(""));
        let agent = home.agent().config(&config).umask(0).socket(&socket).start();
        assert_eq!(mode_of(socket.parent().unwrap()), mode, "{socket_mode}");
        agent.client().value("canary", "value").expect(200);
        let said = agent.log().lines().filter(|line| line.contains("weak: ")).count();
        assert_eq!(said, 1, "{}", agent.log());
        assert!(agent.log().contains("KEYSIDE_AGENT_UID"));
        assert!(agent.stop().success());
        assert!(!socket.exists());
    }
}

#[test]
fn a_directory_that_somebody_else_prepared_in_a_shared_volume_is_refused_and_left_alone() {
    let home = Home::new();
    let store = home.planted();
    let volume = home.join("vol");
    std::fs::create_dir(&volume).unwrap();
    set_mode(&volume, 0o777);
    let elsewhere = home.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let own = volume.join("keyside");
    let refused = |why: &str| {
        let ended = home.agent().config(&store.backend("")).socket(own.join("agent.sock")).end();
        ended.expect_complaint(78, &[own.to_str().unwrap(), why]);
    };
    std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
    refused("symbolic link");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    std::fs::remove_file(&own).unwrap();
    std::fs::create_dir(&own).unwrap();
    set_mode(&own, 0o777);
    refused("everyone");
    if programs::is_root() {
        set_mode(&own, 0o700);
        std::os::unix::fs::chown(&own, Some(1234), Some(1234)).unwrap();
        refused("somebody else");
    } else {
        remark("not shown: only root can make a directory for somebody else");
    }
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_swapped_under_the_agent_is_noticed_and_the_socket_made_again() {
    let home = Home::new();
    let store = home.planted();
    let volume = home.join("vol");
    std::fs::create_dir(&volume).unwrap();
    set_mode(&volume, 0o777);
    let socket = volume.join("keyside/agent.sock");
    let agent = home.agent().config(&store.backend("")).socket(&socket).start();
    std::fs::rename(volume.join("keyside"), volume.join("taken")).unwrap();
    let ((), took) = eventually("the socket is there again", || {
        Client::try_connect(&socket).ok().map(|mut client| drop(client.value("canary", "value").expect(200)))
    });
    remark(format_args!("the socket was back after {took:?} (promised: 5 s)"));
    assert!(agent.stop().success());
}

#[test]
fn a_stale_socket_in_the_place_of_ours_gives_way_and_a_live_one_is_left_alone_until_it_goes() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let socket = agent.socket().to_owned();
    // A connection from before stays.
    let mut before = agent.client();
    before.get("/v1/health").expect(200);
    std::fs::remove_file(&socket).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let served = || Client::try_connect(&socket).ok().filter(|_| agent.client().get("/v1/health").status == 200);
    let (_, took) = eventually("the stale socket was replaced", served);
    remark(format_args!("a stale socket was replaced after {took:?} (promised: 5 s)"));

    std::fs::remove_file(&socket).unwrap();
    let other = UnixListener::bind(&socket).unwrap();
    let identity = std::fs::symlink_metadata(&socket).unwrap().ino();
    eventually("it is said", || agent.log().contains("the path leads elsewhere").then_some(()));
    assert_eq!(std::fs::symlink_metadata(&socket).unwrap().ino(), identity, "somebody else's live socket stays");
    before.value("canary", "value").expect(200);
    drop(other);
    eventually("ours is back", served);

    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let said = |agent: &keyside_tests::Agent<'_>| agent.log().matches("the path leads elsewhere").count();
    eventually("it is said again", || (said(&agent) > 1).then_some(()));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    before.value("canary", "value").expect(200);
    std::fs::remove_file(&socket).unwrap();
    eventually("ours is back", served);
    assert!(agent.stop().success());
    assert!(!socket.exists());
}

#[test]
fn each_listener_has_its_own_mode_and_its_own_grants() {
    let home = Home::new();
    let store = home.planted();
    let (team, uid) = (home.join("team.sock"), rustix::process::geteuid().as_raw());
    let config = format!(
        "{}[listener.team]\npath = \"{}\"\nmode = \"0660\"\ngrants = [\"team\"]\n\
         [grant.all]\nuid = [{uid}]\nread = [\"*\"]\n\
         [grant.team]\nuid = [{uid}]\nread = [{{ secret = \"canary\", keys = [\"user\"] }}]\n",
        store.backend(""),
        team.display()
    );
    let agent = home.agent().config(&config).umask(0).start();
    assert_eq!((mode_of(agent.socket()), mode_of(&team)), (0o600, 0o660));
    agent.client().value("canary", "value").expect(200);
    let mut narrow = Client::connect(&team).recorded(&home);
    narrow.value("canary", "user").expect(200);
    narrow.value("canary", "value").expect_problem(404, "secret_not_found");
    assert!(agent.stop().success());
    assert!(!team.exists());
}

#[test]
fn a_socket_that_a_supervisor_bound_is_listened_on_and_stays_the_supervisors() {
    let home = Home::new();
    let socket = home.join("unit.sock");
    let prelude = activated("-", &[("stream", &socket)]);
    let agent = home.agent().config(&home.planted().backend("")).after(&prelude).unnamed_socket(&socket).start();
    let inode = std::fs::symlink_metadata(&socket).unwrap().ino();
    assert_eq!(mode_of(&socket), 0o640, "as the supervisor made it");
    agent.client().value("canary", "value").expect(200);
    assert!(!home.runtime().join("keyside/agent.sock").exists(), "it stands for the agent's own");
    let listeners = agent.client().get("/v1/status").expect(200).json()["listeners"].clone();
    assert_eq!(listeners, serde_json::json!([socket.to_str().unwrap()]));
    assert!(agent.stop().success());
    assert_eq!(std::fs::symlink_metadata(&socket).unwrap().ino(), inode, "not ours to remove");
}

#[test]
fn sockets_of_a_supervisor_stand_for_the_listeners_of_their_names() {
    let home = Home::new();
    let store = home.planted();
    let (own, team, uid) = (home.join("o.sock"), home.join("t.sock"), rustix::process::geteuid().as_raw());
    let config = format!(
        "{}[listener.team]\npath = \"{}\"\ngrants = [\"team\"]\n\
         [grant.all]\nuid = [{uid}]\nread = [\"*\"]\n[grant.team]\nuid = [{uid}]\nread = [\"nothing\"]\n",
        store.backend(""),
        home.join("unused.sock").display()
    );
    let prelude = activated("team:keyside.socket", &[("stream", &team), ("stream", &own)]);
    let agent = home.agent().config(&config).after(&prelude).unnamed_socket(&own).start();
    agent.client().value("canary", "value").expect(200);
    Client::connect(&team).value("canary", "value").expect_problem(404, "secret_not_found");
    assert!(!home.join("unused.sock").exists() && !home.runtime().join("keyside/agent.sock").exists());
}

#[test]
fn what_is_no_listening_unix_socket_is_refused_at_the_start() {
    let home = Home::new();
    let store = home.planted();
    let file = home.write("file", "x");
    for (kind, path, why) in [
        ("datagram", home.join("d.sock"), "not a stream socket"),
        ("bound", home.join("b.sock"), "not listening"),
        ("tcp", home.join("nowhere"), "not a Unix socket"),
        ("file", file, "not a socket"),
    ] {
        let prelude = activated("-", &[(kind, &path)]);
        let agent = home.agent().config(&store.backend("")).after(&prelude).unnamed_socket(home.join("unused"));
        agent.end().expect_complaint(78, &["descriptor 3", why]);
    }
    let names = activated("one:two", &[("stream", &home.join("n.sock"))]);
    let agent = home.agent().config(&store.backend("")).after(&names).unnamed_socket(home.join("unused"));
    agent.end().expect_complaint(78, &["LISTEN_FDNAMES"]);
}

#[test]
fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let home = Home::new();
    let unit = home.join("unit.sock");
    let prelude = activated("-", &[("stream", &unit)]);
    let default = home.runtime().join("keyside/agent.sock");
    let agent = home.agent().config(&home.planted().backend("")).env("OTHER_PID", "1").after(&prelude);
    let agent = agent.unnamed_socket(&default).start();
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn a_supervisor_is_told_of_the_start_and_of_the_stop() {
    let home = Home::new();
    let address = home.join("notify");
    let supervisor = UnixDatagram::bind(&address).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
    let hear = || {
        let mut words = [0; 256];
        let length = supervisor.recv(&mut words).unwrap();
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let agent = home.agent().config(&home.planted().backend("")).env("NOTIFY_SOCKET", &address).start();
    assert!(hear().starts_with("READY=1\n"));
    agent.signal(Signal::HUP);
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(hear().starts_with("READY=1\n"));
    agent.signal(Signal::TERM);
    assert!(hear().starts_with("STOPPING=1\n"));
    assert_eq!(agent.end().code(), Some(0));
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let home = Home::new();
    let agent = home.agent().config(&home.planted().backend("")).after("ulimit -Sn 100; ulimit -Hn 500").start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limits: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(limits, ["500", "500"]);
}
