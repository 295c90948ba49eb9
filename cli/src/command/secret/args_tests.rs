use super::*;

fn asked(words: &[&str]) -> Result<Asked, Failure> {
    parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
}

fn run(words: &[&str]) -> SecretArgs {
    match asked(words) {
        Ok(Asked::Run(_, args)) => *args,
        Ok(Asked::Help(_)) => panic!("help for {words:?}"),
        Err(failure) => panic!("{words:?}: {}", failure.what),
    }
}

fn refusal(words: &[&str]) -> Failure {
    let Err(failure) = asked(words) else { panic!("accepted: {words:?}") };
    assert_eq!(failure.exit.code(), 2, "{words:?}");
    failure
}

/// Shows where a value comes from, so that a test can compare it.
fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Inline(value) => format!("={}", String::from_utf8_lossy(value.expose())),
        Origin::File(path) => format!("file {}", path.display()),
        Origin::Stdin => "stdin".into(),
    }
}

fn check_pairs(words: &[&str], expected: &[(&str, &str)]) {
    let args = run(words);
    let pairs: Vec<_> = args.pairs.iter().map(|(key, origin)| (key.clone(), shown(origin))).collect();
    let expected: Vec<_> = expected.iter().map(|(key, origin)| ((*key).to_owned(), (*origin).to_owned())).collect();
    assert_eq!(pairs, expected, "{words:?}");
}

#[test]
fn every_other_option_with_an_equals_sign_is_a_pair() {
    check_pairs(
        &["create", "db", "--user=admin", "--a.b-c=1", "--ключ=x"],
        &[("user", "=admin"), ("a.b-c", "=1"), ("ключ", "=x")],
    );
    check_pairs(&["create", "--user=admin", "db", "--dsn=a=b=c"], &[("user", "=admin"), ("dsn", "=a=b=c")]);
    check_pairs(&["create", "db", "--empty="], &[("empty", "=")]);
    check_pairs(
        &["create", "db", "--socket=/x", "--show=1", "--filename=f"],
        &[("socket", "=/x"), ("show", "=1"), ("filename", "=f")],
    );
}

#[test]
fn an_at_sign_names_a_file_or_standard_input_and_two_are_one() {
    check_pairs(
        &["create", "db", "--a=@cert.pem", "--b=@-", "--c=@@x", "--d=x@y", "--e=@@", "--f=@@-"],
        &[("a", "file cert.pem"), ("b", "stdin"), ("c", "=@x"), ("d", "=x@y"), ("e", "=@"), ("f", "=@-")],
    );
}

#[test]
fn the_names_of_options_win_before_and_after_the_name() {
    let args = run(&["create", "--scope=user", "db", "--backend=store", "--k=v", "-p", "--format=json"]);
    assert_eq!(
        (args.name.as_str(), args.scope.as_deref(), args.backend.as_deref()),
        ("db", Some("user"), Some("store"))
    );
    assert_eq!((args.private, args.format), (Some(true), TableFormat::Json));
    assert_eq!(args.pairs.len(), 1);
    for reserved in ["--new-name=x", "--remove-keys=x", "--yes"] {
        let failure = refusal(&["create", "db", reserved]);
        assert!(failure.hint.expect("a hint").contains("-v"), "{reserved}");
    }
}

#[test]
fn short_options_take_their_value_attached_or_behind() {
    for words in [&["update", "db", "-r", "a", "-r=b", "-pfalse"][..], &["update", "-ra", "-rb", "-p", "false", "db"]] {
        let args = run(words);
        assert_eq!((args.remove_keys, args.private), (vec!["a".to_owned(), "b".to_owned()], Some(false)), "{words:?}");
    }
    let args = run(&["delete", "db", "-yp", "true"]);
    assert_eq!((args.yes, args.private), (true, Some(true)));
    assert_eq!(shown(&run(&["create", "db", "-v", "{\"a\":\"b\"}"]).values.expect("values")), "={\"a\":\"b\"}");
}

#[test]
fn private_is_a_flag_on_create_and_a_choice_elsewhere() {
    let args = run(&["create", "-p", "db", "--k=v"]);
    assert_eq!((args.private, args.name.as_str()), (Some(true), "db"));
    assert_eq!(run(&["get", "-p", "false", "db"]).private, Some(false));
    refusal(&["get", "-p", "db"]);
    refusal(&["update", "db", "-p"]);
}

#[test]
fn a_pair_without_an_equals_sign_is_refused_and_its_value_not_quoted() {
    let failure = refusal(&["create", "db", "--password", "canary"]);
    assert!(failure.what.contains("needs `=`") && !failure.what.contains("canary"), "{}", failure.what);
    let failure = refusal(&["create", "db", "canary"]);
    assert!(!failure.what.contains("canary") && !failure.hint.expect("a hint").contains("canary"));
}

#[test]
fn what_zenml_refuses_is_refused() {
    refusal(&["create", "db", "--name=x"]);
    refusal(&["create", "name", "--k=v"]);
    refusal(&["create", "db"]);
    refusal(&["create", "--k=v"]);
    refusal(&["rename", "db"]);
    refusal(&["update", "db"]);
}

#[test]
fn what_can_only_be_a_mistake_is_refused() {
    for words in [
        &[][..],
        &["frob"],
        &["create", "db", "--=x"],
        &["create", "db", "--k=1", "--k=2"],
        &["create", "db", "-z"],
        &["create", "db", "--scope=team", "--k=v"],
        &["create", "db", "-p", "--scope=workspace", "--k=v"],
        &["create", "..", "--k=v"],
        &["update", "db", "--k=v", "-r", "k"],
        &["list", "db"],
        &["list", "--format=xml"],
        &["get", "db", "--k=v"],
        &["delete", "a", "b"],
        &["rename", "db", "-n", ""],
    ] {
        refusal(words);
    }
}

#[test]
fn words_of_later_versions_say_so() {
    for words in [&["backup"][..], &["restore"], &["create", "db", "--schema=aws", "--k=v"]] {
        assert!(refusal(words).what.ends_with("is not in this version yet"));
    }
}

#[test]
fn help_is_an_answer_everywhere() {
    assert!(matches!(asked(&["--help"]), Ok(Asked::Help(None))));
    assert!(matches!(asked(&["create", "--help"]), Ok(Asked::Help(Some(Verb::Create)))));
    assert!(matches!(asked(&["help", "get"]), Ok(Asked::Help(Some(Verb::Get)))));
}

#[test]
fn behind_two_dashes_everything_is_a_name() {
    assert_eq!(run(&["get", "--", "--help"]).name, "--help");
}
