//! Reading and writing, in tables of every era and of either character set.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Executor as _;

use super::*;
use crate::backend::contract::{Case, Subject, run};
use crate::backend::{Scope, Update, WriteError};
use crate::layout::zenml::encode;

fn stored(pairs: &[(&str, &[u8])]) -> String {
    let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value))).collect();
    let stored = encode(&values, None).expect("text");
    String::from_utf8(stored.expose().to_vec()).expect("base64")
}

async fn tables(server: &MariaDb, database: &str) {
    server.sql(database, TABLES).await;
}

/// A row of ZenML 0.98.
async fn row(server: &MariaDb, database: &str, name: &str, owner: &str, extra: &str, value: &str) {
    let stored = stored(&[("k", value.as_bytes())]);
    let sql = format!(
        "INSERT INTO secret VALUES (md5(concat(hex('{name}'), '{owner}', '{extra}')), '2026-01-01', '2026-01-01', '{name}',
             {extra}, '{stored}', '{owner}')"
    );
    server.sql(database, &sql).await;
}

/// The contract's levers on a real server.
struct Levers {
    server: MariaDb,
    database: &'static str,
    backend: std::sync::Arc<dyn Backend>,
    runs: AtomicU32,
}

#[async_trait::async_trait]
impl Subject for Levers {
    fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn max_value(&self) -> usize {
        1000
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Bytes => Some("ZenML's values are text"),
            Case::Denied => Some("a table refuses no single row; what is another's does not exist"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let (stored, private) = (stored(pairs), scope == Scope::Private);
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let updated = format!("2026-01-01 00:{:02}:{:02}", run / 60, run % 60);
        let sql = format!(
            "INSERT INTO secret VALUES (md5(rand()), '{updated}', '{updated}', '{name}', {private}, 0, '{stored}', '{OWNER}')
             ON DUPLICATE KEY UPDATE updated = '{updated}', `values` = '{stored}'"
        );
        self.server.sql(self.database, &sql).await;
    }

    async fn remove(&self, name: &str, scope: Scope) {
        let private = scope == Scope::Private;
        let sql = format!("DELETE FROM secret WHERE name = '{name}' AND private = {private}");
        self.server.sql(self.database, &sql).await;
    }

    async fn deny(&self, _: &str) {
        unreachable!("not among the cases");
    }

    async fn break_down(&self) {
        self.server.kill();
    }

    async fn mend(&self) {
        if !self.server.is_up() {
            self.server.run().await;
        }
    }

    async fn stall(&self) -> Box<dyn std::any::Any + Send> {
        let mut connection = self.server.connection(self.database).await;
        connection.execute("LOCK TABLES secret WRITE").await.expect("locked");
        Box::new(connection)
    }

    async fn spoil_values(&self) {
        self.server.sql(self.database, "UPDATE secret SET `values` = 'spoilt'").await;
    }
}

#[tokio::test]
async fn zenml_sql_keeps_the_contract_on_real_mariadb() {
    let Some(mut server) = MariaDb::start(&[]).await else { return };
    for database in ["zenml", "wide"] {
        tables(&server, database).await;
        let backend = open(&server, database, &Options { max_value: 1000, ..Options::default() }).reader;
        let levers = Levers { server, database, backend, runs: 0.into() };
        let skipped: Vec<_> = run(&levers).await.into_iter().map(|(case, _)| case).collect();
        assert_eq!(skipped, [Case::Denied, Case::Bytes]);
        server = levers.server;
    }
}

#[tokio::test]
async fn names_scopes_and_users_are_told_apart_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    let bob = "0000000000000000000000000000000b";
    for database in ["zenml", "wide"] {
        tables(&server, database).await;
        row(&server, database, "upper", OWNER, "0, 0", "lower").await;
        row(&server, database, "mine", OWNER, "1, 0", "of default").await;
        row(&server, database, "mine", bob, "1, 0", "of bob").await;
        row(&server, database, "both", OWNER, "0, 0", "public").await;
        row(&server, database, "both", OWNER, "1, 0", "private").await;
        row(&server, database, "hidden", OWNER, "0, 1", "internal").await;
        let backend = open(&server, database, &Options::default()).reader;
        assert_eq!(k(&*backend, "upper", Scopes::PrivateFirst).await, "lower");
        // The data base itself takes all of these for `upper`, or cannot even write them.
        for name in ["UPPER", "Upper", "upper ", "\u{fc}pper", "\u{1f510}", "upper\u{1f510}", "upp_r"] {
            assert_eq!(error(&*backend, name).await, BackendError::NotFound, "{name}");
        }
        let names = ["UPPER", "upper", "hidden", "\u{1f510}", "mine"];
        let described = backend.describe(&names, Scopes::PrivateFirst).await.expect("describe");
        assert_eq!(described.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, false, true]);
        assert_eq!(k(&*backend, "both", Scopes::PrivateFirst).await, "private");
        assert_eq!(k(&*backend, "both", Scopes::PublicFirst).await, "public");
        assert_eq!(k(&*backend, "mine", Scopes::PrivateFirst).await, "of default");
        let of = |user| open(&server, database, &Options { user, ..Options::default() }).reader;
        assert_eq!(k(&*of(Some("bob")), "mine", Scopes::PrivateFirst).await, "of bob");
        assert_eq!(k(&*of(Some(bob)), "mine", Scopes::PrivateFirst).await, "of bob");
        assert_eq!(error(&*of(None), "mine").await, BackendError::NotFound);
        // A user is named as exactly as a secret.
        check_error(&error(&*of(Some("BOB")), "both").await, "identity", "no user `BOB`", "set `user`");
        check_error(&error(&*of(Some("\u{1f510}")), "both").await, "identity", "no user", "set `user`");
    }
}

#[tokio::test]
async fn what_is_written_is_read_again_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    for (database, key) in [("zenml", None), ("wide", Some("ein Schlüssel"))] {
        tables(&server, database).await;
        let opened = open(&server, database, &Options { key, ..Options::default() });
        let (backend, writer) = (opened.reader, opened.writer.expect("writable"));
        let awkward = values(&[("k", "v"), ("odd", "\u{1f510} '\"\\ %s\n"), ("empty", "")]);
        let created = writer.create("a", Scope::Public, awkward).await.expect("created");
        let read =
            backend.fetch("a", Scopes::PublicOnly).await.map(|secret| (secret.description, shown(&secret.values)));
        let (description, pairs) = read.expect("it is there");
        assert_eq!(pairs.len(), 3);
        assert_eq!(
            (description.id, description.version.trim_end_matches('~')),
            (created.id.clone(), &*created.version)
        );
        let listed = backend.list().await.expect("list");
        assert_eq!(listed.iter().map(|one| &one.version).collect::<Vec<_>>(), [&created.version]);

        // Two changes within one second have two versions.
        let change =
            |value| Update { values: vec![("k".into(), Some(SecretValue::copy_of(value)))], ..Update::default() };
        let second = writer.update("a", None, change(b"2")).await.expect("changed");
        let third = writer.update("a", None, change(b"3")).await.expect("changed");
        assert!(created.version != second.version && second.version != third.version);
        assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "3");
        let late = Update { if_version: Some(second.version), ..change(b"4") };
        assert_eq!(writer.update("a", None, late).await.expect_err("late"), WriteError::VersionMismatch);

        // ZenML's own rule there: upper and lower case are one name.
        for name in ["a", "A"] {
            let clash = writer.create(name, Scope::Public, values(&[])).await.expect_err("taken");
            assert!(matches!(clash, WriteError::Exists(_)), "{clash:?}");
        }
        writer.create("a", Scope::Private, values(&[("k", "private")])).await.expect("another scope");
        let unclear = writer.delete("a", None, None).await.expect_err("which?");
        assert!(matches!(unclear, WriteError::Ambiguous { .. }), "{unclear:?}");
        assert_eq!(writer.delete("A", None, None).await, Err(BackendError::NotFound.into()));
        let rename = Update { rename: Some("b".into()), ..Update::default() };
        let renamed = writer.update("a", Some(Scope::Private), rename).await.expect("renamed");
        assert_eq!((renamed.name.as_str(), renamed.scope), ("b", Scope::Private));
        let scoped = Update { scope: Some(Scope::Public), ..Update::default() };
        writer.update("b", None, scoped).await.expect("made public");
        assert_eq!(k(&*backend, "b", Scopes::PublicOnly).await, "private");
        writer.delete("b", None, None).await.expect("deleted");
        assert_eq!(error(&*backend, "b").await, BackendError::NotFound);

        let unicode = writer.create("\u{1f510}", Scope::Public, values(&[("k", "v")])).await;
        match database {
            // What the table cannot hold is refused, not written as something else.
            "zenml" => assert!(matches!(unicode, Err(WriteError::Invalid { .. })), "{unicode:?}"),
            _ => assert_eq!(k(&*backend, &unicode.expect("created").name, Scopes::PublicOnly).await, "v"),
        }
        let column = server.ask(database, "SELECT `values` FROM secret WHERE name = 'a'").await;
        assert_eq!(column.starts_with("eyJ"), key.is_none(), "{column}");
        // A column of ZenML before 0.94 holds 65535 bytes.
        server.sql(database, "ALTER TABLE secret MODIFY `values` text").await;
        let large = values(&[("k", &"x".repeat(60_000))]);
        let refused = writer.create("large", Scope::Public, large).await.expect_err("too large");
        assert!(matches!(refused, WriteError::Invalid { .. }), "{refused:?}");
        assert_eq!(error(&*backend, "large").await, BackendError::NotFound);
        let nobody = server.ask(database, "SELECT count(*) FROM information_schema.innodb_trx").await;
        assert_eq!(nobody, "0", "no transaction is left open");
    }
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    tables(&server, "zenml").await;
    row(&server, "zenml", "shared", OWNER, "0, 0", "v").await;
    let writer = open(&server, "zenml", &Options::default()).writer.expect("writable");
    let change = |number: usize| {
        let writer = std::sync::Arc::clone(&writer);
        async move {
            loop {
                let values = vec![(format!("key-{number}"), Some(SecretValue::copy_of(b"v")))];
                match writer.update("shared", None, Update { values, ..Update::default() }).await {
                    Ok(_) => return,
                    // The server chose this one to give way.
                    Err(WriteError::Backend(BackendError::Transient { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    futures_util::future::join_all((0..8).map(change)).await;
    let backend = open(&server, "zenml", &Options::default()).reader;
    assert_eq!(pairs(&*backend, "shared", Scopes::PublicOnly).await.len(), 9);
    let create = |_| writer.create("new", Scope::Public, values(&[]));
    let created = futures_util::future::join_all((0..4).map(create)).await;
    assert_eq!(created.iter().filter(|result| result.is_ok()).count(), 1, "{created:?}");
}

#[tokio::test]
async fn tables_before_0_80_are_read_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    for (database, null, fraction) in [("zenml", "NOT NULL", ""), ("wide", "", "(6)")] {
        let (value, id) = (|text: &str| stored(&[("k", text.as_bytes())]), |number: u32| format!("{number:032x}"));
        let mut sql = format!(
            "CREATE TABLE user (id char(32) NOT NULL PRIMARY KEY, name varchar(255) NOT NULL);
             CREATE TABLE workspace (id char(32) NOT NULL PRIMARY KEY, name varchar(255) NOT NULL);
             CREATE TABLE secret (`values` text {null}, workspace_id char(32) NOT NULL, user_id char(32) NOT NULL,
                 id char(32) NOT NULL PRIMARY KEY, created datetime{fraction} NOT NULL, updated datetime{fraction} NOT NULL,
                 name varchar(255) NOT NULL, scope varchar(255) NOT NULL);
             INSERT INTO user VALUES ('{0}', 'default'), ('{1}', 'bob');
             INSERT INTO workspace VALUES ('{0}', 'red'), ('{1}', 'blue');",
            id(1),
            id(2)
        );
        for (number, name, workspace, scope, owner, created, text) in [
            (1, "a", 1, "workspace", 1, "2023-01-01", "red"),
            (2, "a", 2, "workspace", 1, "2023-01-01", "blue"),
            (3, "a", 1, "user", 2, "2023-01-01", "bob in red"),
            (9, "twice", 1, "workspace", 1, "2023-01-01", "older"),
            (4, "twice", 1, "workspace", 2, "2023-01-02", "younger"),
            (5, "A", 1, "workspace", 1, "2022-01-01", "capital"),
        ] {
            let (workspace, owner, number, value) = (id(workspace), id(owner), id(number), value(text));
            sql.push_str(&format!(
                "INSERT INTO secret VALUES ('{value}', '{workspace}', '{owner}', '{number}', '{created}', '{created}',
                     '{name}', '{scope}');"
            ));
        }
        server.sql(database, &sql).await;
        let open = |workspace, user| super::open(&server, database, &Options { workspace, user, ..Options::default() });
        assert_eq!(k(&*open(Some("red"), None).reader, "a", Scopes::PrivateFirst).await, "red");
        assert_eq!(k(&*open(Some("blue"), Some("bob")).reader, "a", Scopes::PrivateFirst).await, "blue");
        let bob = open(Some("red"), Some("bob"));
        assert_eq!(k(&*bob.reader, "a", Scopes::PrivateFirst).await, "bob in red");
        assert_eq!(k(&*bob.reader, "a", Scopes::PublicFirst).await, "red");
        assert_eq!(k(&*bob.reader, "A", Scopes::PublicFirst).await, "capital");
        assert_eq!(k(&*bob.reader, "twice", Scopes::PrivateFirst).await, "older");
        assert_eq!(bob.reader.list().await.expect("list").len(), 4);
        let undecided = error(&*open(None, None).reader, "a").await;
        check_error(&undecided, "identity", "none is called `default`: `blue`, `red`", "set `workspace`");
        let refused =
            bob.writer.expect("writable").create("b", Scope::Public, values(&[])).await.expect_err("read-only");
        assert!(refused.to_string().contains("before 0.80"), "{refused}");
    }
}

#[tokio::test]
async fn secrets_managers_are_found_with_their_flavors_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    tables(&server, "zenml").await;
    let managers = async || {
        let settings = settings_of(SqlDatabase::Mysql(Box::new(server.settings("zenml"))), &Options::default());
        let BackendKind::ZenmlSql(sql) = &settings.kind else { unreachable!("as made above") };
        super::super::super::secrets_managers(&settings, sql).await.expect("an answer")
    };
    assert_eq!(managers().await, [], "no such tables");
    server
        .sql(
            "zenml",
            // {"secrets_file": "/srv/s.yaml"}
            "CREATE TABLE stack_component (id char(32), name varchar(255), type varchar(255), flavor varchar(255),
                 configuration longblob);
             CREATE TABLE stack_composition (stack_id char(32), component_id char(32));
             INSERT INTO stack_component VALUES
                 ('00000000000000000000000000000001', 'sm', 'secrets_manager', 'local',
                  'eyJzZWNyZXRzX2ZpbGUiOiAiL3Nydi9zLnlhbWwifQ=='),
                 ('00000000000000000000000000000002', 'other', 'secrets_manager', 'aws', 'e30=');
             INSERT INTO stack_composition VALUES
                 ('00000000000000000000000000000009', '00000000000000000000000000000001');",
        )
        .await;
    let found = managers().await;
    let flavors: Vec<_> = found.iter().map(|manager| manager.flavor.as_str()).collect();
    assert_eq!(flavors, ["local", "aws"]);
    assert_eq!((found[0].name.as_str(), found[0].secrets_file.as_path()), ("sm", Path::new("/srv/s.yaml")));
    assert_eq!(found[0].stacks, ["00000000-0000-0000-0000-000000000009"]);
}
