//! `[backend.NAME]`: what the keys of each type mean together.

mod aws;
mod azure;
mod gcp;
mod local;
mod plugin;
pub(crate) mod url;
mod vault;
mod zenml_server;
mod zenml_sql;

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::check::Report;
use crate::environment::Environment;
use crate::key_material;
use crate::settings::{BackendKind, BackendSettings, Layout, ManagerScope, NetworkSettings, SecretText};
use crate::written::{Written, WrittenBackend};

/// Returns every `[backend.*]` that can be used, in no order of precedence yet. Those that only hold another's values
/// are inside that one.
pub(crate) fn all(written: &Written, environment: &Environment, report: &mut Report) -> Vec<BackendSettings> {
    let mut backends = Vec::new();
    for (name, backend) in &written.backend {
        if let Some(settings) = (Reader { name, written: backend, environment, report }).read() {
            backends.push(settings);
        }
    }
    zenml_sql::attach(backends, written, report)
}

/// Returns the names of the back-ends that only hold another's values: a `precedence` may leave them out.
pub(crate) fn attached(written: &Written) -> Vec<&str> {
    let sql = written.backend.iter().filter(|(_, backend)| backend.kind.as_deref() == Some("zenml-sql"));
    let named = sql.flat_map(|(name, backend)| {
        // One that names itself means its own tables.
        ["values", "backup"].map(|key| backend.text(key).filter(|holder| holder != name))
    });
    named.flatten().collect()
}

/// One back-end as it is being read.
struct Reader<'a> {
    name: &'a str,
    written: &'a WrittenBackend,
    environment: &'a Environment,
    report: &'a mut Report,
}

impl<'a> Reader<'a> {
    fn read(mut self) -> Option<BackendSettings> {
        // A type that is missing or wrong says nothing about the other keys.
        let Some(kind) = self.written.kind.as_deref() else {
            self.required("type");
            return None;
        };
        self.refuse_foreign(kind);
        let network = self.network();
        let kind = match kind {
            "zenml-server" => zenml_server::read(&mut self),
            "zenml-sql" => zenml_sql::read(&mut self),
            "aws" => aws::read(&mut self),
            "gcp" => gcp::read(&mut self),
            "azure" => azure::read(&mut self),
            "vault" => vault::read(&mut self),
            "plugin" => plugin::read(&mut self),
            _ => local::read(&mut self),
        };
        let written = self.written;
        kind.map(|kind: BackendKind| BackendSettings {
            name: self.name.to_owned(),
            kind,
            required: written.required,
            parallelism: written.parallelism,
            timeout: written.timeout.0,
            ttl: written.ttl.map(|ttl| ttl.0),
            writable: written.writable,
            denied_means_absent: written.denied_means_absent,
            network,
        })
    }

    /// Reports a mistake in one of the keys.
    fn mistake(&mut self, key: &str, what: impl std::fmt::Display) {
        let title = format!("`{key}` in [backend.{}]", self.name);
        self.report.mistake_at(&["backend", self.name, key], format!("{title}: {what}"));
    }

    /// Tells whether a key was written, rightly or wrongly.
    fn is_written(&self, key: &str) -> bool {
        self.report.place(&["backend", self.name, key]).is_some()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.written.text(key)
    }

    /// Returns the word under a key that has a default; `None` where a wrong one was reported.
    fn word(&self, key: &str) -> Option<&'a str> {
        if self.report.is_wrong(&["backend", self.name, key]) { None } else { self.text(key) }
    }

    fn owned(&self, key: &str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    /// Returns a text that must be there; a wrong one has been reported already.
    fn required(&mut self, key: &str) -> Option<&'a str> {
        let text = self.text(key);
        if text.is_none() && !self.is_written(key) {
            self.report.mistake_at(&["backend", self.name], format!("[backend.{}] has no `{key}`", self.name));
        }
        text
    }

    /// Reports the keys that belong to other types of back-end.
    fn refuse_foreign(&mut self, kind: &str) {
        let is_foreign = |key: &&str| !crate::schema::has_meaning(key, kind);
        let foreign: Vec<String> =
            self.report.keys_of("backend", self.name).filter(is_foreign).map(str::to_owned).collect();
        self.no_meaning(&foreign, &format!("\"{kind}\" back-end"));
    }

    /// Reports keys that say nothing here.
    fn no_meaning(&mut self, keys: &[String], what: &str) {
        for key in keys {
            let what = format!("`{key}` in [backend.{}] has no meaning for a {what}", self.name);
            self.report.mistake_at(&["backend", self.name, key], what);
        }
    }

    /// Reports those of `keys` that were written although `what` has no use for them.
    fn refuse(&mut self, keys: &[&str], what: &str) {
        let written: Vec<String> =
            keys.iter().filter(|key| self.is_written(key)).map(|key| (*key).to_owned()).collect();
        self.no_meaning(&written, what);
    }

    fn network(&mut self) -> NetworkSettings {
        let written = self.written;
        if let Some(proxy) = &written.proxy
            && let Err(what) = url::proxy(proxy)
        {
            self.mistake("proxy", what);
        }
        NetworkSettings {
            allow_plaintext: written.allow_plaintext,
            ca_file: written.ca_file.as_ref().map(PathBuf::from),
            ca_text: None,
            proxy: written.proxy.clone().map(Zeroizing::new),
            no_proxy: written.no_proxy.clone(),
        }
    }

    /// Returns the address under `key` without a slash at its end; TLS is due off this machine.
    fn address(&mut self, key: &str, text: &str) -> Option<String> {
        match url::address(text, self.written.allow_plaintext) {
            Ok(address) => Some(address),
            Err(what) => {
                self.mistake(key, what);
                None
            }
        }
    }

    /// Returns the secret that one of `<key>_env`, `<key>_file` and `<key>_credential` points at; two of them are a
    /// mistake. The outer `None` says that it was reported.
    #[expect(clippy::option_option, reason = "the outer one is a mistake, the inner one an absence")]
    fn secret(&mut self, key: &str) -> Option<Option<SecretText>> {
        let names = ["env", "file", "credential"].map(|kind| format!("{key}_{kind}"));
        let mut given = names.iter().filter_map(|setting| Some((setting, self.text(setting)?)));
        let Some((setting, value)) = given.next() else {
            return names.iter().all(|setting| !self.is_written(setting)).then_some(None);
        };
        let others: Vec<&String> = given.map(|(other, _)| other).collect();
        let words = key.replace('_', " ");
        for other in others {
            let title = self.name;
            let what = format!("`{other}` in [backend.{title}] names a second {words} beside `{setting}`; keep one");
            self.report.mistake_at(&["backend", title, other], what);
        }
        let environment = self.environment;
        let read = match setting.rsplit('_').next() {
            Some("env") => key_material::from_variable(setting, value, environment),
            Some("file") => key_material::from_file(setting, value.as_ref(), &mut self.report.files),
            _ => key_material::from_credential(setting, value, environment, &mut self.report.files),
        };
        match read {
            Ok(text) => Some(Some(text)),
            Err(what) => {
                self.mistake(setting, what);
                None
            }
        }
    }

    /// Returns the layout; `namespace` is the key that names a secrets manager's name space.
    fn layout(&mut self, namespace: &str) -> Option<Layout> {
        // What goes with a layout that is wrong cannot be told.
        let layout = self.word("layout")?;
        let manager: &[&str] = &["scope", "component"];
        match layout {
            "manager" => self.refuse(&["prefix"], "layout \"manager\""),
            "plain" => self.refuse(manager, "layout \"plain\""),
            _ => self.refuse(&["scope", "component", "prefix"], "layout \"store\""),
        }
        if layout != "manager" {
            self.refuse(&[namespace], &format!("layout \"{layout}\""));
        }
        match layout {
            "plain" => Some(Layout::Plain { prefix: self.owned("prefix").unwrap_or_default() }),
            "manager" => self.scope(namespace).map(Layout::Manager),
            _ => Some(Layout::Store),
        }
    }

    fn scope(&mut self, namespace: &str) -> Option<ManagerScope> {
        let scope = self.word("scope")?;
        let unused: &[&str] = match scope {
            "component" => &[namespace],
            "namespace" => &["component"],
            _ => &[namespace, "component"],
        };
        self.refuse(unused, &format!("secrets manager of scope \"{scope}\""));
        match scope {
            "global" => Some(ManagerScope::Global),
            "component" => self.required("component").map(|id| ManagerScope::Component(id.to_owned())),
            "namespace" => self.required(namespace).map(|name| ManagerScope::Namespace(name.to_owned())),
            _ => Some(ManagerScope::None),
        }
    }
}
