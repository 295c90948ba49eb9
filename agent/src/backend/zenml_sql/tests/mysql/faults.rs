//! What goes wrong with a server: the class, the words, and what is there again afterwards.

use std::time::Instant;

use sqlx::Executor as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::server::{PASSWORD, secret};
use super::*;
use crate::backend::Scope;

/// A reader of a server that is not MariaDB.
fn reader_at(port: u16) -> std::sync::Arc<dyn Backend> {
    let mysql = keyside_config::settings::MysqlSettings {
        host: "127.0.0.1".into(),
        port,
        user: "zenml".into(),
        password: Some(secret(PASSWORD)),
        database: "zenml".into(),
        ssl_ca: None,
        ssl_cert: None,
        ssl_key: None,
        verify: true,
        iam: None,
    };
    let options = Options { timeout: Duration::from_secs(1), ..Options::default() };
    open_with(mysql, no_network(), &options).expect("settings that can work").reader
}

#[tokio::test]
async fn a_server_that_is_no_server_is_transient_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    check_error(&error(&*reader_at(port), "a").await, "transient", "connection refused", "`url`");

    // Accepts and says nothing; says something else; hangs in the middle; closes at once.
    for (greeting, words) in [
        (None, "did not answer in time"),
        (Some(&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>"[..]), "cannot be"),
        (Some(&b"\x4a\x00\x00\x00\x0a8.4"[..]), "did not answer in time"),
        (Some(&b""[..]), "cannot be reached"),
        // ERR 1040 in place of a greeting.
        (Some(&b"\x17\x00\x00\x00\xff\x10\x04Too many connections"[..]), "no connection left"),
        // ERR 1130.
        (Some(&b"\x0d\x00\x00\x00\xff\x6a\x04not allowed"[..]), "no user in from this machine"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let fake = tokio::spawn(async move {
            let mut held = Vec::new();
            let mut calls = 0;
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return calls };
                calls += 1;
                match greeting {
                    None => held.push(stream),
                    Some(greeting) => {
                        let _ = stream.write_all(greeting).await;
                        if greeting.starts_with(b"\x4a") {
                            held.push(stream);
                        } else {
                            let _ = stream.shutdown().await;
                            let _ = stream.read(&mut [0; 64]).await;
                        }
                    }
                }
            }
        });
        let began = Instant::now();
        let found = error(&*reader_at(port), "a").await;
        assert!(found.to_string().contains(words), "{greeting:?}: {found}");
        let is_identity = words.contains("no user in");
        assert_eq!(matches!(found, BackendError::Identity { .. }), is_identity, "{found}");
        assert_eq!(found.is_transient(), !is_identity, "{found}");
        assert!(began.elapsed() < Duration::from_secs(20), "it has a deadline of its own");
        fake.abort();
    }
}

/// One packet: its length in three bytes, its number, its body.
pub(super) fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("short");
    [&[length, 0, 0, number], body].concat()
}

/// What every server can do: the protocol of 4.1, plug-ins, and a data base in the login.
pub(super) const PLAIN: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000 | 0x8;

/// The first packet of MySQL 8.4 that can do this and no more.
pub(super) fn greeting(capabilities: u32, plugin: &str) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let start = [&b"\x0a8.4.0\0\x01\0\0\0saltsalt\0"[..], &[a, b, 45, 2, 0, c, d, 21], &[0; 10]].concat();
    [&start[..], b"saltsaltsalt\0", plugin.as_bytes(), b"\0"].concat()
}

#[tokio::test]
async fn a_password_that_is_taken_over_tls_only_is_said_to_be() {
    // MySQL 8 without TLS: the plug-in `caching_sha2_password`, which then wants the password encrypted by RSA.
    let greeting = greeting(PLAIN, "caching_sha2_password");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let fake = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a call");
        stream.write_all(&packet(0, &greeting)).await.expect("sent");
        let mut reply = [0; 512];
        assert!(stream.read(&mut reply).await.expect("a login") > 36);
        stream.write_all(&packet(2, &[1, 4])).await.expect("sent");
        assert_eq!(stream.read(&mut reply).await.expect("a question"), 5, "for the public key; no password");
        stream.write_all(&packet(4, b"\x01a key")).await.expect("sent");
    });
    let refused = error(&*reader_at(port), "a").await;
    check_error(&refused, "identity", "over TLS only (plug-in `caching_sha2_password`", "switch TLS on");
    assert!(!refused.to_string().contains(PASSWORD));
    fake.await.expect("no panic");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let mysql = keyside_config::settings::MysqlSettings {
        host: "db.example.com".into(),
        port: 3306,
        user: "zenml".into(),
        password: None,
        database: "zenml".into(),
        ssl_ca: None,
        ssl_cert: None,
        ssl_key: None,
        verify: true,
        iam: None,
    };
    let proxied = NetworkSettings { proxy: Some(Zeroizing::new("http://p:1".into())), ..no_network() };
    let refused = open_with(mysql, proxied, &Options::default()).err().expect("refused");
    check_error(&refused, "identity", "cannot be reached through `proxy`", "remove `proxy`");
}

#[tokio::test]
async fn a_killed_server_is_transient_and_back_when_it_is_back_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    server.sql("zenml", TABLES).await;
    let opened = open(&server, "zenml", &Options::default());
    let (backend, writer) = (opened.reader, opened.writer.expect("writable"));
    writer.create("a", Scope::Public, values(&[("k", "v")])).await.expect("created");
    assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "v");
    // Some connections are kept.
    backend.list().await.expect("list");
    server.kill();
    for _ in 0..3 {
        assert!(error(&*backend, "a").await.is_transient());
    }
    assert!(backend.list().await.expect_err("down").is_transient());
    let down = writer.create("b", Scope::Public, values(&[])).await.expect_err("down");
    let crate::backend::WriteError::Backend(down) = down else { panic!("{down}") };
    check_error(&down, "transient", "cannot be reached: connection refused", "is it up");
    server.run().await;
    assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "v");
    // The server ends what is idle: noticed, and no failure.
    backend.list().await.expect("list");
    let sql = "SELECT group_concat(concat('KILL ', id) SEPARATOR ';') FROM information_schema.processlist WHERE user = 'zenml'";
    let kills = server.ask("", sql).await;
    assert!(kills.starts_with("KILL"), "a connection is kept: {kills}");
    server.sql("", &kills).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(backend.list().await.expect("a new connection").len(), 1);
    backend.close().await;
    assert!(error(&*backend, "a").await.is_transient());
}

#[tokio::test]
async fn a_missing_login_right_data_base_or_table_is_named_on_real_mariadb() {
    let Some(server) = MariaDb::start(&[]).await else { return };
    server.sql("zenml", TABLES).await;
    server
        .sql(
            "",
            "CREATE USER nobody@'127.0.0.1' IDENTIFIED BY 'pw'; CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'pw';
             GRANT SELECT ON zenml.secret TO reader@'127.0.0.1'; GRANT SELECT ON zenml.user TO reader@'127.0.0.1';
             CREATE USER part@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT SELECT (id, name) ON zenml.secret TO part@'127.0.0.1';
             GRANT SELECT ON zenml.user TO part@'127.0.0.1';
             CREATE USER locked@'127.0.0.1' IDENTIFIED BY 'pw' ACCOUNT LOCK",
        )
        .await;
    let opened = |user: &str, password: &str, database: &str| {
        let mut mysql = server.settings(database);
        (mysql.user, mysql.password) = (user.into(), Some(secret(password)));
        open_with(mysql, no_network(), &Options::default()).expect("settings that can work")
    };
    let check = async |user: &str, password: &str, database: &str, words: &str, hint: &str| {
        let found = error(&*opened(user, password, database).reader, "a").await;
        check_error(&found, "identity", words, hint);
        assert!(!found.to_string().contains("canary"), "{found}");
    };
    check("zenml", "canary", "zenml", "refuses the login", "`password_env`").await;
    check("canaries", "canary", "zenml", "refuses the login", "`url`").await;
    check("locked", "pw", "zenml", "", "").await;
    check("nobody", "pw", "zenml", "no right on the data base", "SELECT").await;
    check("zenml", PASSWORD, "absent", "no such data base", "`url`").await;
    check("zenml", PASSWORD, "wide", "holds no table `secret`", "may select").await;
    check("part", "pw", "zenml", "", "").await;
    let reader = opened("reader", "pw", "zenml");
    assert_eq!(reader.reader.list().await.expect("a right to read"), []);
    let refused = reader.writer.expect("writable").create("a", Scope::Public, values(&[])).await.expect_err("no right");
    let crate::backend::WriteError::Backend(refused) = refused else { panic!("{refused}") };
    check_error(&refused, "identity", "lacks a right", "INSERT");

    server.sql("", "SET GLOBAL max_connections = 10").await;
    let mut held = Vec::new();
    for _ in 0..12 {
        let options = sqlx::mysql::MySqlConnectOptions::new().host("127.0.0.1").port(server.port).username("zenml");
        match options.password(PASSWORD).connect().await {
            Ok(connection) => held.push(connection),
            Err(_) => break,
        }
    }
    let full = error(&*opened("reader", "pw", "zenml").reader, "a").await;
    check_error(&full, "transient", "no connection left", "`parallelism`");
}

#[tokio::test]
async fn a_lock_is_waited_for_and_then_named_and_none_of_ours_lasts_on_real_mariadb() {
    // A server whose default begins a transaction with every statement.
    let Some(server) = MariaDb::start(&["--autocommit=0"]).await else { return };
    server.sql("zenml", TABLES).await;
    let options = Options { timeout: Duration::from_secs(4), ..Options::default() };
    let opened = open(&server, "zenml", &options);
    let (backend, writer) = (opened.reader, opened.writer.expect("writable"));
    writer.create("a", Scope::Public, values(&[("k", "v")])).await.expect("created");
    backend.list().await.expect("list");
    assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "v");
    // A migration: it would wait for any transaction of ours.
    let mut migration = server.connection("zenml").await;
    migration.execute("SET SESSION lock_wait_timeout = 1").await.expect("set");
    migration.execute("ALTER TABLE secret ADD COLUMN something int").await.expect("nothing of ours is in its way");
    migration.execute("LOCK TABLES secret WRITE").await.expect("locked");
    let locked = error(&*backend, "a").await;
    check_error(&locked, "transient", "locked by another program", "migration");
    migration.execute("UNLOCK TABLES").await.expect("unlocked");
    assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "v");
    migration.execute("START TRANSACTION").await.expect("begun");
    migration.execute("UPDATE secret SET name = 'b'").await.expect("changed");
    // Readers go on; a writer waits, and says for what.
    assert_eq!(k(&*backend, "a", Scopes::PublicOnly).await, "v");
    let waited = writer.delete("a", None, None).await.expect_err("locked");
    let crate::backend::WriteError::Backend(waited) = waited else { panic!("{waited}") };
    check_error(&waited, "transient", "locked by another program", "migration");
    migration.execute("ROLLBACK").await.expect("undone");
    writer.delete("a", None, None).await.expect("deleted");
}
