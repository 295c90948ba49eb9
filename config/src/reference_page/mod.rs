//! What each key means, and the tables of `docs/configuration.md` made of that and of the schema.
//!
//! The page's prose is written by hand. Between `<!-- keys of ... -->` and `<!-- end of keys -->` stands what is made
//! here; after a change to the schema or to a description, run the test of this file once with `KEYSIDE_BLESS=1`.

mod backends;

use std::collections::BTreeSet;
use std::path::PathBuf;

use self::backends::TYPES;
use crate::schema::{self, Kind, Shape, TABLES};

/// The rows of one place on the page.
struct Section {
    /// What the marker on the page says.
    title: &'static str,
    table: &'static str,
    rows: &'static [Row],
}

/// What the schema does not know about a key: its name, what holds where it is not set and has no default in the
/// schema, and what it means.
struct Row(&'static str, &'static str, &'static str);

const SECTIONS: &[Section] = &[
    Section {
        title: "agent",
        table: "agent",
        rows: &[
            Row(
                "socket",
                "a default path",
                "The agent's socket. `--socket` and `KEYSIDE_SOCKET` take its place. With none of them the agent takes \
                 `$XDG_RUNTIME_DIR/keyside/agent.sock`, else `/run/keyside/agent.sock`. Clients read this key too",
            ),
            Row("socket_mode", "", "The socket's exact mode, under any umask"),
            Row("socket_group", "none", "The socket's group, a name or a number"),
            Row(
                "validation_level",
                "",
                "What a check verifies when it names no level. `ZENML_SECRET_VALIDATION_LEVEL` in the agent's \
                 environment goes before this key and its variable",
            ),
            Row(
                "scope_order",
                "",
                "Which secret wins when two scopes hold the name; `\"public-first\"` is what ZenML 0.80 and later do",
            ),
            Row(
                "precedence",
                "none",
                "The order of the back-ends, each exactly once. Required with two back-ends or more",
            ),
            Row("request_timeout", "", "How long one request may take"),
        ],
    },
    Section {
        title: "listener",
        table: "listener",
        rows: &[
            Row("path", "required", "As `socket` above"),
            Row("mode", "", "As `socket_mode`"),
            Row("group", "none", "As `socket_group`"),
            Row("grants", "all", "Which `[grant.NAME]` count here; they must exist. An empty list: none"),
            Row("auth", "", "`\"peer\"`: the kernel says who connects"),
        ],
    },
    Section {
        title: "cache",
        table: "cache",
        rows: &[
            Row("ttl", "", "How long a value is fresh"),
            Row("max_stale", "", "How long after its last confirmation a value may be served at all"),
            Row("negative_ttl", "", "How long it is remembered that a secret does not exist"),
            Row("max_bytes", "", "All cached names, keys and values together"),
            Row(
                "poll",
                "",
                "Looks for changes where one query covers all secrets (`\"auto\"`), never (`\"off\"`), or also where a \
                 listing tells only of secrets that came and went (`\"on\"`); what no listing covers is asked for at \
                 its ttl",
            ),
            Row("poll_interval", "", "How often"),
            Row("jitter", "", "The share of an interval that is drawn at random"),
            Row(
                "on_identity_failure",
                "",
                "When the agent's own login fails: serve cached values as stale up to `max_stale` (`\"stale\"`), or \
                 nothing (`\"deny\"`)",
            ),
        ],
    },
    Section {
        title: "backend",
        table: "backend",
        rows: &[
            Row("type", "required", "What it is; each type has keys of its own, below"),
            Row("required", "", "Whether the agent is ready only after this back-end has answered"),
            Row("parallelism", "", "Calls at the same time"),
            Row("timeout", "", "How long one call may take"),
            Row("ttl", "that of `[cache]`", "How long its values are fresh"),
            Row("writable", "", "Whether clients may create, update and delete"),
            Row("denied_means_absent", "", "Whether a refusal passes on to the next back-end"),
            Row(
                "allow_plaintext",
                "",
                "Whether an unencrypted network connection is allowed; a file needs none. Loopback always may",
            ),
            Row("ca_file", "none", "A PEM file of further certificate authorities, for a back-end on a network"),
            Row("proxy", "none", "The proxy, for a back-end on a network: `http://host:port` or `https://host:port`"),
            Row("no_proxy", "none", "Hosts, domains and networks that are reached without it, separated by commas"),
        ],
    },
    Section {
        title: "grant",
        table: "grant",
        rows: &[
            Row("uid", "none", "The peer's uid"),
            Row("user", "none", "The same by name, looked up when the configuration is read"),
            Row("gid", "none", "The peer's gid, or one of its supplementary groups"),
            Row("group", "none", "The same by name, likewise"),
            Row("exe", "any", "The peer's program, by the path of the file itself, not of a link to it"),
            Row(
                "cgroup",
                "any",
                "The peer's cgroup, from the root of the hierarchy; `*` stands for any run of characters",
            ),
            Row("read", "", "What may be read"),
            Row("write", "", "What may be written, where the back-end is writable"),
            Row("admin", "", "Refresh, purge and shutdown"),
        ],
    },
    Section {
        title: "limits",
        table: "limits",
        rows: &[
            Row("value", "", "The largest value"),
            Row("request", "", "The largest request body"),
            Row("header", "", "The largest request head"),
            Row("entries", "", "The most secrets in the cache"),
            Row(
                "connections_per_uid",
                "",
                "The most open connections of one uid; lowered to half of the descriptors that the agent may have",
            ),
            Row("watchers_per_uid", "", "The most open watch streams of one uid"),
            Row("grace", "", "How long a stopping agent waits for requests in flight"),
        ],
    },
    Section {
        title: "metrics",
        table: "metrics",
        rows: &[Row(
            "listen",
            "none",
            "Where `/metrics` is served over TCP; host names are refused. The socket always has `/metrics`",
        )],
    },
    Section {
        title: "audit",
        table: "audit",
        rows: &[
            Row(
                "path",
                "none",
                "A file with one JSON line for each decision. Unset: only denials and writes, in the log",
            ),
            Row("required", "", "Whether reading stops while the file cannot be written; needs `path`"),
        ],
    },
    Section {
        title: "exec",
        table: "exec",
        rows: &[
            Row("env", "none", "Variables"),
            Row("secret", "none", "`NAME` or `PREFIX=NAME`, in the order of injection"),
            Row("env_file", "none", "Paths of dotenv files"),
            Row("file", "none", "Files"),
            Row("file_env", "none", "Files whose paths are put into variables"),
            Row("template", "none", "Files, from the paths of templates"),
            Row("secret_files", "none", "Whole secrets as files"),
            Row("files", "`\"auto\"`", "How files are made"),
            Row("files_dir", "by `files`", "The directory of the files"),
            Row("insecure_files", "`false`", "Permits a disk"),
            Row("lenient", "`false`", "Leaves a malformed `{{` in `template` files as it stands"),
            Row("no_resolve_env", "`false`", "Leaves references in the inherited environment alone"),
            Row("on_change", "`[\"ignore\"]`", "What happens when a secret changes; a list, to combine"),
            Row("restart_signal", "`\"TERM\"`", "What ends the step for a restart"),
            Row("restart_grace", "`\"30s\"`", "How long it may take to end, before SIGKILL"),
            Row("debounce", "`\"2s\"`", "How long changes are collected before anything happens"),
            Row("splay", "`\"0s\"`", "A random delay of at most this, so that not all steps restart at once"),
            Row("mask", "`false`", "Hides values in the step's output"),
            Row("init", "`\"auto\"`", "The duties of PID 1"),
            Row("wait", "`\"30s\"`", "How long to wait for the agent; `\"0\"`: one attempt"),
            Row("timeout", "`\"15s\"`", "How long one resolve may take"),
            Row("pristine", "`false`", "Starts from an empty environment"),
            Row("user", "none", "Whom the step runs as"),
            Row("chdir", "none", "The step's working directory"),
            Row("report", "none", "A file for failures, as JSON"),
            Row("unavailable_exit", "125", "The exit code when only transient failures stood in the way of the start"),
            Row("agent", "`\"auto\"`", "A socket, or a private agent"),
            Row("agent_uid", "none", "Whom to trust as server beside root and oneself"),
        ],
    },
];

/// Names the type of a value, in the words of the page's section on values.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Form { .. } => "text",
        Kind::Path | Kind::Socket => "path",
        Kind::Duration { .. } => "duration",
        Kind::Size => "size",
        Kind::Count { .. } => "integer",
        Kind::Share => "number",
        Kind::Switch => "boolean",
        Kind::Level | Kind::Word { .. } => "word",
        Kind::Mode => "mode",
        Kind::Texts | Kind::Forms { .. } => "list of texts",
        Kind::OneOrMore { .. } => "text, or a list of them",
        Kind::Accounts => "text, or a list of them",
        Kind::Ids => "integer, or a list of them",
        Kind::Patterns => "list of patterns",
        Kind::TextTable => "table of texts",
        Kind::TemplateTable => "table of templates",
        Kind::Inline(_) | Kind::Later => "not due",
    }
}

/// Says which values of the type are right, where that is not all of them.
fn bounds_of(kind: Kind) -> Option<String> {
    let words = |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Socket => Some("fewer than 108 bytes".to_owned()),
        Kind::Duration { zero: false } => Some("longer than 0".to_owned()),
        Kind::Size => Some("larger than 0".to_owned()),
        Kind::Count { least, most } => Some(format!("{least} to {most}")),
        Kind::Share => Some("0 to 1".to_owned()),
        Kind::Level => Some(words(&["NONE", "SECRET_EXISTS", "SECRET_AND_KEY_EXISTS"])),
        Kind::Word { due, .. } => Some(words(due)),
        Kind::Form { expected, .. } | Kind::Forms { expected, .. } | Kind::OneOrMore { expected, .. } => {
            // What is to be written stands in quotes there, as code here.
            let parts = expected.split('"').enumerate();
            Some(
                parts.map(|(nth, part)| if nth % 2 == 1 { format!("`\"{part}\"`") } else { part.to_owned() }).collect(),
            )
        }
        _ => None,
    }
}

fn rendered<'r>(table: &str, rows: impl IntoIterator<Item = &'r Row>) -> String {
    let table = schema::table(table).expect("a table of the schema");
    let mut text = "| key | type | allowed | default | |\n|---|---|---|---|---|\n".to_owned();
    for Row(name, unset, about) in rows {
        let key = table.key(name).unwrap_or_else(|| panic!("{name} is no key of {}", table.name));
        assert!(!about.is_empty() && !about.ends_with('.') && unset.is_empty() == key.default.is_some(), "{name}");
        let default = key.default.map_or_else(|| (*unset).to_owned(), |default| format!("`{default}`"));
        let bounds = bounds_of(key.kind).unwrap_or_default();
        text += &format!("| `{name}` | {} | {bounds} | {default} | {about} |\n", type_of(key.kind));
    }
    text
}

/// What is known and refused, as a list.
fn not_yet() -> String {
    let tables: Vec<String> =
        TABLES.iter().filter(|table| table.shape == Shape::Later).map(|table| format!("`[{}]`", table.name)).collect();
    let mut text = format!("* the tables {};\n", tables.join(", "));
    for table in TABLES {
        let title =
            if table.shape == Shape::Keyed { format!("[{}.NAME]", table.name) } else { format!("[{}]", table.name) };
        let keys = table.keys.iter().filter(|key| matches!(key.kind, Kind::Later)).map(|key| format!("`{}`", key.name));
        let words = table.keys.iter().filter_map(|key| match key.kind {
            Kind::Word { later, .. } if !later.is_empty() => {
                let words: Vec<String> = later.iter().map(|word| format!("`\"{word}\"`")).collect();
                Some(format!("`{}` = {}", key.name, words.join(", ")))
            }
            _ => None,
        });
        let later: Vec<String> = words.chain(keys).collect();
        // A profile has the keys of [exec].
        if !later.is_empty() && table.name != "profile" {
            text += &format!("* in `{title}`: {};\n", later.join("; "));
        }
    }
    text
}

/// Replaces what stands between the markers; the page must have each of them.
fn replaced(page: &str, begin: &str, content: &str) -> String {
    const END: &str = "<!-- end of keys -->";
    let (before, rest) = page.split_once(begin).unwrap_or_else(|| panic!("the page has no `{begin}`"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("`{begin}` has no end"));
    format!("{before}{begin}\n\n{content}\n{END}{after}")
}

#[test]
fn the_reference_page_is_what_the_schema_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let mut made = page.clone();
    for section in SECTIONS {
        let content = rendered(section.table, section.rows);
        made = replaced(&made, &format!("<!-- keys of {} -->", section.title), &content);
    }
    for section in TYPES {
        let content = rendered("backend", section.rows.iter().chain(section.shared));
        made = replaced(&made, &format!("<!-- keys of backend of type {} -->", section.kind), &content);
    }
    made = replaced(&made, "<!-- keys of later versions -->", &not_yet());
    if std::env::var_os("KEYSIDE_BLESS").is_some() {
        std::fs::write(&path, made).expect("written");
        return;
    }
    let differs = page.lines().zip(made.lines()).find(|(page, made)| page != made);
    assert!(
        page == made,
        "docs/configuration.md is not what the schema says; run this test with KEYSIDE_BLESS=1. First: {differs:#?}"
    );
}

#[test]
fn every_key_that_is_due_is_described_once_and_no_other() {
    let mut described = BTreeSet::new();
    let mut describe = |title: String, Row(name, ..): &Row| {
        assert!(described.insert((title.clone(), *name)), "{name} of {title} is described twice");
    };
    for section in SECTIONS {
        section.rows.iter().for_each(|row| describe(section.table.to_owned(), row));
    }
    for section in TYPES {
        let rows = section.rows.iter().chain(section.shared);
        rows.for_each(|row| describe(of_type(section.kind), row));
    }
    let mut due = BTreeSet::new();
    // A profile has the keys of [exec].
    for table in TABLES.iter().filter(|table| table.name != "profile") {
        for key in table.keys.iter().filter(|key| type_of(key.kind) != "not due") {
            let kinds = if table.name == "backend" { schema::types_of(key.name) } else { Vec::new() };
            if kinds.is_empty() {
                due.insert((table.name.to_owned(), key.name));
            }
            due.extend(kinds.into_iter().map(|kind| (of_type(kind), key.name)));
        }
    }
    let missing: Vec<_> = due.difference(&described).collect();
    let extra: Vec<_> = described.difference(&due).collect();
    assert!(missing.is_empty() && extra.is_empty(), "without a description: {missing:?}; not due: {extra:?}");
}

fn of_type(kind: &str) -> String {
    format!("backend of type {kind}")
}
