//! A MySQL store found from ZenML's own environment.

use std::path::Path;

use keyside_config::Settings;
use keyside_config::settings::{AwsRole, BackendKind, MysqlSettings, Pem, RdsIam, SqlDatabase, ZenmlSqlSettings};

use crate::scene::{Scene, assert_holds};
use crate::zenml;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn with(url: &str, variables: &[(&str, &str)]) -> Scene {
    let scene = Scene::new().variable("ZENML_STORE_URL", url);
    variables.iter().fold(scene, |scene, (name, value)| scene.variable(&format!("ZENML_STORE_{name}"), *value))
}

fn sql(settings: &Settings) -> &ZenmlSqlSettings {
    let BackendKind::ZenmlSql(sql) = &settings.backends[0].kind else { panic!("another type") };
    sql
}

fn mysql(settings: &Settings) -> &MysqlSettings {
    let SqlDatabase::Mysql(mysql) = &sql(settings).database else { panic!("a file") };
    mysql
}

fn shown(mysql: &MysqlSettings) -> String {
    let password = mysql.password.as_ref().map_or("none", |password| password.text.as_str());
    format!("{}:{password}@{}:{}/{}", mysql.user, mysql.host, mysql.port, mysql.database)
}

#[test]
fn user_and_password_stand_in_the_url_or_beside_it() {
    for (url, variables, expected) in [
        ("mysql://zen:p%2Fw@db:3307/zenml", &[][..], "zen:p/w@db:3307/zenml"),
        ("mysql://db/zenml", &[("USERNAME", "zen"), ("PASSWORD", "pw")], "zen:pw@db:3306/zenml"),
        ("mysql://db", &[("USERNAME", "zen"), ("PASSWORD", "pw"), ("DATABASE", "z")], "zen:pw@db:3306/z"),
        ("mysql://zen:pw@[::1]/zenml", &[], "zen:pw@::1:3306/zenml"),
        // As in ZenML, the URL goes first.
        ("mysql://zen:pw@db/zenml", &[("USERNAME", "other"), ("PASSWORD", "other")], "zen:pw@db:3306/zenml"),
        ("mysql+pymysql://zen:pw@db/zenml", &[], "zen:pw@db:3306/zenml"),
    ] {
        let settings = with(url, variables).load();
        assert_eq!(shown(mysql(&settings)), expected);
        assert_eq!((sql(&settings).user.as_deref(), sql(&settings).user_required), (Some("default"), false));
        assert!(mysql(&settings).verify && mysql(&settings).iam.is_none());
    }
    let settings = with("mysql://zen@db/zenml", &[("PASSWORD", "pw")]).load();
    let password = mysql(&settings).password.as_ref().expect("a password");
    assert_eq!(password.origin, "variable ZENML_STORE_PASSWORD");
}

#[test]
fn the_global_configuration_of_a_zenml_beside_its_data_base_is_taken() {
    // As ZenML 0.98 writes it.
    let config = "store:\n  auth_mode: password\n  aws_rds_iam_max_wait_seconds: 30.0\n  backup_strategy: in-memory\n  \
                  database: zenml\n  driver: mysql\n  max_overflow: 20\n  password: canary\n  pool_pre_ping: true\n  \
                  secrets_store:\n    type: sql\n    encryption_key: k\n  ssl: false\n  ssl_verify_server_cert: false\n  \
                  type: sql\n  url: mysql://db.example.com:3306\n  username: zen\n";
    let scene = zenml::scene(config);
    let settings = scene.load();
    assert_eq!(shown(mysql(&settings)), "zen:canary@db.example.com:3306/zenml");
    assert_eq!(sql(&settings).encryption_key.as_ref().map(|key| key.text.as_str()), Some("k"));
    // The word is what ZenML writes where nobody said anything.
    assert!(mysql(&settings).verify);
    assert_holds(&settings.sources.join("\n"), &["certificate is checked by the system's authorities"]);
}

#[test]
fn what_is_missing_or_wrong_is_named_and_no_password_is_quoted() {
    for (url, variables, part) in [
        ("mysql://db/zenml", &[("PASSWORD", "canary")][..], "ZenML's store has no `username`"),
        ("mysql://zen@db/zenml", &[], "ZenML's store has no `password`"),
        ("mysql://zen:canary@db", &[], "ZenML's store has no `database`"),
        ("mysql://zen:canary@/zenml", &[], "variable ZENML_STORE_URL: "),
        ("mysql://zen:canary@db/zenml?charset=canary", &[], "a parameter that ZenML does not know"),
        ("mysql://zen:canary@db/zenml", &[("AUTH_MODE", "canary")], "variable ZENML_STORE_AUTH_MODE: unknown way"),
        ("mysql://zen:canary@db/zenml", &[("SSL_CERT", PEM)], "ZenML's store has no `ssl_key`"),
        ("mysql://zen:canary@db/zenml", &[("SSL_KEY", PEM)], "ZenML's store has no `ssl_cert`"),
        (
            "mysql://zen:canary@db/zenml",
            &[("SSL_CA", "/no/such/canary")],
            "variable ZENML_STORE_SSL_CA: is neither a file that is there nor PEM text",
        ),
        ("mysql://zen:canary@db/zenml?ssl_ca=canary", &[], "its `ssl_ca` is neither a file"),
    ] {
        let mistake = with(url, variables).mistake();
        assert_holds(&mistake, &[part]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
}

#[test]
fn certificates_are_files_or_their_text() {
    let path = |pem: &Option<Pem>| match pem {
        Some(Pem::File(path)) => path.clone(),
        _ => panic!("no file"),
    };
    let text = |pem: &Option<Pem>| match pem {
        Some(Pem::Text(text)) => text.text.as_str().to_owned(),
        _ => panic!("no text"),
    };
    let scene = with("mysql://zen:pw@db/zenml", &[("SSL_CERT", PEM), ("SSL_KEY", "-----BEGIN PRIVATE KEY-----canary")]);
    let ca = scene.write("ca.pem", "x");
    let scene = scene.variable("ZENML_STORE_SSL_CA", ca.display().to_string());
    let settings = scene.load();
    let server = mysql(&settings);
    assert_eq!(path(&server.ssl_ca), ca);
    assert_eq!(text(&server.ssl_cert), PEM);
    assert_holds(&text(&server.ssl_key), &["canary"]);
    assert!(server.verify);

    let url = format!("mysql://zen:pw@db/zenml?ssl=true&ssl_ca={}&ssl_verify_server_cert=true", ca.display());
    let settings = with(&url, &[("SSL_CA", PEM)]).load();
    assert_eq!(path(&mysql(&settings).ssl_ca), ca, "the URL goes first");
}

#[test]
fn a_certificate_goes_unchecked_only_where_an_authority_is_named_or_the_server_is_here() {
    let verifies = |host: &str, variables: &[(&str, &str)]| {
        mysql(&with(&format!("mysql://zen:pw@{host}/zenml"), variables).load()).verify
    };
    const FALSE: (&str, &str) = ("SSL_VERIFY_SERVER_CERT", "False");
    assert!(verifies("db", &[]) && verifies("db", &[("SSL_CA", PEM)]) && verifies("127.0.0.1", &[]));
    assert!(verifies("db", &[FALSE]), "nothing at all would be checked");
    // To ZenML this is about the host's name: the authority must have signed the certificate all the same.
    assert!(!verifies("db", &[FALSE, ("SSL_CA", PEM)]));
    assert!(!verifies("127.0.0.1", &[FALSE]) && !verifies("localhost", &[FALSE]) && !verifies("[::1]", &[FALSE]));
    assert!(verifies("db", &[("SSL_VERIFY_SERVER_CERT", "true"), ("SSL_CA", PEM)]));
}

#[test]
fn rds_takes_tokens_of_aws_for_passwords() {
    const IAM: [(&str, &str); 2] = [("AUTH_MODE", "aws_rds_iam"), ("AWS_REGION", "eu-central-1")];
    let iam = |role| Some(RdsIam { region: "eu-central-1".into(), role });
    let settings = with("mysql://zen@db/zenml", &IAM).load();
    assert_eq!(mysql(&settings).iam, iam(None));
    assert!(mysql(&settings).password.is_none());
    // A token goes to a server that is known, whatever else was asked.
    for host in ["db", "127.0.0.1"] {
        let lax = [&IAM[..], &[("SSL_VERIFY_SERVER_CERT", "False"), ("SSL_CA", PEM)]].concat();
        assert!(mysql(&with(&format!("mysql://zen@{host}/zenml"), &lax).load()).verify);
    }
    // As in ZenML, the role is one for the pod's own token.
    let of_a_role = [&IAM[..], &[("AWS_RDS_IAM_ROLE_ARN", "arn:aws:iam::1:role/x")]].concat();
    let scene = with("mysql://zen@db/zenml", &of_a_role);
    let mistake = scene.mistake();
    assert_holds(&mistake, &["variable ZENML_STORE_AWS_RDS_IAM_ROLE_ARN: is a role", "AWS_WEB_IDENTITY_TOKEN_FILE"]);
    let settings = scene.variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token").load();
    let role = AwsRole::ByWebIdentity { arn: "arn:aws:iam::1:role/x".into(), token_file: "/run/token".into() };
    assert_eq!(mysql(&settings).iam, iam(Some(role)));
}

#[test]
fn a_login_by_iam_has_a_region_and_no_password() {
    let check = |url: &str, more: &[(&str, &str)], part: &str| {
        let mistake = with(url, &[&[("AUTH_MODE", "aws_rds_iam")][..], more].concat()).mistake();
        assert_holds(&mistake, &[part]);
    };
    check("mysql://zen@db/zenml", &[], "ZenML's store has no `aws_region`");
    let region = ("AWS_REGION", "eu-central-1");
    check("mysql://zen@db/zenml", &[region, ("PASSWORD", "canary")], "ZENML_STORE_PASSWORD: has no meaning");
    check("mysql://zen:canary@db/zenml", &[region], "ZENML_STORE_URL: its password has no meaning");
}

#[test]
fn sqlite_has_no_login() {
    let mistake = with("sqlite:////srv/zenml.db", &[("USERNAME", "zen")]).mistake();
    assert_holds(&mistake, &["variable ZENML_STORE_USERNAME: has no meaning for a store in an SQLite file"]);
    let settings = with("sqlite:////srv/zenml.db", &[("API_KEY", "left over")]).load();
    assert_eq!(sql(&settings).database.file(), Some(Path::new("/srv/zenml.db")), "ZenML ignores it as well");
}
