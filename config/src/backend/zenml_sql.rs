//! `type = "zenml-sql"`.

use super::Reader;
use super::url::Store;
use crate::check::Report;
use crate::settings::{
    AwsRole, BackendKind, BackendSettings, Backup, Layout, MysqlSettings, Pem, RdsIam, SqlDatabase, ZenmlSqlSettings,
};
use crate::written::Written;

/// The keys of a server of MySQL whose user has a password.
const PASSWORD: &[&str] = &["password_env", "password_file", "password_credential"];

/// The other keys that only such a server has.
const OF_A_SERVER: &[&str] = &["iam_region", "iam_role_arn", "ssl_ca", "ssl_cert", "ssl_key"];

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let store = reader.required("url").and_then(|url| match super::url::store(url) {
        Ok(store) => Some(store),
        Err(what) => {
            reader.mistake("url", what);
            None
        }
    });
    if matches!(store, None | Some(Store::Sqlite(_))) && !reader.text("url").is_some_and(super::url::is_mysql) {
        reader.refuse(&[PASSWORD, OF_A_SERVER].concat(), "\"zenml-sql\" back-end on SQLite");
    }
    let encryption_key = reader.secret("encryption_key");
    let database = match store? {
        Store::Sqlite(path) => SqlDatabase::Sqlite(path),
        Store::Mysql(server) => {
            if server.password.is_some() {
                reader
                    .mistake("url", "holds a password, which never stands here; use `password_env` or `password_file`");
                return None;
            }
            let pem = |key: &str| reader.text(key).map(|path| Pem::File(path.into()));
            let (ssl_ca, ssl_cert, ssl_key) = (pem("ssl_ca"), pem("ssl_cert"), pem("ssl_key"));
            if ssl_cert.is_some() != ssl_key.is_some() {
                let (there, missing) =
                    if ssl_cert.is_some() { ("ssl_cert", "ssl_key") } else { ("ssl_key", "ssl_cert") };
                reader.mistake(there, format!("needs `{missing}` beside it"));
                return None;
            }
            let iam = iam(reader);
            let password = reader.secret("password")?;
            SqlDatabase::Mysql(Box::new(MysqlSettings {
                host: server.host,
                port: server.port,
                user: server.user,
                password,
                database: server.database,
                ssl_ca,
                ssl_cert,
                ssl_key,
                verify: true,
                iam,
            }))
        }
    };
    Some(BackendKind::ZenmlSql(Box::new(ZenmlSqlSettings {
        database,
        encryption_key: encryption_key?,
        user: reader.owned("user"),
        user_required: reader.text("user").is_some(),
        workspace: reader.owned("workspace"),
        values: None,
        backup: None,
    })))
}

/// Returns the login by IAM, where there is one.
fn iam(reader: &mut Reader<'_>) -> Option<RdsIam> {
    let role = reader.owned("iam_role_arn").map(|arn| AwsRole::ByChain { arn });
    let Some(region) = reader.owned("iam_region") else {
        if role.is_some() && !reader.is_written("iam_region") {
            reader.mistake("iam_role_arn", "needs `iam_region` beside it");
        }
        return None;
    };
    reader.refuse(PASSWORD, "login by IAM (`iam_region`)");
    Some(RdsIam { region, role })
}

/// Moves the back-ends that `values` and `backup` name into the one that names them; one that names itself means its own
/// tables.
pub(super) fn attach(
    mut backends: Vec<BackendSettings>,
    written: &Written,
    report: &mut Report,
) -> Vec<BackendSettings> {
    for (name, backend) in &written.backend {
        if backend.kind.as_deref() != Some("zenml-sql") {
            continue;
        }
        for key in ["values", "backup"] {
            let Some(holder) = backend.text(key) else { continue };
            let path = ["backend", name, key];
            let mut mistake = |what: String| report.mistake_at(&path, format!("`{key}` in [backend.{name}] {what}"));
            if holder == name {
                match key {
                    "backup" if backend.text("values").is_some() => {
                        if let Some(sql) = sql_of(&mut backends, name) {
                            sql.backup = Some(Backup::Tables);
                        }
                    }
                    "backup" => {
                        mistake("names itself, but its tables hold the values already; a backup lies elsewhere".into())
                    }
                    _ => mistake("names itself; leave it out where the values lie in its own tables".into()),
                }
                continue;
            }
            let shown = crate::mistake::shown(holder);
            match written.backend.get(holder).map(|holder| holder.kind.as_deref()) {
                None => {
                    mistake(format!("names `{shown}`, but there is no [backend.{shown}]"));
                    continue;
                }
                Some(Some("aws" | "gcp" | "azure" | "vault")) => {}
                // A type that is missing or wrong has been reported.
                Some(None) => continue,
                Some(Some(_)) => {
                    let what =
                        "which cannot hold values by id; name one of type \"aws\", \"gcp\", \"azure\" or \"vault\"";
                    mistake(format!("names `{shown}`, {what}"));
                    continue;
                }
            }
            let Some(at) = backends.iter().position(|other| other.name == holder) else {
                // Not usable, which has been reported, or named by two.
                let named = super::attached(written).into_iter().filter(|other| *other == holder).count();
                if named > 1 {
                    mistake(format!("names `{shown}`, which holds another's values already; give each its own"));
                }
                continue;
            };
            let held = backends.remove(at);
            if !held.kind.layout().is_some_and(|layout| *layout == Layout::Store) {
                mistake(format!("names `{shown}`, whose `layout` must be \"store\" for that"));
                continue;
            }
            let Some(sql) = sql_of(&mut backends, name) else { continue };
            match key {
                "values" => sql.values = Some(held),
                _ => sql.backup = Some(Backup::Backend(Box::new(held))),
            }
        }
    }
    backends
}

/// Returns the settings of the back-end of this name, unless it is not usable, which has been reported.
fn sql_of<'a>(backends: &'a mut [BackendSettings], name: &str) -> Option<&'a mut ZenmlSqlSettings> {
    match backends.iter_mut().find(|backend| backend.name == name).map(|backend| &mut backend.kind) {
        Some(BackendKind::ZenmlSql(sql)) => Some(sql),
        _ => None,
    }
}
