//! Layers, restrictions and mistakes of the wrapper's own tables.

use std::time::Duration;

use super::*;

fn read(text: &str, whose: Whose, wanted: Option<&str>, environment: &[&CStr]) -> Result<Configured, Vec<Mistake>> {
    let mut layers = Layers { wanted, ..Layers::default() };
    layers.read_text(Path::new("k.toml"), text, whose);
    layers.read_environment(environment);
    layers.finish()
}

fn mistakes(text: &str, whose: Whose) -> Vec<String> {
    read(text, whose, None, &[]).expect_err("mistakes").iter().map(ToString::to_string).collect()
}

#[test]
fn a_profile_lies_over_exec_and_other_tables_are_passed_over() {
    let text = "[agent]\nsocket = '/s'\nnonsense = 1\n[cache]\nttl = 12\n[exec]\nwait = '5s'\nsecret = ['a']\nenv = {A = '1', B = '2'}\n\
                [profile.ci]\nsecret = ['b']\nenv = {B = '3'}\n[profile.other]\nwait = '1s'\n";
    let configured = read(text, Whose::Operator, Some("ci"), &[]).expect("read");
    assert_eq!(configured.socket, Some(PathBuf::from("/s")));
    assert_eq!(configured.exec.wait.expect("a wait").0, Duration::from_secs(5));
    assert_eq!(configured.exec.secret, Some(vec!["b".to_owned()]));
    let env: Vec<_> = configured.exec.env.expect("a table").into_iter().collect();
    assert_eq!(env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "3".to_owned())]);
}

#[test]
fn every_mistake_is_told_with_its_place_and_no_value() {
    let found =
        mistakes("[exec]\nwaitt = '5s'\nmask = 'hunter2'\n[profile.x]\nunavailable_exit = 0\n", Whose::Operator);
    assert_eq!(
        found,
        [
            "k.toml:2:1: exec: unknown key `waitt`",
            "k.toml:3:8: exec: `mask` is wrong",
            "k.toml:5:20: profile.x: `unavailable_exit` is wrong"
        ]
    );
    assert!(mistakes("[exec]\nmask = hunter2\n", Whose::Operator)[0].starts_with("k.toml:2:8: not TOML"));
    assert!(!mistakes("[exec]\nmask = hunter2\n", Whose::Operator)[0].contains("hunter2"));
    assert!(mistakes("[exec]\nwait='1s'\nwait='2s'\n", Whose::Operator)[0].starts_with("k.toml:3:1"));
}

#[test]
fn a_file_of_the_working_directory_may_not_steer() {
    for (text, named) in [
        ("[agent]\nsocket='/x'\n", "[agent]"),
        ("[backend.x]\ntype='plugin'\n", "[backend]"),
        ("[listener.x]\n", "[listener]"),
        ("[grant.x]\n", "[grant]"),
        ("[cache]\n", "[cache]"),
        ("[no-such-table]\n", "[no-such-table]"),
        ("top = 1\n", "[top]"),
        ("[exec]\nagent='embedded'\n", "`agent`"),
        ("[exec]\nagent_uid=1\n", "`agent_uid`"),
        ("[exec]\ninsecure_files=false\n", "`insecure_files`"),
        ("[exec]\nfiles_dir='x'\n", "`files_dir`"),
        ("[exec]\nreport='x'\n", "`report`"),
        ("[exec]\nuser='0'\n", "`user`"),
        ("[profile.p]\nchdir='x'\n", "`chdir`"),
        ("[exec]\nenv={LD_PRELOAD='x'}\n", "LD_PRELOAD"),
        ("[exec]\nenv={https_Proxy='x'}\n", "https_Proxy"),
        ("[profile.p]\nfile_env={GIT_SSH='x'}\n", "GIT_SSH"),
        ("[exec]\ntemplate={a='/etc/passwd'}\n", "absolute"),
        ("[exec]\ntemplate={a='x/../../y'}\n", "`..`"),
        ("[exec]\nenv_file=['/etc/environment']\n", "absolute"),
        ("[exec]\nenv_file=['..']\n", "`..`"),
    ] {
        let found = read(text, Whose::Directory, None, &[]).expect_err("refused");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains(named) && found[0].hint.contains("--config"), "{found:?}");
        assert!(found[0].place.starts_with("k.toml:1:") || found[0].place.starts_with("k.toml:2:"), "{found:?}");
        if named != "[agent]" {
            assert!(read(text, Whose::Operator, None, &[]).is_ok(), "{text}");
        }
    }
    for text in [
        "[check]\nx=1\n[schema.a]\n[exec]\nenv={A='x'}\ntemplate={a='t/x'}\nenv_file=['a..b/.env']\n",
        "[exec]\nsecret=['a']\nfiles='dir'\nfile={a='{{b.c}}'}\nwait='1s'\nmask=true\n[profile.x]\npristine=true\n",
    ] {
        assert!(read(text, Whose::Directory, None, &[]).is_ok(), "{text}");
    }
}

#[test]
fn a_key_that_stands_twice_is_a_mistake_in_our_tables_and_passed_over_elsewhere() {
    for (text, place) in [
        ("[exec]\nwait='1s'\nwait='2s'\n", "k.toml:3:1"),
        ("[exec]\nenv.A='1'\nenv.A='2'\n", "k.toml:3:5"),
        ("[exec]\nenv={A='1',A='2'}\n", "k.toml:2:12"),
        ("[exec]\nwait='1s'\n[cache]\n[exec]\n", "k.toml:4:2"),
        ("[profile.x]\n[cache]\nttl=1\n[profile.x]\n", "k.toml:4:10"),
        ("[agent]\nsocket='/a'\nsocket='/b'\n[exec]\n", "k.toml:3:1"),
    ] {
        let found = mistakes(text, Whose::Operator);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("{place}: duplicate key `")), "{found:?}");
    }
    // It hides no other mistake.
    let found = mistakes("[exec]\nwait='1s'\nwait='2s'\nwaitt='3s'\n", Whose::Operator);
    assert_eq!(found[1], "k.toml:4:1: exec: unknown key `waitt`");
    for text in [
        "[cache]\nttl=1\nttl=2\n[exec]\nwait='1s'\n",
        "[cache]\n[exec]\nwait='1s'\n[cache]\n",
        "[backend.x]\n[exec]\nwait='1s'\n[backend.x]\n",
        "[exec]\nwait='1s'\n[[ other ]]\na=1\na=2\n",
    ] {
        let configured = read(text, Whose::Operator, None, &[]).unwrap_or_else(|found| panic!("{text}: {found:?}"));
        assert_eq!(configured.exec.wait.expect("a wait").0, Duration::from_secs(1));
    }
}

#[test]
fn a_hostile_file_is_refused_and_each_of_its_mistakes_told() {
    let unknown: String = (0..60_000).map(|number| format!("key{number} = 1\n")).collect();
    assert_eq!(mistakes(&format!("[exec]\n{unknown}"), Whose::Directory).len(), 60_000);
    let tables: String = (0..60_000).map(|number| format!("[t{number}]\n")).collect();
    assert_eq!(mistakes(&tables, Whose::Directory).len(), 60_000);
    let sources = "'/',".repeat(200_000);
    assert_eq!(mistakes(&format!("[exec]\nenv_file=[{sources}]\n"), Whose::Directory).len(), 200_000);
    for text in [
        format!("exec = {}", "[".repeat(1 << 19)),
        format!("exec = {}", "{a=".repeat(1 << 18)),
        format!("[{}x]\n", "exec.".repeat(200_000)),
        format!("[exec]\n{}x = 1\n", "env.".repeat(200_000)),
    ] {
        assert!(mistakes(&text, Whose::Directory)[0].contains("not TOML"));
    }
    for text in [
        format!("[exec]\nunavailable_exit = {}\n", "9".repeat(500_000)),
        format!("[exec]\nagent_uid = 0x{}\n", "f".repeat(500_000)),
        format!("[exec]\nwait = '{}s'\n", "9".repeat(500_000)),
        "[exec]\nagent_uid = -1\n".to_owned(),
        "[exec]\nunavailable_exit = 1.5\n".to_owned(),
    ] {
        let found = mistakes(&text, Whose::Operator);
        assert!(found.len() == 1 && found[0].len() < 200 && found[0].contains("is wrong"), "{}", found[0].len());
    }
}

#[test]
fn a_byte_order_mark_moves_no_column() {
    assert!(mistakes("\u{feff}[exec]\r\nwaitt=1\r\n", Whose::Operator)[0].starts_with("k.toml:2:1: "));
    assert!(mistakes("\u{feff}[exec]x\n", Whose::Operator)[0].starts_with("k.toml:1:7: "));
}

#[test]
fn variables_with_a_double_underscore_lie_over_the_file() {
    let text = "[exec]\nwait='5s'\nenv={Pg='1'}\n[profile.my-ci]\npristine=false\n";
    let environment = [
        c"KEYSIDE_EXEC__WAIT=7s",
        c"KEYSIDE_EXEC__ENV__PG=2",
        c"KEYSIDE_EXEC__ENV__NEW__X={{a.b}}",
        c"KEYSIDE_EXEC__SECRET=['s']",
        c"KEYSIDE_PROFILE__MY_CI__PRISTINE=true",
        c"KEYSIDE_AGENT__SOCKET=/v",
        c"KEYSIDE_WAIT=nonsense",
        c"KEYSIDE_CACHE__TTL=x",
    ];
    let configured = read(text, Whose::Operator, Some("my-ci"), &environment).expect("read");
    let exec = configured.exec;
    assert_eq!((exec.wait.expect("a wait").0, exec.pristine), (Duration::from_secs(7), Some(true)));
    assert_eq!(exec.secret, Some(vec!["s".to_owned()]));
    let env: Vec<_> = exec.env.expect("a table").into_iter().collect();
    assert_eq!(env, [("NEW__X".to_owned(), "{{a.b}}".to_owned()), ("Pg".to_owned(), "2".to_owned())]);
    assert_eq!(configured.socket, Some(PathBuf::from("/v")));
    let found = read("", Whose::Operator, None, &[c"KEYSIDE_EXEC__WAITT=1", c"KEYSIDE_EXEC__MASK=hunter2"]);
    let found: Vec<_> = found.expect_err("mistakes").iter().map(ToString::to_string).collect();
    assert_eq!(found, ["KEYSIDE_EXEC__WAITT: unknown key `waitt`", "KEYSIDE_EXEC__MASK: mask is not a TOML value"]);
}

#[test]
fn a_profile_that_nobody_wrote_is_a_mistake_that_lists_the_others() {
    let found = read("[profile.a]\n", Whose::Operator, Some("b"), &[]).expect_err("no such profile");
    assert!(found[0].what.contains('b') && found[0].hint.contains('a'));
}

#[test]
fn every_example_is_right_for_the_wrapper_and_those_for_clients_in_a_working_directory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let whose = if text.starts_with("# Client: ") { Whose::Directory } else { Whose::Operator };
        let read = |wanted| {
            read(&text, whose, wanted, &[]).unwrap_or_else(|found| panic!("{}: {found:?}", path.display())).exec
        };
        let exec = read(None);
        for profile in text.lines().filter_map(|line| line.strip_prefix("[profile.")?.split_once(']')) {
            assert_ne!(read(Some(profile.0)), exec, "{}", path.display());
        }
    }
}
