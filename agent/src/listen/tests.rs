//! Sockets on real directories.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::*;

fn settings(path: PathBuf, mode: u32) -> ListenerSettings {
    ListenerSettings { name: "agent".to_owned(), path, mode, group: None, grants: None }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn the_mode_is_exact_under_any_umask_and_the_socket_goes_with_the_listener() {
    let directory = directory();
    for mode in [0o600, 0o660, 0o666] {
        let path = directory.path().join("a.sock");
        let listener = Listener::open(settings(path.clone(), mode)).expect("free");
        let found = std::fs::symlink_metadata(&path).expect("there");
        assert_eq!(found.mode() & 0o777, mode);
        UnixStream::connect(&path).expect("listening");
        drop(listener);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0, "nothing is left");
    }
}

#[test]
fn a_second_agent_does_not_steal_a_live_socket() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let first = Listener::open(settings(path.clone(), 0o600)).expect("free");
    let error = Listener::open(settings(path.clone(), 0o600)).err().expect("taken");
    assert!(error.is_in_use(), "{error}");
    UnixStream::connect(&path).expect("the first still listens");
    drop(first);
    Listener::open(settings(path, 0o600)).expect("free again");
}

#[test]
fn a_live_socket_of_another_program_is_not_stolen_either() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let _other = UnixListener::bind(&path).expect("free");
    assert!(Listener::open(settings(path, 0o600)).err().expect("taken").is_in_use());
}

#[test]
fn a_live_socket_whose_owner_does_not_accept_is_not_waited_for() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let address = SocketAddrUnix::new(&path).expect("short");
    let busy = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&busy, &address).expect("free");
    listen(&busy, 0).expect("bound");
    let _waiting = UnixStream::connect(&path).expect("the one that fits");
    assert!(Listener::open(settings(path, 0o600)).err().expect("taken").is_in_use());
}

#[test]
fn mode_and_group_can_be_changed_while_the_socket_is_listened_on() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let mut listener = Listener::open(settings(path.clone(), 0o600)).expect("free");
    let own = rustix::process::getegid().as_raw();
    let group = Some(own.to_string());
    listener.adjust(&ListenerSettings { group, ..settings(path.clone(), 0o660) }).expect("our own group");
    let found = std::fs::symlink_metadata(&path).expect("there");
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, own));
    let nobody = Some("no-such-group-here".to_owned());
    assert!(listener.adjust(&ListenerSettings { group: nobody, ..settings(path.clone(), 0o666) }).is_err());
    assert_eq!(std::fs::symlink_metadata(&path).expect("there").mode() & 0o777, 0o660, "as it was");
    assert_eq!(listener.settings.mode, 0o660);
    UnixStream::connect(&path).expect("listening");
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    drop(UnixListener::bind(&path).expect("free"));
    Listener::open(settings(path.clone(), 0o600)).expect("the stale one is replaced");
}

#[test]
fn what_is_no_socket_stays_untouched() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").expect("writable");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).expect("writable");
    let folder = directory.path().join("folder");
    std::fs::create_dir(&folder).expect("writable");
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("writable");
    for path in [&file, &link, &folder, &fifo] {
        let error = Listener::open(settings(path.clone(), 0o600)).err().expect("refused");
        assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "precious");
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
}

#[test]
fn a_directory_that_everyone_may_write_to_is_refused() {
    let directory = directory();
    let shared = directory.path().join("shared");
    std::fs::create_dir(&shared).expect("writable");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).expect("ours");
    let error = Listener::open(settings(shared.join("a.sock"), 0o600)).err().expect("refused");
    assert!(matches!(error, ListenError::UnsafeDirectory { .. }), "{error}");
}

fn shared_volume() -> (tempfile::TempDir, PathBuf) {
    let directory = directory();
    let volume = directory.path().join("vol");
    std::fs::create_dir(&volume).expect("writable");
    std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o777)).expect("ours");
    (directory, volume)
}

#[test]
fn directly_in_a_shared_volume_is_refused_with_the_place_to_use_instead() {
    let (_directory, volume) = shared_volume();
    let error = Listener::open(settings(volume.join("a.sock"), 0o600)).err().expect("refused");
    assert!(error.hint().contains(&volume.join("keyside/agent.sock").display().to_string()), "{}", error.hint());
}

#[test]
fn in_a_shared_volume_the_agent_makes_a_directory_of_its_own() {
    for (socket_mode, mode) in [(0o600, 0o700), (0o660, 0o711), (0o666, 0o711)] {
        let (_directory, volume) = shared_volume();
        let path = volume.join("keyside/agent.sock");
        let listener = Listener::open(settings(path.clone(), socket_mode)).expect("a place of its own");
        let found = std::fs::metadata(volume.join("keyside")).expect("made");
        assert_eq!(found.mode() & 0o7777, mode, "{socket_mode:o}");
        assert!(listener.made.as_ref().is_some_and(|made| made.place.may_be_replaced()), "weak, and known to be");
        UnixStream::connect(&path).expect("listening");
    }
}

#[test]
fn a_place_below_directories_that_nobody_else_may_write_to_is_not_weak() {
    let directory = directory();
    let listener = Listener::open(settings(directory.path().join("own/a.sock"), 0o600)).expect("free");
    assert!(listener.made.as_ref().is_some_and(|made| !made.place.may_be_replaced()));
}

#[test]
fn what_somebody_else_put_into_a_shared_volume_is_refused_and_left_as_it_is() {
    let (directory, volume) = shared_volume();
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("writable");
    std::os::unix::fs::symlink(&elsewhere, volume.join("link")).expect("writable");
    std::fs::create_dir(volume.join("open")).expect("writable");
    std::fs::set_permissions(volume.join("open"), PermissionsExt::from_mode(0o757)).expect("ours");
    std::fs::write(volume.join("file"), "").expect("writable");
    for name in ["link", "open", "file"] {
        let error = Listener::open(settings(volume.join(name).join("agent.sock"), 0o600)).err().expect("refused");
        assert!(matches!(error, ListenError::UnsafeDirectory { .. }), "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(&elsewhere).expect("readable").count(), 0, "nothing behind the link");
    assert_eq!(std::fs::metadata(volume.join("open")).expect("there").mode() & 0o777, 0o757);
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir(volume.join("foreign")).expect("writable");
        std::os::unix::fs::chown(volume.join("foreign"), Some(1234), None).expect("root may");
        let error = Listener::open(settings(volume.join("foreign/agent.sock"), 0o600)).err().expect("refused");
        assert!(error.to_string().contains("somebody else"), "{error}");
    }
}

#[test]
fn what_is_bound_lies_in_the_directory_that_was_checked_even_after_a_swap() {
    let (_directory, volume) = shared_volume();
    let path = volume.join("keyside/agent.sock");
    let place = Place::open(&path, 0o600).expect("made");
    std::fs::rename(volume.join("keyside"), volume.join("moved")).expect("everybody may");
    std::fs::create_dir(volume.join("keyside")).expect("everybody may");
    let error = open_at(&place, &settings(path.clone(), 0o600)).expect_err("noticed");
    assert!(matches!(error, ListenError::Moved(_)), "{error}");
    for name in ["keyside", "moved"] {
        assert_eq!(std::fs::read_dir(volume.join(name)).expect("readable").count(), 0, "nothing is left in {name}");
    }
}

#[test]
fn a_directory_that_is_swapped_later_is_noticed() {
    let (_directory, volume) = shared_volume();
    let path = volume.join("keyside/agent.sock");
    let mut listener = Listener::open(settings(path.clone(), 0o600)).expect("free");
    std::fs::rename(volume.join("keyside"), volume.join("moved")).expect("everybody may");
    assert!(listener.is_gone());
    std::os::unix::fs::symlink(volume.join("moved"), volume.join("keyside")).expect("everybody may");
    assert!(listener.restore().is_err(), "a link is not followed, even to our own directory");
    std::fs::remove_file(volume.join("keyside")).expect("ours");
    listener.restore().expect("free again");
    assert!(!listener.is_gone());
    UnixStream::connect(&path).expect("listening");
}

#[test]
fn the_group_is_ours_also_where_the_directory_would_give_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = directory();
    std::os::unix::fs::chown(directory.path(), None, Some(1234)).expect("root may");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o2755)).expect("ours");
    let path = directory.path().join("a.sock");
    let _listener = Listener::open(settings(path.clone(), 0o660)).expect("free");
    assert_eq!(std::fs::symlink_metadata(path).expect("there").gid(), rustix::process::getegid().as_raw());
}

#[test]
fn a_path_longer_than_the_kernels_limit_is_refused_by_its_length() {
    let directory = directory();
    let path = directory.path().join("x".repeat(120));
    let error = Listener::open(settings(path, 0o600)).err().expect("refused").to_string();
    assert!(error.contains("at most 107"), "{error}");
}

#[test]
fn a_socket_that_vanished_is_made_again_with_the_same_mode() {
    let directory = directory();
    let path = directory.path().join("own").join("a.sock");
    let mut listener = Listener::open(settings(path.clone(), 0o660)).expect("free");
    assert!(!listener.is_gone());
    std::fs::remove_dir_all(path.parent().expect("a directory")).expect("ours");
    assert!(listener.is_gone());
    listener.restore().expect("free again");
    assert_eq!(std::fs::symlink_metadata(&path).expect("there").mode() & 0o777, 0o660);
    UnixStream::connect(&path).expect("listening");
    assert!(Listener::open(settings(path, 0o600)).err().expect("taken").is_in_use());
}

#[test]
fn a_socket_that_was_replaced_is_made_again_once_nobody_listens_there() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let mut listener = Listener::open(settings(path.clone(), 0o600)).expect("free");
    std::fs::remove_file(&path).expect("ours");
    let other = UnixListener::bind(&path).expect("free");
    assert!(listener.is_gone(), "another socket is at the path");
    assert!(listener.restore().expect_err("taken").is_in_use());
    UnixStream::connect(&path).expect("the other still listens");
    drop(other);
    listener.restore().expect("stale");
    assert!(!listener.is_gone());
    std::fs::remove_file(&path).expect("ours");
    std::fs::write(&path, "precious").expect("writable");
    assert!(matches!(listener.restore(), Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "precious");
}

#[test]
fn a_socket_that_was_handed_over_is_listened_on_and_otherwise_left_alone() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let bound = UnixListener::bind(&path).expect("free");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("ours");
    let listener = Listener::inherited(settings(path.clone(), 0o600), bound).expect("a listener");
    assert_eq!(std::fs::symlink_metadata(&path).expect("there").mode() & 0o777, 0o640);
    UnixStream::connect(&path).expect("listening");
    drop(listener);
    assert!(path.exists(), "its owner removes it");
    std::fs::remove_file(&path).expect("ours");
    let gone = UnixListener::bind(&path).expect("free");
    let mut listener = Listener::inherited(settings(path.clone(), 0o600), gone).expect("a listener");
    std::fs::remove_file(&path).expect("ours");
    assert!(!listener.is_gone());
    listener.restore().expect("nothing to do");
    assert!(!path.exists());
}

#[test]
fn a_socket_that_was_replaced_meanwhile_is_left_to_its_owner() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let listener = Listener::open(settings(path.clone(), 0o600)).expect("free");
    std::fs::remove_file(&path).expect("ours");
    let _other = UnixListener::bind(&path).expect("free");
    drop(listener);
    assert!(path.exists());
}
