//! Files that somebody made to hang, exhaust or mislead. None is measured here: what once took minutes would run into
//! the runner's own limit.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::scene::{BACKEND, Scene, assert_holds};

const MIB: usize = 1 << 20;

/// A text of numbered pieces, of nearly a mebibyte.
fn numbered(piece: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() + 256 < MIB {
        text += &piece(number);
        number += 1;
    }
    text
}

#[test]
fn brackets_nested_by_the_thousand_are_refused_at_the_first_one_too_many() {
    for (text, place) in [
        (format!("a = {}", "[".repeat(MIB / 2)), "keyside.toml:1:85: "),
        (format!("a = {}{}\n", "[".repeat(9000), "]".repeat(9000)), "keyside.toml:1:85: "),
        (format!("a = {}", "{a=".repeat(MIB / 4)), "keyside.toml:1:245: "),
    ] {
        assert_holds(&Scene::with_config(&text).mistakes()[0], &[place, "this is not TOML", "recurs"]);
    }
    // As deep as anything that anybody writes.
    let text = format!("[exec]\nenv = {}{}\n", "[".repeat(40), "]".repeat(40));
    assert_holds(&Scene::with_backend_and(&text).mistake(), &["must be a table of templates, not a list"]);
}

#[test]
fn dotted_keys_of_half_a_million_parts_are_refused() {
    let dots = "a.".repeat(MIB / 2 - 20);
    for text in [format!("{dots}b = 1\n"), format!("[{dots}b]\nx = 1\n"), format!("x = {{ {dots}b = 1 }}\n")] {
        assert_holds(&Scene::with_config(&text).mistakes()[0], &["keyside.toml:", "this is not TOML: recursion limit"]);
    }
}

#[test]
fn a_hundred_thousand_mistakes_are_all_reported() {
    for (piece, what) in [
        (&(|n| format!("cache.k{n} = 1\n")) as &dyn Fn(usize) -> String, "unknown key `k0` in [cache]"),
        (&|n| format!("[table-{n}]\n"), "unknown table `table-0`"),
    ] {
        let text = numbered(piece);
        let mistakes = Scene::with_config(&text).mistakes();
        assert_holds(&mistakes[0], &["keyside.toml:1:", what]);
        // One more for the back-end that is missing.
        assert_eq!(mistakes.len(), text.lines().count() + 1);
    }
    let mistakes = Scene::with_config(&format!("[cache]\n{}", "ttl=1\n".repeat(MIB / 7))).mistakes();
    assert_eq!(
        mistakes[0],
        "keyside.toml:2:5: `ttl` in [cache] must be a duration such as \"500ms\", \"30s\", \"5m\" or \"1h\", not an integer"
    );
    assert_eq!(mistakes[1], "keyside.toml:3:1: duplicate key `ttl`; keep one of them");
}

#[test]
fn tables_without_end_are_each_looked_at_once() {
    let mistakes = Scene::with_config(&numbered(|n| format!("[backend.b{n}]\n"))).mistakes();
    assert_eq!(mistakes[0], "keyside.toml:1:10: [backend.b0] has no `type`");
    let mistakes = Scene::with_config(&numbered(|n| format!("[listener.l{n}]\npath = \"/l\"\n"))).mistakes();
    assert_holds(&mistakes[0], &["keyside.toml:4:8: [listener.l1] has the same `path` as `l0`"]);
}

#[test]
fn one_line_of_a_mebibyte_is_placed_to_the_character() {
    let items = "\"ü\",".repeat(MIB / 6);
    let mistakes = Scene::with_backend_and(&format!("agent.precedence = [{items}\"store\"]\n")).mistakes();
    assert_holds(&mistakes[0], &["keyside.toml:1:21: ", "names `ü`, which is no back-end"]);
    assert_holds(&mistakes[1], &["keyside.toml:1:25: "]);
    assert_eq!(mistakes.len(), MIB / 6);
}

#[test]
fn numbers_without_end_are_out_of_range_whatever_their_length() {
    let digits = "9".repeat(900_000);
    for (number, what) in [
        (digits.clone(), "an integer from 1 to"),
        (format!("-{digits}"), "an integer from 1 to"),
        (format!("0x{}", "f".repeat(900_000)), "an integer from 1 to"),
        (format!("{digits}.5"), "not a float"),
        ("1e999999999".to_owned(), "not a float"),
        ("inf".to_owned(), "not a float"),
    ] {
        let mistake = Scene::with_backend_and(&format!("[limits]\nentries = {number}\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:2:11: ", what]);
        assert!(mistake.len() < 300, "{}", mistake.len());
    }
    for share in ["1e308", "-0.0000001", "nan", "inf", &digits] {
        let mistake = Scene::with_backend_and(&format!("[cache]\njitter = {share}\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:2:10: ", "a number from 0 to 1"]);
    }
    for span in [format!("{digits}s"), "18446744073709551616s".to_owned(), "367d".to_owned()] {
        let mistake = Scene::with_backend_and(&format!("[cache]\nttl = \"{span}\"\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:2:7: ", "must be a duration"]);
        assert!(mistake.len() < 300, "{}", mistake.len());
    }
    let mistake = Scene::with_backend_and("[cache]\nmax_bytes = \"99999999999GiB\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:2:13: ", "must be a size"]);
}

#[test]
fn a_mebibyte_is_read_and_one_byte_more_is_not() {
    let filled = |bytes: usize| format!("{BACKEND}{}\n", "#".repeat(bytes - BACKEND.len() - 1));
    assert_eq!(Scene::with_config(&filled(MIB)).load().backends.len(), 1);
    let mistake = Scene::with_config(&filled(MIB + 1)).mistake();
    assert_eq!(mistake, "keyside.toml: this file is larger than 1048576 bytes");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let text = format!("{BACKEND}[cache]\n  tll = 1\n").replace('\n', "\r\n");
    for text in [text.clone(), format!("\u{feff}{text}")] {
        assert_holds(&Scene::with_config(&text).mistake(), &["keyside.toml:5:3: unknown key `tll`"]);
    }
    let mistake = Scene::with_config(&format!("\u{feff}tll = 1\n{BACKEND}")).mistake();
    assert_holds(&mistake, &["keyside.toml:1:1: "]);
    let mistakes = Scene::with_config(&format!("{BACKEND}[cache]\rttl = \"1m\"\n")).mistakes();
    assert_holds(&mistakes[0], &["keyside.toml:4:", "this is not TOML"]);
}

#[test]
fn bytes_that_are_no_text_are_refused_and_not_shown() {
    for (bytes, expected) in [
        (&b"\0"[..], "keyside.toml:1:1: this is not TOML"),
        (b"[cache]\nttl = \"1m\0\"\n", "keyside.toml:2:10: this is not TOML"),
        (b"[cache]\nttl = \"\xc3\x28\"\n", "keyside.toml: line 2 of this file is not UTF-8"),
        (b"\xff\xfe[\0c\0", "keyside.toml: line 1 of this file is not UTF-8"),
    ] {
        let scene = Scene::new();
        let path = scene.write("keyside.toml", bytes);
        assert!(scene.config(&path).mistakes()[0].starts_with(expected), "{expected}");
    }
    let mistake = Scene::with_backend_and("[agent]\nsocket_group = \"ro\\u0000ot\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:2:16: ", "`ro\\u{0}ot`"]);
    let mistake = Scene::with_backend_and("[grant.x]\nuser = \"ro\\u0000ot\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:2:8: ", "`ro\\u{0}ot`"]);
    let mistake = Scene::with_backend_and("[audit]\npath = \"/a\\u0000b\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:2:8: ", "an absolute path"]);
}

#[test]
fn a_device_a_socket_and_a_link_to_itself_are_refused_for_what_they_are() {
    let scene = Scene::new();
    for device in ["/dev/zero", "/dev/null"] {
        let link = scene.path("keyside.toml");
        symlink(device, &link).expect("made");
        let named = Scene::new().config(&link);
        assert!(named.mistake().ends_with(": this is a device, not a regular file"), "{}", named.mistake());
        std::fs::remove_file(&link).expect("removed");
    }
    let path = scene.path("socket");
    let _listening = UnixListener::bind(&path).expect("bound");
    assert_holds(&Scene::new().config(&path).mistake(), &["socket: this is a socket, not a regular file"]);
    let path = scene.path("loop");
    symlink(&path, &path).expect("made");
    assert_holds(&Scene::new().config(&path).mistake(), &["loop: this file cannot be read: ", "loop"]);
    // At a default path such a thing is no absence: somebody meant something.
    let path = scene.path(".config/keyside/keyside.toml");
    std::fs::create_dir_all(&path).expect("made");
    assert_eq!(scene.mistake(), ".config/keyside/keyside.toml: this is a directory, not a file");
}

#[test]
fn a_file_whose_length_is_not_known_beforehand_is_read_up_to_the_bound() {
    // Such files say that they have no bytes at all.
    let mistakes = Scene::new().config("/proc/self/maps".as_ref()).mistakes();
    assert_holds(&mistakes[0], &["/proc/self/maps:1:", "this is not TOML"]);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_taken_whole_up_to_a_moment_or_refused() {
    let scene = Scene::with_config(BACKEND);
    let path = scene.path("keyside.toml");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
            while !done.load(Ordering::Relaxed) && file.metadata().expect("metadata").len() < 3 * MIB as u64 {
                file.write_all(&b"# more and more\n".repeat(256)).expect("written");
            }
        });
        for _ in 0..50 {
            match scene.try_load() {
                Ok(settings) => assert_eq!(settings.backends.len(), 1),
                Err(error) => assert_holds(&error.to_string(), &["larger than 1048576 bytes"]),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_list_of_lists_or_a_date_is_called_by_its_name() {
    for (value, what) in [
        ("[[1]]", "must be"),
        ("2026-01-01", "not a date"),
        ("{ a = { b = 1 } }", "not a table"),
        ("1979-05-27T07:32:00Z", "not a date"),
    ] {
        let mistake = Scene::with_backend_and(&format!("[cache]\nttl = {value}\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:2:7: `ttl` in [cache] must be a duration", what]);
    }
}
