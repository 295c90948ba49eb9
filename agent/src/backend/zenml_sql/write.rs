//! Writing as ZenML 0.80 and later writes: one transaction a call, so that a reader sees all of it or nothing.

use std::sync::Arc;

use keyside_protocol::name::{check_key, check_name};
use keyside_protocol::value::{SecretValue, SecretValues};
use zeroize::Zeroize as _;

use super::super::{BackendError, Description, Scope, Scopes, Update, WriteError};
use super::connection::{Bound, Connection, Dialect, VALUES};
use super::error::Doing;
use super::read::{IN_DOUBT, Row, Stored, View, choose, stored_values};
use super::tables::Tables;
use super::{ZenmlSql, timestamp};
use crate::layout::zenml::{EncodeError, NONCE_BYTES, encode};

/// The column `values` as ZenML binds it: base64 text; plain ones become a BLOB and encrypted ones TEXT.
struct Encoded {
    text: Arc<str>,
    as_blob: bool,
}

impl Encoded {
    /// The SQL for the column, when `text` is bound as `?1`.
    fn sql(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite if self.as_blob => "CAST(?1 AS BLOB)",
            // A server makes text of either.
            _ => "?1",
        }
    }

    fn bound(&self) -> Bound<'static> {
        Bound::Secret(Arc::clone(&self.text))
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        // The statement's own reference is gone once it has ended.
        if let Some(text) = Arc::get_mut(&mut self.text) {
            text.zeroize();
        }
    }
}

fn keys_of(values: &SecretValues) -> Vec<String> {
    values.keys().map(str::to_owned).collect()
}

impl ZenmlSql {
    pub(super) async fn create_secret(
        &self,
        name: &str,
        scope: Scope,
        values: SecretValues,
    ) -> Result<Description, WriteError> {
        valid_name(name)?;
        for key in values.keys() {
            valid_key(key)?;
        }
        let keys = keys_of(&values);
        let encoded = self.encode(&values)?;
        let mut connection = self.connections.writer().await?;
        let created = self.insert(&mut connection, name, scope, &encoded).await;
        connection.close().await;
        created.map(|created| Description { keys: Some(keys), ..created })
    }

    async fn insert(
        &self,
        connection: &mut Connection,
        name: &str,
        scope: Scope,
        encoded: &Encoded,
    ) -> Result<Description, WriteError> {
        let view = self.begin(name, connection).await?;
        let owner = self.new_owner(connection, &view, scope).await?;
        self.refuse_clash(connection, name, scope, &owner, "").await?;
        let now = if view.whole_seconds { timestamp::now_in_whole_seconds(None) } else { timestamp::now() };
        let row = Row { id: new_id(), name: name.to_owned(), scope, created: now.clone(), updated: now, empty: false };
        let (internal, zero) = if view.era.has_internal() { (", internal", ", 0") } else { ("", "") };
        let value = encoded.sql(connection.dialect());
        let sql = format!(
            "INSERT INTO secret ({VALUES}, id, created, updated, name, private, user_id{internal}) \
             VALUES ({value}, ?2, ?3, ?3, ?4, ?5, ?6{zero})"
        );
        let bound = [
            encoded.bound(),
            Bound::Text(&row.id),
            Bound::Text(&row.created),
            Bound::Text(&row.name),
            Bound::Number(number(scope)),
            Bound::Text(&owner),
        ];
        connection.execute(&sql, &bound).await.map_err(|error| self.place.write_failure(name, &error))?;
        self.commit(name, connection, &view, Some(&row)).await?;
        Ok(row.describe(view.era))
    }

    pub(super) async fn update_secret(
        &self,
        name: &str,
        scope: Option<Scope>,
        update: Update,
    ) -> Result<Description, WriteError> {
        if let Some(name) = &update.rename {
            valid_name(name)?;
        }
        let mut connection = self.connections.writer().await?;
        let updated = self.change(&mut connection, name, scope, update).await;
        connection.close().await;
        updated
    }

    async fn change(
        &self,
        connection: &mut Connection,
        name: &str,
        scope: Option<Scope>,
        update: Update,
    ) -> Result<Description, WriteError> {
        let view = self.begin(name, connection).await?;
        let (row, stored) = self.find(connection, &view, name, scope, update.if_version.as_deref()).await?;
        let changed = Row {
            id: row.id.clone(),
            name: update.rename.unwrap_or_else(|| name.to_owned()),
            scope: update.scope.unwrap_or(row.scope),
            created: row.created.clone(),
            updated: match view.whole_seconds {
                true => timestamp::now_in_whole_seconds(Some(&row.updated)),
                false => timestamp::now_unlike(&row.updated),
            },
            empty: row.empty && update.values.is_empty(),
        };
        if changed.name != row.name || changed.scope != row.scope {
            let owner = self.owner(connection, &row).await?;
            if changed.scope != row.scope {
                self.refuse_foreign_owner(&view, &row, &owner)?;
            }
            self.refuse_clash(connection, &changed.name, changed.scope, &owner, &row.id).await?;
        }
        let sql = "UPDATE secret SET name = ?2, private = ?3, updated = ?4 WHERE id = ?1";
        let bound = [
            Bound::Text(&changed.id),
            Bound::Text(&changed.name),
            Bound::Number(number(changed.scope)),
            Bound::Text(&changed.updated),
        ];
        let done = connection.execute(sql, &bound).await;
        done.map_err(|error| self.place.write_failure(&changed.name, &error))?;
        let mut keys = None;
        if !update.values.is_empty() {
            let values = self.merge(&row, stored, update.values)?;
            keys = Some(keys_of(&values));
            let encoded = self.encode(&values)?;
            let sql = format!("UPDATE secret SET {VALUES} = {} WHERE id = ?2", encoded.sql(connection.dialect()));
            let bound = [encoded.bound(), Bound::Text(&changed.id)];
            connection.execute(&sql, &bound).await.map_err(|error| self.place.write_failure(name, &error))?;
        }
        self.commit(name, connection, &view, Some(&changed)).await?;
        Ok(Description { keys, ..changed.describe(view.era) })
    }

    pub(super) async fn delete_secret(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        let mut connection = self.connections.writer().await?;
        let deleted = self.remove(&mut connection, name, scope, if_version).await;
        connection.close().await;
        deleted
    }

    async fn remove(
        &self,
        connection: &mut Connection,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        let view = self.begin(name, connection).await?;
        let (row, _) = self.find(connection, &view, name, scope, if_version).await?;
        // The links in `secret_resource` go by the table's own cascade.
        let done = connection.execute("DELETE FROM secret WHERE id = ?1", &[Bound::Text(&row.id)]).await;
        done.map_err(|error| self.place.write_failure(name, &error))?;
        self.commit(name, connection, &view, None).await?;
        Ok(row.describe(view.era))
    }

    /// Begins a transaction, in which what is read cannot change before it is written. Ending the connection undoes it,
    /// and is waited for, so that no lock outlives the answer.
    async fn begin(&self, name: &str, connection: &mut Connection) -> Result<View, WriteError> {
        connection.begin().await.map_err(|error| self.place.write_failure(name, &error))?;
        let view = View { for_update: true, ..self.view(connection).await? };
        if view.era.has_workspaces() {
            return Err(WriteError::Invalid {
                what: format!("back-end `{}` is read-only: its tables are of a ZenML before 0.80", self.place.backend),
                hint: Some("write with that ZenML, or upgrade it".into()),
            });
        }
        Ok(view)
    }

    async fn commit(
        &self,
        name: &str,
        connection: &mut Connection,
        view: &View,
        written: Option<&Row>,
    ) -> Result<(), WriteError> {
        connection.commit().await.map_err(|error| self.place.write_failure(name, &error))?;
        // In whole seconds somebody else's change may look like ours.
        if let Some(row) = written.filter(|_| !view.whole_seconds) {
            self.own_writes.remember(row.version());
        }
        Ok(())
    }

    /// The one row that a write means, with its values.
    async fn find(
        &self,
        connection: &mut Connection,
        view: &View,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<(Row, Stored), WriteError> {
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let rows = self.rows_named(connection, view, &[name]).await.map_err(failure)?;
        let scopes = match scope {
            Some(Scope::Private) => Scopes::PrivateOnly,
            Some(Scope::Public) => Scopes::PublicOnly,
            None => Scopes::PrivateFirst,
        };
        let row = choose(&rows, name, scopes).ok_or(BackendError::NotFound)?;
        if scope.is_none() && rows.iter().any(|other| other.scope != row.scope) {
            return Err(WriteError::Ambiguous {
                what: format!("there is a private and a public secret `{name}` in back-end `{}`", self.place.backend),
            });
        }
        // What a reader saw while the row was young is the same row.
        if if_version.is_some_and(|wanted| wanted.trim_end_matches(IN_DOUBT) != row.version()) {
            return Err(WriteError::VersionMismatch);
        }
        let stored = stored_values(connection, view, &row.id).await.map_err(failure)?;
        Ok(stored.ok_or(BackendError::NotFound)?)
    }

    /// The id of the user that owns a secret.
    async fn owner(&self, connection: &mut Connection, row: &Row) -> Result<String, WriteError> {
        let rows = connection.rows("SELECT user_id FROM secret WHERE id = ?1", &[Bound::Text(&row.id)]).await;
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        Ok(rows.first().map(|row| row.text(0)).unwrap_or_default())
    }

    fn refused(&self, what: &str, hint: String) -> WriteError {
        WriteError::Invalid { what: format!("back-end `{}` {what}", self.place.backend), hint: Some(hint) }
    }

    /// The id of the user that will own a new secret.
    async fn new_owner(&self, connection: &mut Connection, view: &View, scope: Scope) -> Result<String, WriteError> {
        let hint = format!("set `user` of back-end `{}` to the name or id of a ZenML user", self.place.backend);
        if let Some(user) = &view.user {
            return Ok(user.clone());
        }
        if let Some(user) = &self.user {
            return Err(self.place.identity(&format!("holds no user `{user}`"), hint).into());
        }
        if scope == Scope::Private {
            let what = "cannot say whose a private secret is: no user is configured";
            return Err(self.refused(what, hint));
        }
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let tables = Tables::of(connection).await.map_err(failure)?;
        let sql = if tables.has_service_accounts() {
            "SELECT id, name = 'default' FROM user WHERE is_service_account = 0 ORDER BY 2 DESC LIMIT 2"
        } else {
            "SELECT id, name = 'default' FROM user ORDER BY 2 DESC LIMIT 2"
        };
        let rows = connection.rows(sql, &[]).await.map_err(failure)?;
        match rows.as_slice() {
            [row] => Ok(row.text(0)),
            [row, _] if row.truth(1) => Ok(row.text(0)),
            _ => {
                let what = "cannot say whose a new secret is: no user is configured, and none is called `default`";
                Err(self.refused(what, hint))
            }
        }
    }

    /// ZenML's rule: one public secret of a name, and one private secret of a name for each user. Hidden (`internal`)
    /// secrets count.
    async fn refuse_clash(
        &self,
        connection: &mut Connection,
        name: &str,
        scope: Scope,
        owner: &str,
        except: &str,
    ) -> Result<(), WriteError> {
        let private = scope == Scope::Private;
        let dialect = connection.dialect();
        let whose = if private { "private <> 0 AND user_id = ?3" } else { "private = 0" };
        // As ZenML's own question: whether upper and lower case are the same name, the data base decides.
        let name_column = if dialect == Dialect::Sqlite { dialect.name(true) } else { "name" };
        let sql = format!(
            "SELECT 1 FROM secret WHERE {name_column} = ?1 AND id <> ?2 AND {whose} LIMIT 1{}",
            dialect.for_update()
        );
        let bound = [Bound::Text(name), Bound::Text(except), Bound::Text(owner)];
        let rows = connection.rows(&sql, &bound[..if private { 3 } else { 2 }]).await;
        if rows.map_err(|error| self.place.write_failure(name, &error))?.is_empty() {
            return Ok(());
        }
        let scope = if private { "private" } else { "public" };
        Err(WriteError::Exists(format!("a {scope} secret `{name}` is there already")))
    }

    /// ZenML's rule: only the user who created a secret changes whether it is private.
    fn refuse_foreign_owner(&self, view: &View, row: &Row, owner: &str) -> Result<(), WriteError> {
        match &view.user {
            Some(user) if user == owner => Ok(()),
            Some(_) => Err(WriteError::Backend(BackendError::Denied {
                what: format!("only the user who created secret `{}` may change whether it is private", row.name),
                hint: Some("let that user change it with ZenML".into()),
            })),
            None => Err(WriteError::Backend(self.place.identity(
                "cannot say whose a private secret is: no user is configured",
                format!("set `user` of back-end `{}` to the name or id of a ZenML user", self.place.backend),
            ))),
        }
    }

    fn merge(
        &self,
        row: &Row,
        stored: Stored,
        changes: Vec<(String, Option<SecretValue>)>,
    ) -> Result<SecretValues, WriteError> {
        let mut values = match stored {
            // As ZenML: values that have vanished are made anew. Values that cannot be decoded are left alone, though,
            // where ZenML would overwrite them.
            Stored::Nothing => SecretValues::new(),
            stored => self.decode_stored(row, stored)?,
        };
        for (key, value) in changes {
            match value {
                Some(value) => {
                    valid_key(&key)?;
                    values.insert(key, value);
                }
                None if values.remove(&key).is_none() => return Err(WriteError::KeyNotFound(key)),
                None => {}
            }
        }
        Ok(values)
    }

    fn encode(&self, values: &SecretValues) -> Result<Encoded, WriteError> {
        let invalid = |what: String, hint: &str| WriteError::Invalid { what, hint: Some(hint.into()) };
        if let Some((key, _)) = values.iter().find(|(_, value)| value.len() as u64 > self.max_value) {
            let what = format!("the value of key `{key}` is larger than {} bytes", self.max_value);
            return Err(invalid(what, "raise `[limits] value`"));
        }
        let key = match &self.key {
            Some(key) => {
                let mut nonce = [0; NONCE_BYTES];
                getrandom::fill(&mut nonce).map_err(|_| BackendError::Transient {
                    what: "the system gave no random bytes".into(),
                    hint: Some("try again".into()),
                })?;
                Some((key, nonce))
            }
            None => None,
        };
        let text = encode(values, key).map_err(|error| match error {
            EncodeError::NotText(_) => invalid(error.to_string(), "encode it, as base64 for example"),
            EncodeError::TooLarge(_) => {
                invalid(error.to_string(), "split the secret, or keep files in an artifact store")
            }
        })?;
        // expose: bound to the statement, then wiped by `Encoded`.
        let text = std::str::from_utf8(text.expose()).expect("base64 is ASCII");
        Ok(Encoded { text: Arc::from(text), as_blob: self.key.is_none() })
    }
}

/// The column `private`.
fn number(scope: Scope) -> i64 {
    (scope == Scope::Private).into()
}

fn valid_name(name: &str) -> Result<(), WriteError> {
    check_name(name).map_err(|error| WriteError::Invalid { what: error.to_string(), hint: None })
}

fn valid_key(key: &str) -> Result<(), WriteError> {
    check_key(key).map_err(|error| WriteError::Invalid { what: format!("a key that is {error}"), hint: None })
}

/// A random UUID (version 4) without dashes.
pub(super) fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes once it has booted");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids_of_version_4() {
        let id = new_id();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(id.as_bytes()[12], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[16]), "{id}");
        assert_ne!(id, new_id());
    }
}
