//! `[backend.NAME]` of each type: what its keys mean, and what they refuse.

use std::path::Path;

use keyside_config::settings::{
    AwsRole, AzureLogin, BackendKind, BackendSettings, GcpLogin, Layout, ManagerScope, RdsIam, SecretText, ServerLogin,
    SqlDatabase, VaultLogin,
};

use crate::scene::{Scene, assert_holds};

/// One `[backend.x]` of these lines; the first of them is line 2 of the file.
fn scene(lines: &str) -> Scene {
    Scene::with_config(&format!("[backend.x]\n{lines}\n")).variable("A_SECRET", "canary-a").variable("B_SECRET", "b")
}

fn backend(lines: &str) -> BackendSettings {
    scene(lines).load().backends.remove(0)
}

/// The only mistake; it quotes no secret.
fn mistake(lines: &str) -> String {
    let mistake = scene(lines).mistake();
    assert!(!mistake.contains("canary"), "{mistake}");
    mistake
}

fn check(lines: &str, expected: &[&str]) {
    assert_holds(&mistake(lines), expected);
}

fn is(secret: Option<&SecretText>, text: &str) -> bool {
    secret.is_some_and(|secret| secret.text.as_str() == text)
}

const SERVER: &str = "type = \"zenml-server\"\nurl = \"https://zenml.example.com/\"\n";
const MYSQL: &str = "type = \"zenml-sql\"\nurl = \"mysql://zen@db.example.com:3307/zenml\"\n";
const AWS: &str = "type = \"aws\"\n";
const GCP: &str = "type = \"gcp\"\nproject = \"p\"\n";
const AZURE: &str = "type = \"azure\"\nvault_url = \"https://v.vault.azure.net/\"\n";
const VAULT: &str = "type = \"vault\"\nurl = \"https://vault.example.com:8200\"\n";
const PLUGIN: &str = "type = \"plugin\"\ncommand = [\"/bin/own\", \"--x\"]\n";

#[test]
fn a_zenml_server_has_at_most_one_login() {
    let server = |lines: &str| {
        let backend = backend(&format!("{SERVER}{lines}"));
        assert_eq!(backend.kind.type_name(), "zenml-server");
        let BackendKind::ZenmlServer(server) = backend.kind else { panic!("another type") };
        assert_eq!(server.url, "https://zenml.example.com");
        server
    };
    assert!(server("").login.is_none());
    let api_key = server("api_key_env = \"A_SECRET\"\nworkspace = \"team\"");
    assert!(matches!(&api_key.login, Some(ServerLogin::ApiKey(key)) if is(Some(key), "canary-a")));
    assert_eq!(api_key.workspace.as_deref(), Some("team"));
    let token = server("api_token_env = \"A_SECRET\"").login;
    assert!(matches!(&token, Some(ServerLogin::ApiToken(token)) if is(Some(token), "canary-a")));
    match server("username = \"bob\"\npassword_env = \"A_SECRET\"").login {
        Some(ServerLogin::Password { username, password }) => {
            assert_eq!((username.as_str(), password.text.as_str()), ("bob", "canary-a"));
        }
        _ => panic!("another login"),
    }

    for two in [
        "api_key_env = \"A_SECRET\"\napi_token_env = \"B_SECRET\"",
        "api_key_env = \"A_SECRET\"\nusername = \"bob\"\npassword_env = \"B_SECRET\"",
        "api_key_env = \"A_SECRET\"\nusername = \"bob\"",
        "username = \"bob\"\npassword_env = \"A_SECRET\"\napi_token_env = \"B_SECRET\"",
    ] {
        check(&format!("{SERVER}{two}"), &["keyside.toml:1:10: [backend.x] has two ways to log in", "`api_key_*`"]);
    }
    check(&format!("{SERVER}username = \"bob\""), &["keyside.toml:4:12: ", "needs `password_env`"]);
    check(&format!("{SERVER}password_env = \"A_SECRET\""), &["keyside.toml:1:10: [backend.x] has no `username`"]);
    check("type = \"zenml-server\"", &["keyside.toml:1:10: [backend.x] has no `url`"]);
}

#[test]
fn a_secret_comes_from_exactly_one_place_and_is_never_quoted() {
    for (lines, key) in [
        (SERVER, "api_key"),
        (SERVER, "api_token"),
        (MYSQL, "password"),
        (MYSQL, "encryption_key"),
        (VAULT, "token"),
        (&format!("{AZURE}client_id = \"c\"\ntenant_id = \"t\"\n"), "client_secret"),
        (&format!("{VAULT}auth = \"approle\"\nrole_id = \"r\"\n"), "secret_id"),
    ] {
        let line = lines.lines().count() + 2;
        check(
            &format!("{lines}{key}_env = \"A_SECRET\"\n{key}_file = \"/x\""),
            &[&format!("keyside.toml:{}:", line + 1), &format!("`{key}_file`"), "names a second", "keep one"],
        );
        check(
            &format!("{lines}{key}_env = \"NOT_SET\""),
            &[&format!("keyside.toml:{line}:"), "the variable NOT_SET is not set"],
        );
        check(&format!("{lines}{key}_env = \"canary-pasted\""), &["holds the name of a variable"]);
        check(&format!("{lines}{key}_file = \"/no/such/file\""), &["there is no file /no/such/file"]);
        check(&format!("{lines}{key}_credential = \"c\""), &["CREDENTIALS_DIRECTORY is not set"]);
        // Written in place it is refused, and the missing one is not a second mistake.
        let mistakes = scene(&format!("{lines}{key} = \"canary\"")).mistakes();
        assert_holds(&mistakes.join("\n"), &[&format!("`{key}` in [backend.x] is a secret and never stands here")]);
        assert!(!mistakes.concat().contains("canary"), "{mistakes:?}");
    }
}

#[test]
fn a_secret_in_a_file_knows_its_file_and_follows_it() {
    let scene = Scene::new();
    let file = scene.write("token", "one\n");
    let config = scene.write("c.toml", format!("[backend.x]\n{VAULT}token_file = \"{}\"\n", file.display()));
    let scene = scene.config(&config);
    let settings = scene.load();
    assert!(settings.files.contains(&file));
    let BackendKind::Vault(vault) = &settings.backends[0].kind else { panic!("another type") };
    let VaultLogin::Token(token) = &vault.login else { panic!("another login") };
    assert_eq!((token.text.as_str(), token.file.as_deref()), ("one", Some(file.as_path())));
    scene.write("token", "two\n");
    assert_eq!(token.current().expect("readable").as_str(), "two");
    std::fs::remove_file(&file).expect("removed");
    assert_holds(&token.current().expect_err("gone"), &["there is no file", "token"]);
}

#[test]
fn an_address_has_tls_off_this_machine_and_no_login_or_parameters() {
    for (lines, key, column) in [
        ("type = \"zenml-server\"\n", "url", 7),
        ("type = \"vault\"\ntoken_env = \"A_SECRET\"\n", "url", 7),
        ("type = \"azure\"\n", "vault_url", 13),
        (AWS, "endpoint_url", 16),
        (GCP, "endpoint", 12),
        (AZURE, "authority", 13),
    ] {
        let line = lines.lines().count() + 2;
        let place = format!("keyside.toml:{line}:{column}: `{key}` in [backend.x]: ");
        let with = |url: &str| format!("{lines}{key} = \"{url}\"");
        for url in ["https://a.example.com", "http://127.0.0.1:1", "http://[::1]:1/", "http://localhost:1/x"] {
            backend(&with(url));
        }
        check(&with("http://a.example.com"), &[&place, "without TLS only this machine", "`allow_plaintext = true`"]);
        check(&with("ftp://canary"), &[&place, "scheme"]);
        check(&with("canary"), &[&place, "no URL"]);
        check(&with("https://u:canary@a.example.com"), &[&place, "holds a login"]);
        check(&with("https://a.example.com/?canary"), &[&place, "parameters"]);
        backend(&format!("{}\nallow_plaintext = true", with("http://a.example.com")));
    }
}

#[test]
fn a_mysql_server_is_named_by_its_url_without_a_password() {
    let mysql = |lines: &str| {
        let BackendKind::ZenmlSql(sql) = backend(&format!("{MYSQL}{lines}")).kind else { panic!("another type") };
        match sql.database {
            SqlDatabase::Mysql(mysql) => *mysql,
            SqlDatabase::Sqlite(_) => panic!("a file"),
        }
    };
    let plain = mysql("");
    assert_eq!((plain.host.as_str(), plain.port, plain.user.as_str()), ("db.example.com", 3307, "zen"));
    assert_eq!((plain.database.as_str(), plain.verify, plain.iam), ("zenml", true, None));
    assert!(plain.password.is_none() && plain.ssl_ca.is_none() && plain.ssl_cert.is_none() && plain.ssl_key.is_none());
    let full = mysql("password_env = \"A_SECRET\"\nssl_ca = \"/ca\"\nssl_cert = \"/cert\"\nssl_key = \"/key\"");
    assert!(is(full.password.as_ref(), "canary-a"));
    let file = |pem: Option<keyside_config::settings::Pem>| match pem {
        Some(keyside_config::settings::Pem::File(path)) => path,
        _ => panic!("no file"),
    };
    assert_eq!(file(full.ssl_ca), Path::new("/ca"));
    assert_eq!((file(full.ssl_cert), file(full.ssl_key)), ("/cert".into(), "/key".into()));

    check(&format!("{MYSQL}ssl_cert = \"/c\""), &["keyside.toml:4:12: ", "needs `ssl_key` beside it"]);
    check(&format!("{MYSQL}ssl_key = \"/c\""), &["keyside.toml:4:11: ", "needs `ssl_cert` beside it"]);
    check(&format!("{MYSQL}ssl_ca = \"c\""), &["keyside.toml:4:10: ", "must be an absolute path"]);
    for (url, part) in [
        ("mysql://u:canary@h/d", "holds a password, which never stands here"),
        ("mysql://u@h/d?ssl_ca=/canary", "parameters in this URL"),
        ("mysql://u@h/", "names no data base"),
        ("mysql://h/d", "names no user"),
        ("mysql://u@/canary", "mysql://user@host:port/database"),
        ("https://canary.example.com", "\"zenml-server\""),
    ] {
        let place = "keyside.toml:3:7: `url` in [backend.x]: ";
        check(&format!("type = \"zenml-sql\"\nurl = \"{url}\""), &[place, part]);
    }
}

#[test]
fn a_login_by_iam_stands_in_place_of_a_password() {
    let iam = |lines: &str| {
        let BackendKind::ZenmlSql(sql) = backend(&format!("{MYSQL}{lines}")).kind else { panic!("another type") };
        match sql.database {
            SqlDatabase::Mysql(mysql) => (mysql.iam, mysql.password.is_some()),
            SqlDatabase::Sqlite(_) => panic!("a file"),
        }
    };
    let region = "iam_region = \"eu-central-1\"";
    let of = |role| (Some(RdsIam { region: "eu-central-1".into(), role }), false);
    assert_eq!(iam(region), of(None));
    let role = AwsRole::ByChain { arn: "arn:aws:iam::1:role/x".into() };
    assert_eq!(iam(&format!("{region}\niam_role_arn = \"arn:aws:iam::1:role/x\"")), of(Some(role)));

    check(&format!("{MYSQL}iam_role_arn = \"a\""), &["keyside.toml:4:16: ", "needs `iam_region` beside it"]);
    let both = format!("{MYSQL}{region}\npassword_env = \"A_SECRET\"");
    check(&both, &["keyside.toml:5:", "`password_env` in [backend.x] has no meaning for a login by IAM"]);
}

#[test]
fn a_file_of_sqlite_has_no_use_for_the_keys_of_a_server() {
    for (key, value) in [
        ("password_env", "A_SECRET"),
        ("password_file", "/x"),
        ("ssl_ca", "/x"),
        ("ssl_key", "/x"),
        ("iam_region", "x"),
        ("iam_role_arn", "x"),
    ] {
        let lines = format!("type = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\n{key} = \"{value}\"");
        check(&lines, &["keyside.toml:4:", &format!("`{key}` in [backend.x] has no meaning"), "SQLite"]);
    }
}

#[test]
fn aws_needs_nothing_and_takes_region_profile_role_and_endpoint() {
    let aws = |lines: &str| match backend(&format!("{AWS}{lines}")).kind {
        BackendKind::Aws(aws) => aws,
        _ => panic!("another type"),
    };
    let bare = aws("");
    assert_eq!((bare.region, bare.endpoint_url, bare.profile, bare.role_arn), (None, None, None, None));
    assert!(bare.keys.is_none());
    let full = aws("region = \"eu\"\nprofile = \"p\"\nrole_arn = \"arn:x\"\nendpoint_url = \"http://127.0.0.1:5000/\"");
    assert_eq!((full.region.as_deref(), full.profile.as_deref()), (Some("eu"), Some("p")));
    assert_eq!(
        (full.role_arn.as_deref(), full.endpoint_url.as_deref()),
        (Some("arn:x"), Some("http://127.0.0.1:5000"))
    );
}

#[test]
fn gcp_needs_a_project_and_takes_a_file_of_credentials() {
    let gcp = |lines: &str| {
        let settings = scene(&format!("{GCP}{lines}")).load();
        let files = settings.files;
        match settings.backends.into_iter().next().map(|backend| backend.kind) {
            Some(BackendKind::Gcp(gcp)) => (gcp, files),
            _ => panic!("another type"),
        }
    };
    let (bare, _) = gcp("");
    assert!(matches!(bare.login, GcpLogin::Default));
    assert_eq!((bare.project.as_str(), bare.endpoint, bare.impersonate), ("p", None, None));
    let (full, files) = gcp("credentials_file = \"/c.json\"\nimpersonate = \"a@b\"\nendpoint = \"https://e\"");
    assert!(matches!(&full.login, GcpLogin::File(path) if path == Path::new("/c.json")));
    assert!(files.contains(&"/c.json".into()), "the file is looked at again");
    assert_eq!((full.impersonate.as_deref(), full.endpoint.as_deref()), (Some("a@b"), Some("https://e")));
    check("type = \"gcp\"", &["keyside.toml:1:10: [backend.x] has no `project`"]);
    check(&format!("{GCP}credentials_file = \"c.json\""), &["keyside.toml:4:20: ", "must be an absolute path"]);
}

#[test]
fn azure_needs_a_vault_and_for_a_client_secret_both_ids() {
    let azure = |lines: &str| match backend(&format!("{AZURE}{lines}")).kind {
        BackendKind::Azure(azure) => azure,
        _ => panic!("another type"),
    };
    let bare = azure("");
    assert_eq!((bare.vault_url.as_str(), bare.authority), ("https://v.vault.azure.net", None));
    assert!(matches!(bare.login, AzureLogin::Default { client_id: None, tenant_id: None }));
    let managed = azure("client_id = \"c\"\ntenant_id = \"t\"\nauthority = \"https://login.example.com/\"");
    assert!(matches!(managed.login, AzureLogin::Default { client_id: Some(id), tenant_id: Some(_) } if id == "c"));
    assert_eq!(managed.authority.as_deref(), Some("https://login.example.com"));
    match azure("client_id = \"c\"\ntenant_id = \"t\"\nclient_secret_env = \"A_SECRET\"").login {
        AzureLogin::ServicePrincipal { client_id, tenant_id, client_secret } => {
            assert_eq!((client_id.as_str(), tenant_id.as_str()), ("c", "t"));
            assert!(is(Some(&client_secret), "canary-a"));
        }
        _ => panic!("another login"),
    }
    check("type = \"azure\"", &["keyside.toml:1:10: [backend.x] has no `vault_url`"]);
    let mistakes = scene(&format!("{AZURE}client_secret_env = \"A_SECRET\"")).mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert_holds(&mistakes.concat(), &["[backend.x] has no `client_id`", "[backend.x] has no `tenant_id`"]);
}

#[test]
fn vault_has_one_login_with_exactly_its_own_keys() {
    let vault = |lines: &str| match backend(&format!("{VAULT}{lines}")).kind {
        BackendKind::Vault(vault) => vault,
        _ => panic!("another type"),
    };
    let token = vault("token_env = \"A_SECRET\"");
    assert!(matches!(&token.login, VaultLogin::Token(token) if is(Some(token), "canary-a")));
    assert_eq!((token.mount.as_str(), token.kv, token.auth_mount, token.namespace), ("secret", 2, None, None));
    let role = vault("auth = \"approle\"\nrole_id = \"r\"\nauth_mount = \"/team/approle/\"\nmount = \"team/kv/\"");
    assert!(matches!(&role.login, VaultLogin::AppRole { role_id, secret_id: None } if role_id == "r"));
    assert_eq!((role.mount.as_str(), role.auth_mount.as_deref()), ("team/kv", Some("team/approle")));
    let role = vault("auth = \"approle\"\nrole_id = \"r\"\nsecret_id_env = \"A_SECRET\"\nnamespace = \"admin/ml\"");
    assert!(matches!(&role.login, VaultLogin::AppRole { secret_id, .. } if is(secret_id.as_ref(), "canary-a")));
    assert_eq!(role.namespace.as_deref(), Some("admin/ml"));
    match vault("auth = \"kubernetes\"\nrole = \"k\"").login {
        VaultLogin::Kubernetes { role, jwt_file } => {
            assert_eq!(role, "k");
            assert_eq!(jwt_file, Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        }
        _ => panic!("another login"),
    }
    let jwt = vault("auth = \"jwt\"\njwt_file = \"/jwt\"").login;
    assert!(matches!(&jwt, VaultLogin::Jwt { role: None, jwt_file } if jwt_file == Path::new("/jwt")));
    let aws = vault("auth = \"aws\"\nrole = \"a\"").login;
    assert!(matches!(&aws, VaultLogin::Aws { role: Some(role), header_value: None } if role == "a"));
    let aws = vault("auth = \"aws\"\naws_header_value = \"vault.example.com\"").login;
    assert!(matches!(&aws, VaultLogin::Aws { header_value: Some(value), .. } if value == "vault.example.com"));

    for (lines, part) in [
        ("", "[backend.x] has no token; write `token_env`"),
        ("auth = \"approle\"", "[backend.x] has no `role_id`"),
        ("auth = \"kubernetes\"", "[backend.x] has no `role`"),
        ("auth = \"jwt\"", "[backend.x] has no `jwt_file`"),
        ("auth = \"ldap\"", "unknown `auth` \"ldap\""),
        ("auth = \"approle\"\nrole_id = \"r\"\ntoken_env = \"A_SECRET\"", "`token_env` in [backend.x] has no meaning"),
        ("auth = \"aws\"\naws_header_value = \"a\\nb\"", "must be printable ASCII"),
        ("token_env = \"A_SECRET\"\naws_header_value = \"v\"", "`aws_header_value` in [backend.x] has no meaning"),
        ("auth = \"aws\"\njwt_file = \"/j\"", "`jwt_file` in [backend.x] has no meaning for a login by \"aws\""),
        ("auth = \"jwt\"\njwt_file = \"/j\"\nrole_id = \"r\"", "`role_id` in [backend.x] has no meaning"),
        ("token_env = \"A_SECRET\"\nrole = \"r\"", "`role` in [backend.x] has no meaning for a login by \"token\""),
        ("token_env = \"A_SECRET\"\nmount = \"../x\"", "is no path of a mount"),
        ("token_env = \"A_SECRET\"\nauth_mount = \"a//b\"", "is no path of a mount"),
        ("token_env = \"A_SECRET\"\nkv = 3", "an integer from 1 to 2"),
        ("token_env = \"A_SECRET\"\nkv = 1", "goes with layout \"plain\""),
    ] {
        let mistakes = scene(&format!("{VAULT}{lines}")).mistakes();
        assert_holds(&mistakes[0], &["keyside.toml:", part]);
    }
    assert_eq!(vault("token_env = \"A_SECRET\"\nkv = 1\nlayout = \"plain\"").kv, 1);
}

#[test]
fn a_layout_has_exactly_its_own_keys() {
    let layouts = [
        ("", Layout::Store),
        ("layout = \"store\"", Layout::Store),
        ("layout = \"plain\"", Layout::Plain { prefix: String::new() }),
        ("layout = \"plain\"\nprefix = \"ml/\"", Layout::Plain { prefix: "ml/".into() }),
        ("layout = \"manager\"", Layout::Manager(ManagerScope::None)),
        ("layout = \"manager\"\nscope = \"none\"", Layout::Manager(ManagerScope::None)),
        ("layout = \"manager\"\nscope = \"global\"", Layout::Manager(ManagerScope::Global)),
        (
            "layout = \"manager\"\nscope = \"component\"\ncomponent = \"id\"",
            Layout::Manager(ManagerScope::Component("id".into())),
        ),
        (
            "layout = \"manager\"\nscope = \"namespace\"\nNS = \"t\"",
            Layout::Manager(ManagerScope::Namespace("t".into())),
        ),
    ];
    let refused = [
        ("scope = \"global\"", "`scope` in [backend.x] has no meaning for a layout \"store\""),
        ("prefix = \"x\"", "`prefix` in [backend.x] has no meaning for a layout \"store\""),
        ("layout = \"plain\"\ncomponent = \"x\"", "`component` in [backend.x] has no meaning for a layout \"plain\""),
        ("layout = \"plain\"\nNS = \"x\"", "has no meaning for a layout \"plain\""),
        ("layout = \"manager\"\nprefix = \"x\"", "`prefix` in [backend.x] has no meaning for a layout \"manager\""),
        ("layout = \"manager\"\nNS = \"x\"", "has no meaning for a secrets manager of scope \"none\""),
        ("layout = \"manager\"\nscope = \"component\"", "[backend.x] has no `component`"),
        ("layout = \"manager\"\nscope = \"namespace\"", "[backend.x] has no `NS`"),
        ("layout = \"manager\"\nscope = \"global\"\ncomponent = \"x\"", "scope \"global\""),
        ("layout = \"stores\"", "did you mean \"store\"?"),
        ("layout = \"manager\"\nscope = \"globe\"", "did you mean \"global\"?"),
    ];
    let vault = format!("{VAULT}token_env = \"A_SECRET\"\n");
    // Vault has name spaces of its own.
    for (lines, namespace) in
        [(AWS, "namespace"), (GCP, "namespace"), (AZURE, "namespace"), (&vault, "scope_namespace")]
    {
        let named = |text: &str| text.replace("NS", namespace);
        for (layout, expected) in &layouts {
            let kind = backend(&format!("{lines}{}", named(layout))).kind;
            assert_eq!(kind.layout(), Some(expected), "{lines}{layout}");
        }
        for (layout, part) in refused {
            check(&format!("{lines}{}", named(layout)), &["keyside.toml:", &named(part)]);
        }
    }
}

#[test]
fn a_plug_in_is_a_program_by_absolute_path_with_plain_arguments() {
    let BackendKind::Plugin(plugin) = backend(&format!("{PLUGIN}env = {{ A = \"1\" }}")).kind else {
        panic!("another type")
    };
    assert_eq!(plugin.command, ["/bin/own", "--x"]);
    assert_eq!(plugin.env.get("A").map(String::as_str), Some("1"));
    for (lines, part) in [
        ("type = \"plugin\"", "[backend.x] has no `command`"),
        ("type = \"plugin\"\ncommand = []", "names no program"),
        ("type = \"plugin\"\ncommand = [\"./own\"]", "must be an absolute path, or a name"),
        ("type = \"plugin\"\ncommand = \"/bin/own\"", "must be a list of texts"),
        ("type = \"plugin\"\ncommand = [\"/bin/own\", 1]", "must be a list of texts"),
    ] {
        check(lines, &["keyside.toml:", part]);
    }
    check(&format!("{PLUGIN}env = {{ A = 1 }}"), &["keyside.toml:4:", "`A`, which must be a text"]);
    check(&format!("{PLUGIN}env = {{ \"a=b\" = \"1\" }}"), &["keyside.toml:4:", "a `=` or NUL"]);
}

#[test]
fn a_key_of_another_type_is_named_with_its_place() {
    for (lines, key) in [
        (SERVER, "region = \"eu\""),
        (SERVER, "encryption_key_env = \"A_SECRET\""),
        (MYSQL, "api_key_env = \"A_SECRET\""),
        (AWS, "url = \"https://x\""),
        (AWS, "project = \"p\""),
        (GCP, "region = \"eu\""),
        (AZURE, "kv = 2"),
        (VAULT, "client_id = \"c\""),
        (PLUGIN, "path = \"/x\""),
    ] {
        let kind = lines.split('"').nth(1).expect("a type");
        let (name, line) = (key.split(' ').next().expect("a key"), lines.lines().count() + 2);
        let mistakes = scene(&format!("{lines}{key}")).mistakes();
        let expected = format!("`{name}` in [backend.x] has no meaning for a \"{kind}\" back-end");
        assert_holds(&mistakes.join("\n"), &[&format!("keyside.toml:{line}:"), &expected]);
    }
}

#[test]
fn an_unknown_key_of_a_back_end_gets_the_nearest_one() {
    for (lines, key, near) in [
        (SERVER, "api_key_evn = \"X\"", "api_key_env"),
        (AWS, "regoin = \"eu\"", "region"),
        (AZURE, "tennant_id = \"t\"", "tenant_id"),
        (GCP, "projekt = \"p\"", "project"),
        (PLUGIN, "comand = []", "command"),
    ] {
        let line = lines.lines().count() + 2;
        check(
            &format!("{lines}{key}"),
            &[&format!("keyside.toml:{line}:1: unknown key `"), &format!("did you mean `{near}`?")],
        );
    }
}

#[test]
fn a_proxy_may_hold_its_login_and_is_never_quoted() {
    let backend =
        backend(&format!("{SERVER}proxy = \"http://u:canary@p:3128\"\nno_proxy = \"a,.b\"\nca_file = \"/ca\""));
    assert_eq!(backend.network.proxy.as_ref().map(|proxy| proxy.as_str()), Some("http://u:canary@p:3128"));
    assert_eq!(backend.network.no_proxy.as_deref(), Some("a,.b"));
    assert_eq!(backend.network.ca_file.as_deref(), Some(Path::new("/ca")));
    check(&format!("{SERVER}proxy = \"socks5://u:canary@p\""), &["keyside.toml:4:9: ", "no address of a proxy"]);
    check(&format!("{SERVER}ca_file = \"ca\""), &["keyside.toml:4:11: ", "must be an absolute path"]);
}
