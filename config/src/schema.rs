//! The one list of all tables and keys of `keyside.toml`, with type and default.

use std::net::SocketAddr;

use keyside_protocol::settings::is_signal;

use crate::backend::url;

/// One table.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) keys: &'static [Key],
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `[name]`.
    Single,
    /// `[name.ANYTHING]`, any number of them.
    Keyed,
    /// Known, and not supported yet.
    Later,
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// A TOML value.
    pub(crate) default: Option<&'static str>,
}

/// What a key holds.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Any text but the empty one.
    Text,
    /// An absolute path.
    Path,
    /// An absolute path short enough for a socket.
    Socket,
    /// A text such as `5m`; zero only where it has a meaning.
    Duration {
        zero: bool,
    },
    /// A text such as `64MiB`, or a number of bytes; not zero.
    Size,
    /// An integer within bounds, both included.
    Count {
        least: u64,
        most: u64,
    },
    /// A number from 0 to 1.
    Share,
    Switch,
    Level,
    /// One of some words; `later` are words that will have a meaning, `never` those that somebody may expect and that
    /// cannot have one, each with the reason.
    Word {
        due: &'static [&'static str],
        later: &'static [&'static str],
        never: &'static [(&'static str, &'static str)],
    },
    /// An octal text such as `0660`.
    Mode,
    /// A text with a form of its own.
    Form {
        expected: &'static str,
        fits: fn(&str) -> bool,
    },
    /// A list of texts that are not empty.
    Texts,
    /// A list of texts with a form of its own.
    Forms {
        expected: &'static str,
        fits: fn(&str) -> bool,
    },
    /// One text with a form of its own, or a list of them that is not empty.
    OneOrMore {
        expected: &'static str,
        fits: fn(&str) -> bool,
    },
    /// A list of names of users or groups, or one of them.
    Accounts,
    /// A list of uids or gids, or one of them.
    Ids,
    /// A list of patterns.
    Patterns,
    /// A table of texts.
    TextTable,
    /// A table of templates.
    TemplateTable,
    /// A secret, which is never written here; names the keys to use instead.
    Inline(&'static str),
    /// Known, and not supported yet.
    Later,
}

impl Kind {
    /// Tells whether a variable's text is taken as it stands; else it is read as a TOML value.
    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Text
            | Self::Path
            | Self::Socket
            | Self::Duration { .. }
            | Self::Size
            | Self::Level
            | Self::Word { .. }
            | Self::Mode
            | Self::Form { .. }
            | Self::Inline(_)
            | Self::Later => true,
            Self::Count { .. }
            | Self::Share
            | Self::Switch
            | Self::Texts
            | Self::Forms { .. }
            | Self::OneOrMore { .. }
            | Self::Accounts
            | Self::Ids
            | Self::Patterns
            | Self::TextTable
            | Self::TemplateTable => false,
        }
    }

    /// Describes a right value, for "must be X".
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Text | Self::Inline(_) | Self::Later => "a text".to_owned(),
            Self::Path => "an absolute path".to_owned(),
            Self::Socket => "an absolute path of fewer than 108 bytes".to_owned(),
            Self::Duration { .. } => "a duration such as \"500ms\", \"30s\", \"5m\" or \"1h\"".to_owned(),
            Self::Size => "a size such as \"64MiB\", or a number of bytes".to_owned(),
            Self::Count { least, most } => format!("an integer from {least} to {most}"),
            Self::Share => "a number from 0 to 1".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Level => "one of \"NONE\", \"SECRET_EXISTS\", \"SECRET_AND_KEY_EXISTS\"".to_owned(),
            Self::Word { due, .. } => {
                let words: Vec<String> = due.iter().map(|word| format!("\"{word}\"")).collect();
                if words.len() == 1 { words.concat() } else { format!("one of {}", words.join(", ")) }
            }
            Self::Mode => "permission bits as an octal text such as \"0600\", at most \"0777\"".to_owned(),
            Self::Form { expected, .. } => expected.to_owned(),
            Self::Texts => "a list of texts such as [\"a\", \"b\"]".to_owned(),
            Self::Forms { expected, .. } => format!("a list, each of it {expected}"),
            Self::OneOrMore { expected, .. } => format!("{expected}, or a list of them"),
            Self::Accounts => "a list of names such as [\"alice\"]".to_owned(),
            Self::Ids => "a list of numeric ids such as [1000]".to_owned(),
            Self::Patterns => {
                "a list of names such as [\"mlflow_*\"] or { secret = \"db\", keys = [\"password\"] }".to_owned()
            }
            Self::TextTable => "a table of texts".to_owned(),
            Self::TemplateTable => "a table of templates".to_owned(),
        }
    }
}

/// Every table there is.
pub(crate) const TABLES: &[Table] = &[
    Table { name: "agent", shape: Shape::Single, keys: AGENT },
    Table { name: "listener", shape: Shape::Keyed, keys: LISTENER },
    Table { name: "cache", shape: Shape::Single, keys: CACHE },
    Table { name: "snapshot", shape: Shape::Later, keys: &[] },
    Table { name: "backend", shape: Shape::Keyed, keys: BACKEND },
    Table { name: "grant", shape: Shape::Keyed, keys: GRANT },
    Table { name: "compat", shape: Shape::Later, keys: &[] },
    Table { name: "limits", shape: Shape::Single, keys: LIMITS },
    Table { name: "metrics", shape: Shape::Single, keys: METRICS },
    Table { name: "audit", shape: Shape::Single, keys: AUDIT },
    Table { name: "schema", shape: Shape::Later, keys: &[] },
    Table { name: "check", shape: Shape::Later, keys: &[] },
    Table { name: "exec", shape: Shape::Single, keys: EXEC },
    Table { name: "profile", shape: Shape::Keyed, keys: EXEC },
];

/// Returns the table of this name.
pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The keys that belong to single types of back-end; all others of `[backend.NAME]` belong to each.
const KEYS_OF_TYPES: &[(&str, &[&str])] = &[
    (
        "zenml-server",
        &[
            "url",
            "api_key_env",
            "api_key_file",
            "api_key_credential",
            "username",
            "password_env",
            "password_file",
            "password_credential",
            "api_token_env",
            "api_token_file",
            "api_token_credential",
            "workspace",
        ],
    ),
    (
        "zenml-sql",
        &[
            "url",
            "password_env",
            "password_file",
            "password_credential",
            "iam_region",
            "iam_role_arn",
            "ssl_ca",
            "ssl_cert",
            "ssl_key",
            "encryption_key_env",
            "encryption_key_file",
            "encryption_key_credential",
            "user",
            "workspace",
            "values",
            "backup",
        ],
    ),
    ("aws", &["region", "endpoint_url", "profile", "role_arn", "layout", "scope", "namespace", "component", "prefix"]),
    (
        "gcp",
        &[
            "project",
            "endpoint",
            "credentials_file",
            "impersonate",
            "layout",
            "scope",
            "namespace",
            "component",
            "prefix",
        ],
    ),
    (
        "azure",
        &[
            "vault_url",
            "client_id",
            "tenant_id",
            "client_secret_env",
            "client_secret_file",
            "client_secret_credential",
            "authority",
            "layout",
            "scope",
            "namespace",
            "component",
            "prefix",
        ],
    ),
    (
        "vault",
        &[
            "url",
            "mount",
            "namespace",
            "kv",
            "auth",
            "role",
            "role_id",
            "secret_id_env",
            "secret_id_file",
            "secret_id_credential",
            "token_env",
            "token_file",
            "token_credential",
            "jwt_file",
            "aws_header_value",
            "auth_mount",
            "layout",
            "scope",
            "scope_namespace",
            "component",
            "prefix",
        ],
    ),
    ("local", &["path"]),
    ("plugin", &["command", "env"]),
];

/// Tells whether a key of `[backend.NAME]` has a meaning for back-ends of `kind`.
pub(crate) fn has_meaning(key: &str, kind: &str) -> bool {
    let owners = types_of(key);
    owners.is_empty() || owners.contains(&kind)
}

/// Returns the types of back-end that a key of `[backend.NAME]` belongs to; empty where it belongs to each.
pub(crate) fn types_of(key: &str) -> Vec<&'static str> {
    KEYS_OF_TYPES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(kind, _)| *kind).collect()
}

impl Table {
    /// Returns the key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, default: None }
}

const fn defaulted(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default: Some(default) }
}

const fn word(due: &'static [&'static str]) -> Kind {
    Kind::Word { due, later: &[], never: &[] }
}

const POSITIVE: Kind = Kind::Duration { zero: false };
const DURATION: Kind = Kind::Duration { zero: true };
const MANY: u64 = u32::MAX as u64;

const AGENT: &[Key] = &[
    key("socket", Kind::Socket),
    defaulted("socket_mode", Kind::Mode, "\"0600\""),
    key("socket_group", Kind::Text),
    defaulted("validation_level", Kind::Level, "\"SECRET_AND_KEY_EXISTS\""),
    defaulted("scope_order", word(&["private-first", "public-first"]), "\"private-first\""),
    key("precedence", Kind::Texts),
    defaulted("request_timeout", POSITIVE, "\"10s\""),
];

const LISTENER: &[Key] = &[
    key("path", Kind::Socket),
    defaulted("mode", Kind::Mode, "\"0600\""),
    key("group", Kind::Text),
    key("grants", Kind::Texts),
    defaulted("auth", Kind::Word { due: &["peer"], later: &["k8s-token"], never: &[] }, "\"peer\""),
    key("jwks_file", Kind::Later),
];

const CACHE: &[Key] = &[
    defaulted("ttl", DURATION, "\"5m\""),
    defaulted("max_stale", DURATION, "\"1h\""),
    defaulted("negative_ttl", DURATION, "\"10s\""),
    defaulted("max_bytes", Kind::Size, "\"64MiB\""),
    defaulted("poll", word(&["auto", "on", "off"]), "\"auto\""),
    defaulted("poll_interval", POSITIVE, "\"30s\""),
    defaulted("jitter", Kind::Share, "0.1"),
    defaulted("on_identity_failure", word(&["stale", "deny"]), "\"stale\""),
];

const BACKEND_TYPE: Kind = Kind::Word {
    due: &["zenml-server", "zenml-sql", "aws", "gcp", "azure", "vault", "local", "plugin"],
    later: &[],
    never: &[
        (
            "github",
            "GitHub hands the secrets of that secrets manager of ZenML's to GitHub Actions alone; keep them in ZenML's store",
        ),
        (
            "custom",
            "ZenML loads a class of Python for it; a \"plugin\" is a program of yours that reads the same place",
        ),
        ("hashicorp", "ZenML's word for \"vault\""),
        ("sql", "ZenML's word for \"zenml-sql\""),
        ("rest", "ZenML's word for \"zenml-server\""),
    ],
};

const BACKEND: &[Key] = &[
    key("type", BACKEND_TYPE),
    defaulted("required", Kind::Switch, "true"),
    defaulted("parallelism", Kind::Count { least: 1, most: 1024 }, "8"),
    defaulted("timeout", POSITIVE, "\"8s\""),
    key("ttl", DURATION),
    defaulted("writable", Kind::Switch, "false"),
    defaulted("denied_means_absent", Kind::Switch, "false"),
    defaulted("allow_plaintext", Kind::Switch, "false"),
    key("ca_file", Kind::Path),
    key("proxy", Kind::Text),
    key("no_proxy", Kind::Text),
    // `zenml-server`, `zenml-sql` and `vault`.
    key("url", Kind::Text),
    key("api_key_env", Kind::Text),
    key("api_key_file", Kind::Path),
    key("api_key_credential", Kind::Text),
    key("username", Kind::Text),
    key("password_env", Kind::Text),
    key("password_file", Kind::Path),
    key("password_credential", Kind::Text),
    key("api_token_env", Kind::Text),
    key("api_token_file", Kind::Path),
    key("api_token_credential", Kind::Text),
    key("workspace", Kind::Text),
    // `zenml-sql`.
    key("iam_region", Kind::Text),
    key("iam_role_arn", Kind::Text),
    key("ssl_ca", Kind::Path),
    key("ssl_cert", Kind::Path),
    key("ssl_key", Kind::Path),
    key("encryption_key_env", Kind::Text),
    key("encryption_key_file", Kind::Path),
    key("encryption_key_credential", Kind::Text),
    key("user", Kind::Text),
    key("values", Kind::Text),
    key("backup", Kind::Text),
    // The clouds and Vault.
    defaulted("layout", word(&["store", "manager", "plain"]), "\"store\""),
    defaulted("scope", word(&["none", "global", "component", "namespace"]), "\"none\""),
    key("namespace", Kind::Text),
    key("scope_namespace", Kind::Text),
    key("component", Kind::Text),
    key("prefix", Kind::Text),
    // `aws`.
    key("region", Kind::Text),
    key("endpoint_url", Kind::Text),
    key("profile", Kind::Text),
    key("role_arn", Kind::Text),
    // `gcp`.
    key("project", Kind::Text),
    key("endpoint", Kind::Text),
    key("credentials_file", Kind::Path),
    key("impersonate", Kind::Text),
    // `azure`.
    key("vault_url", Kind::Text),
    key("client_id", Kind::Text),
    key("tenant_id", Kind::Text),
    key("client_secret_env", Kind::Text),
    key("client_secret_file", Kind::Path),
    key("client_secret_credential", Kind::Text),
    key("authority", Kind::Text),
    // `vault`.
    defaulted("mount", Kind::Text, "\"secret\""),
    defaulted("kv", Kind::Count { least: 1, most: 2 }, "2"),
    defaulted("auth", word(&["token", "approle", "kubernetes", "jwt", "aws"]), "\"token\""),
    key("role", Kind::Text),
    key("role_id", Kind::Text),
    key("secret_id_env", Kind::Text),
    key("secret_id_file", Kind::Path),
    key("secret_id_credential", Kind::Text),
    key("token_env", Kind::Text),
    key("token_file", Kind::Path),
    key("token_credential", Kind::Text),
    key("jwt_file", Kind::Path),
    key("aws_header_value", Kind::Form { expected: url::HEADER_VALUE, fits: url::is_header_value }),
    key("auth_mount", Kind::Text),
    // `local`.
    key("path", Kind::Path),
    // `plugin`.
    key("command", Kind::Texts),
    key("env", Kind::TextTable),
    // Secrets that people write where they do not belong.
    key("encryption_key", Kind::Inline("`encryption_key_env`, `encryption_key_file` or `encryption_key_credential`")),
    key("password", Kind::Inline("`password_env` or `password_file`")),
    key("api_key", Kind::Inline("`api_key_env` or `api_key_file`")),
    key("api_token", Kind::Inline("`api_token_env` or `api_token_file`")),
    key("token", Kind::Inline("`token_env`, `token_file` or `token_credential`")),
    key("client_secret", Kind::Inline("`client_secret_env` or `client_secret_file`")),
    key("secret_id", Kind::Inline("`secret_id_env` or `secret_id_file`")),
];

const GRANT: &[Key] = &[
    key("uid", Kind::Ids),
    key("user", Kind::Accounts),
    key("gid", Kind::Ids),
    key("group", Kind::Accounts),
    defaulted("read", Kind::Patterns, "[]"),
    defaulted("write", Kind::Patterns, "[]"),
    defaulted("admin", Kind::Switch, "false"),
    key(
        "exe",
        Kind::OneOrMore { expected: "the absolute path of a program, without `.`, `..` or `//`", fits: is_plain },
    ),
    key(
        "cgroup",
        Kind::OneOrMore { expected: "the path of a cgroup such as \"/system.slice/train-*.service\"", fits: is_plain },
    ),
    key("k8s_namespace", Kind::Later),
    key("k8s_serviceaccount", Kind::Later),
];

const LIMITS: &[Key] = &[
    defaulted("value", Kind::Size, "\"1MiB\""),
    defaulted("request", Kind::Size, "\"1MiB\""),
    defaulted("header", Kind::Size, "\"16KiB\""),
    defaulted("entries", Kind::Count { least: 1, most: MANY }, "200000"),
    defaulted("connections_per_uid", Kind::Count { least: 1, most: MANY }, "8192"),
    defaulted("watchers_per_uid", Kind::Count { least: 1, most: MANY }, "8192"),
    defaulted("grace", DURATION, "\"10s\""),
];

const METRICS: &[Key] = &[key(
    "listen",
    Kind::Form {
        expected: "an IP address with a port other than 0, such as \"127.0.0.1:9464\" or \"[::1]:9464\"",
        fits: is_listen,
    },
)];

const AUDIT: &[Key] = &[key("path", Kind::Path), defaulted("required", Kind::Switch, "false")];

const SIGNAL: Kind = Kind::Form { expected: "the name of a signal such as \"TERM\"", fits: is_signal };

/// The long flags of `keyside exec`; [`keyside_protocol::settings::ExecSettings`] has a field for each.
const EXEC: &[Key] = &[
    key("env", Kind::TemplateTable),
    key("secret", Kind::Texts),
    key("env_file", Kind::Texts),
    key("file", Kind::TemplateTable),
    key("file_env", Kind::TemplateTable),
    key("template", Kind::TextTable),
    key("secret_files", Kind::Texts),
    key("files", word(&["auto", "private", "dir", "memfd"])),
    key("files_dir", Kind::Text),
    key("insecure_files", Kind::Switch),
    key("lenient", Kind::Switch),
    key("no_resolve_env", Kind::Switch),
    key(
        "on_change",
        Kind::Forms { expected: "\"ignore\", \"rewrite\", \"signal:SIG\" or \"restart\"", fits: is_reaction },
    ),
    key("restart_signal", SIGNAL),
    key("restart_grace", DURATION),
    key("debounce", DURATION),
    key("splay", DURATION),
    key("mask", Kind::Switch),
    key("init", word(&["auto", "always", "never"])),
    key("wait", DURATION),
    key("timeout", POSITIVE),
    key("pristine", Kind::Switch),
    key("user", Kind::Form { expected: "UID or UID:GID, in digits", fits: is_user }),
    key("chdir", Kind::Text),
    key("report", Kind::Text),
    key("unavailable_exit", Kind::Count { least: 1, most: 255 }),
    key("agent", word(&["auto", "socket", "embedded"])),
    key("agent_uid", Kind::Count { least: 0, most: MANY - 1 }),
];

/// Tells whether the text is a path in the one spelling in which the kernel would show it.
fn is_plain(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control))
    })
}

/// Names are not looked up: what a name means may change, and where to listen must not.
fn is_listen(text: &str) -> bool {
    text.parse().is_ok_and(|address: SocketAddr| address.port() != 0)
}

fn is_reaction(text: &str) -> bool {
    matches!(text, "ignore" | "rewrite" | "restart") || text.strip_prefix("signal:").is_some_and(is_signal)
}

fn is_user(text: &str) -> bool {
    let is_id =
        |id: &str| id.bytes().all(|byte| byte.is_ascii_digit()) && id.parse().is_ok_and(|id: u32| id < u32::MAX);
    match text.split_once(':') {
        Some((uid, gid)) => is_id(uid) && is_id(gid),
        None => is_id(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that this version takes, with the table they stand in.
    fn due_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        TABLES.iter().flat_map(|table| {
            table
                .keys
                .iter()
                .filter(|key| !matches!(key.kind, Kind::Inline(_) | Kind::Later))
                .map(|key| (table.name, key.name))
        })
    }

    #[test]
    fn the_complete_example_shows_every_key() {
        let example = include_str!("../examples/complete.toml");
        for (table, key) in due_keys().filter(|(table, _)| *table != "profile") {
            // Of a table with names, one of them is enough.
            let sections = example
                .split("\n[")
                .filter(|section| section.starts_with(table) && section[table.len()..].starts_with([']', '.']));
            let shown = sections
                .flat_map(str::lines)
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert!(shown, "{key} in {table}");
        }
    }
}
