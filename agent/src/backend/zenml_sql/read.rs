//! Reading: single short statements, none inside a transaction, values only where they are wanted.

use std::collections::HashMap;

use keyside_protocol::json::{SecretBuffer, push_string};
use keyside_protocol::value::SecretValues;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use tokio::time::{Duration, sleep};

use super::super::{BackendError, Description, Scope, Scopes, Secret};
use super::era::{Columns, Era};
use super::error::Doing;
use super::sqlite::{NAMES_PER_STATEMENT, PAGE_ROWS, text, truth};
use super::{ZenmlSql, timestamp};
use crate::layout::zenml::{DecodeError, decode};

/// Largest stored form that is read, in bytes: the size of ZenML's column.
const MAX_STORED: i64 = 16 * 1024 * 1024;

/// ZenML commits a change of `updated` and the new values one after the other. Values read this soon after `updated`
/// may still be the old ones, and would pass for the new ones until they expire, so they are read once more.
const SETTLE: Duration = Duration::from_millis(250);

/// How long after its `updated` a row may still miss the values that belong to it: ZenML may have had to wait for a lock
/// in between.
const DOUBT: Duration = Duration::from_secs(5);

/// Ends the version of a secret that was read while its row was young.
pub(super) const IN_DOUBT: char = '~';

/// Between two looks at a row that has no values yet.
const CREATION_PAUSE: Duration = Duration::from_millis(100);

/// How often a fetch starts again when the row changes under it.
const ATTEMPTS: usize = 20;

/// Whose secrets are visible, in which shape of tables.
pub(super) struct View {
    pub(super) era: Era,
    /// The configured user's id, without dashes.
    pub(super) user: Option<String>,
    /// Before 0.80.
    pub(super) workspace: Option<String>,
}

/// One secret without its values.
#[derive(Debug)]
pub(super) struct Row {
    /// Without dashes.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) created: String,
    pub(super) updated: String,
    /// Whether the values are elsewhere: NULL or the empty string, which ZenML takes for the same.
    pub(super) empty: bool,
}

/// What the rows are chosen by, as SQL.
enum Filter<'a> {
    /// `?3` is a JSON array of names.
    Names(&'a str),
    /// Rows with `?4 < id <= ?5`.
    Page(&'a str, &'a str),
    /// Both.
    NamesInPage(&'a str, &'a str, &'a str),
}

impl Row {
    pub(super) fn describe(&self, era: Era) -> Description {
        Description {
            name: self.name.clone(),
            scope: self.scope,
            scope_label: Some(era.label(self.scope)),
            id: Some(dashed(&self.id)),
            version: self.version(),
            keys: None,
        }
    }

    /// Changes with every change that ZenML makes: it sets `updated` each time, except where a back-up moves values
    /// away or back.
    pub(super) fn version(&self) -> String {
        let empty = if self.empty { ":moved" } else { "" };
        let updated = timestamp::short(&self.updated).unwrap_or_else(|| self.updated.replace(' ', "T"));
        format!("{}:{updated}{empty}", dashed(&self.id))
    }
}

/// The answer for a secret that somebody was writing all the time that we looked.
pub(super) fn being_written(backend: &str, name: &str) -> BackendError {
    BackendError::Transient {
        what: format!("back-end `{backend}`: secret `{name}` is being written"),
        hint: Some("try again".into()),
    }
}

impl ZenmlSql {
    pub(super) async fn read_secret(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let mut reader = self.connections.reader().await?;
        let secret = self.read_secret_with(&mut reader.connection, name, scopes).await;
        if matches!(secret, Ok(_) | Err(BackendError::NotFound)) {
            self.connections.keep(reader).await;
        }
        secret
    }

    async fn read_secret_with(
        &self,
        connection: &mut SqliteConnection,
        name: &str,
        scopes: Scopes,
    ) -> Result<Secret, BackendError> {
        let mut settled = false;
        for _ in 0..ATTEMPTS {
            let view = self.view(connection).await?;
            let found = self.rows_named(connection, &view, &[name]).await;
            let found = found.map_err(|error| self.place.failure(Doing::Reading, &error))?;
            let Some(row) = choose(&found, name, scopes) else { return Err(BackendError::NotFound) };
            let stored = stored_values(connection, &view, &row.id).await;
            let stored = stored.map_err(|error| self.place.failure(Doing::Reading, &error))?;
            // Renamed, moved to another scope or deleted since: look again.
            let Some((row, stored)) = stored.filter(|(now, _)| now.name == name && now.scope == row.scope) else {
                continue;
            };
            let age = timestamp::age(&row.updated).unwrap_or(SETTLE);
            if age < SETTLE && !settled && !self.own_writes.contains(&row.version()) {
                settled = true;
                sleep(SETTLE - age).await;
                continue;
            }
            let young = age < DOUBT && !self.own_writes.contains(&row.version());
            if young && matches!(stored, Stored::Nothing) {
                // ZenML commits a new row before its values.
                sleep(CREATION_PAUSE).await;
                continue;
            }
            let values = self.decode_stored(&row, stored)?;
            self.check_sizes(name, &values)?;
            let mut description = row.describe(view.era);
            if young {
                // On a busy machine the values may still be on their way. A version that no listing shows makes change
                // detection read the row again until it is past doubt.
                description.version.push(IN_DOUBT);
            }
            return Ok(Secret { description, values });
        }
        Err(being_written(&self.place.backend, name))
    }

    pub(super) async fn describe_secrets(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Option<Description>>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let connection = &mut reader.connection;
        let view = self.view(connection).await?;
        let rows = self.rows_named(connection, &view, names).await;
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        let mut by_name: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in &rows {
            by_name.entry(&row.name).or_default().push(row);
        }
        let describe = |name: &&str| {
            let rows = by_name.get(name)?;
            choose(rows.iter().copied(), name, scopes).map(|row| row.describe(view.era))
        };
        let descriptions = names.iter().map(describe).collect();
        self.connections.keep(reader).await;
        Ok(descriptions)
    }

    pub(super) async fn list_secrets(&self) -> Result<Vec<Description>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let view = self.view(&mut reader.connection).await?;
        let rows = pages(&mut reader.connection, &view, None).await;
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        self.connections.keep(reader).await;
        // Where two rows have one name and scope, which only the older tables allow, the one that resolves is listed.
        let mut oldest: HashMap<(&str, Scope), &Row> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let first = oldest.entry((&row.name, row.scope)).or_insert(row);
            if age_order(row) < age_order(first) {
                *first = row;
            }
        }
        Ok(oldest.into_values().map(|row| row.describe(view.era)).collect())
    }

    /// Finds out what the tables look like and whom the settings mean, each time anew: a migration or a new user
    /// shows at the next call.
    pub(super) async fn view(&self, connection: &mut SqliteConnection) -> Result<View, BackendError> {
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let (secret, user) = columns(connection).await.map_err(failure)?;
        let era = Era::of(&secret).ok_or_else(|| self.place.no_table(secret.is_empty()))?;
        let user = match &self.user {
            Some(wanted) => self.find_user(connection, &user, wanted).await?,
            None => None,
        };
        let workspace = if era.has_workspaces() { Some(self.find_workspace(connection).await?) } else { None };
        Ok(View { era, user, workspace })
    }

    async fn find_user(
        &self,
        connection: &mut SqliteConnection,
        columns: &Columns,
        wanted: &str,
    ) -> Result<Option<String>, BackendError> {
        // A person and a service account may have one name: the person is meant.
        let sql = if columns.iter().any(|(name, _)| name == "is_service_account") {
            "SELECT id FROM user WHERE id = ?1 OR name COLLATE BINARY = ?2 \
             ORDER BY id = ?1 DESC, is_service_account LIMIT 1"
        } else {
            "SELECT id FROM user WHERE id = ?1 OR name COLLATE BINARY = ?2 ORDER BY id = ?1 DESC LIMIT 1"
        };
        let rows = sqlx::query(sql).bind(undashed(wanted)).bind(wanted).fetch_all(connection).await;
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        match rows.first() {
            Some(row) => Ok(Some(text(row, 0))),
            None if self.user_required => Err(self.place.identity(
                &format!("holds no user `{wanted}`"),
                format!("set `user` of back-end `{}` to the name or id of a ZenML user", self.place.backend),
            )),
            None => Ok(None),
        }
    }

    async fn find_workspace(&self, connection: &mut SqliteConnection) -> Result<String, BackendError> {
        let hint =
            || format!("set `workspace` of back-end `{}` to the name or id of a ZenML workspace", self.place.backend);
        let rows = match &self.workspace {
            Some(wanted) => {
                let sql = "SELECT id, name FROM workspace WHERE id = ?1 OR name COLLATE BINARY = ?2 \
                           ORDER BY id = ?1 DESC LIMIT 1";
                sqlx::query(sql).bind(undashed(wanted)).bind(wanted).fetch_all(connection).await
            }
            None => {
                // `default` first, so that the limit does not hide it.
                let sql = "SELECT id, name FROM workspace ORDER BY name = 'default' DESC, name LIMIT 20";
                sqlx::query(sql).fetch_all(connection).await
            }
        };
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        match (&self.workspace, rows.as_slice()) {
            (Some(wanted), []) => Err(self.place.identity(&format!("holds no workspace `{wanted}`"), hint())),
            (None, []) => Err(self.place.identity("holds no workspace", hint())),
            (Some(_), [row, ..]) | (None, [row]) => Ok(text(row, 0)),
            (None, [row, ..]) if text(row, 1) == "default" => Ok(text(row, 0)),
            (None, rows) => {
                let names: Vec<_> = rows.iter().map(|row| format!("`{}`", text(row, 1))).collect();
                let what = format!("holds several workspaces and none is called `default`: {}", names.join(", "));
                Err(self.place.identity(&what, hint()))
            }
        }
    }

    /// All visible rows of `names`, in any scope.
    pub(super) async fn rows_named(
        &self,
        connection: &mut SqliteConnection,
        view: &View,
        names: &[&str],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut found = Vec::new();
        for names in names.chunks(NAMES_PER_STATEMENT) {
            let names = json_array(names);
            if view.era.has_name_index() {
                found.extend(rows(connection, view, Filter::Names(&names)).await?);
            } else {
                // Without an index the whole table is read, a page at a time so that no lock is long.
                found.extend(pages(connection, view, Some(&names)).await?);
            }
        }
        Ok(found)
    }

    /// Decodes what a row holds.
    pub(super) fn decode_stored(&self, row: &Row, stored: Stored) -> Result<SecretValues, BackendError> {
        let name = &row.name;
        let unusable = |what: String, hint: &str| BackendError::Unusable { what, hint: Some(hint.into()) };
        let identity = |what: String, hint: String| BackendError::Identity { what, hint: Some(hint) };
        let bytes = match stored {
            Stored::Bytes(bytes) => bytes,
            Stored::Nothing => {
                return Err(unusable(
                    format!("secret `{name}` has no values in this table"),
                    "ZenML keeps them in another secrets store, or a back-up moved them: `zenml secret restore`",
                ));
            }
            Stored::TooLarge(bytes) => {
                return Err(unusable(
                    format!("secret `{name}` is too large: {bytes} bytes as stored"),
                    "keep files in an artifact store",
                ));
            }
        };
        // expose: decoded into values.
        decode(bytes.expose(), self.key.as_ref()).map_err(|error| match error {
            DecodeError::Encrypted => identity(
                format!("secret `{name}` is encrypted, and back-end `{}` has no encryption key", self.place.backend),
                format!("set `encryption_key_env` or `encryption_key_file` of back-end `{}`", self.place.backend),
            ),
            DecodeError::WrongKey => identity(
                format!(
                    "secret `{name}` cannot be decrypted: the encryption key of back-end `{}` does not fit",
                    self.place.backend
                ),
                format!("check {}: it must be the encryption key of ZenML's secrets store", self.key_origin),
            ),
            DecodeError::NotEncrypted => identity(
                format!(
                    "secret `{name}` is stored in plain, but back-end `{}` has an encryption key",
                    self.place.backend
                ),
                format!("remove {}, or write the secret again with ZenML and that key", self.key_origin),
            ),
            DecodeError::NotBase64 | DecodeError::NotJson | DecodeError::NotStrings => {
                unusable(format!("secret `{name}` cannot be read: {error}"), "write it again with ZenML")
            }
        })
    }

    fn check_sizes(&self, name: &str, values: &SecretValues) -> Result<(), BackendError> {
        match values.iter().find(|(_, value)| value.len() as u64 > self.max_value) {
            None => Ok(()),
            Some((key, value)) => Err(BackendError::Unusable {
                what: format!(
                    "the value of key `{key}` of secret `{name}` is too large: {} bytes, allowed are {}",
                    value.len(),
                    self.max_value
                ),
                hint: Some("raise `[limits] value`".into()),
            }),
        }
    }
}

/// What stands in the column `values`.
pub(super) enum Stored {
    Nothing,
    Bytes(SecretBuffer),
    TooLarge(i64),
}

/// The columns of `secret` and of `user`; none where the table is absent.
pub(super) async fn columns(connection: &mut SqliteConnection) -> Result<(Columns, Columns), sqlx::Error> {
    let sql = r#"SELECT 'secret', name, "notnull" FROM pragma_table_info('secret')
                 UNION ALL SELECT 'user', name, "notnull" FROM pragma_table_info('user')"#;
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let of = |table: &str| {
        let rows = rows.iter().filter(|row| text(row, 0) == table);
        rows.map(|row| (text(row, 1), truth(row, 2))).collect()
    };
    Ok((of("secret"), of("user")))
}

/// Returns the columns of [`Row`] as SQL. Length and NULL come from a row's header: no value is read. (Nor is anything
/// that stands behind the values in a row, where that can be helped: SQLite would have to walk through them.)
fn row_columns(era: Era) -> String {
    format!(
        "id, name, {} AS is_private, CAST(created AS TEXT), CAST(updated AS TEXT), \
         coalesce(octet_length(\"values\"), 0) = 0 AS empty",
        era.is_private()
    )
}

fn row_of(row: &sqlx::sqlite::SqliteRow) -> Row {
    Row {
        id: text(row, 0),
        name: text(row, 1),
        scope: if truth(row, 2) { Scope::Private } else { Scope::Public },
        created: text(row, 3),
        updated: text(row, 4),
        empty: truth(row, 5),
    }
}

async fn rows(connection: &mut SqliteConnection, view: &View, filter: Filter<'_>) -> Result<Vec<Row>, sqlx::Error> {
    const NAMES: &str = "name COLLATE BINARY IN (SELECT value FROM json_each(?3))";
    const PAGE: &str = "id > ?4 AND id <= ?5";
    let (condition, names, after, last) = match filter {
        Filter::Names(names) => (NAMES.to_owned(), Some(names), None, None),
        Filter::Page(after, last) => (PAGE.to_owned(), None, Some(after), Some(last)),
        Filter::NamesInPage(names, after, last) => {
            (format!("{PAGE} AND {NAMES}"), Some(names), Some(after), Some(last))
        }
    };
    let (columns, visible) = (row_columns(view.era), view.era.is_visible());
    // Built from constants; everything from outside is bound.
    let sql = AssertSqlSafe(format!("SELECT {columns} FROM secret WHERE {visible} AND {condition}"));
    let query = sqlx::query(sql).bind(view.user.as_deref()).bind(view.workspace.as_deref());
    let rows = query.bind(names).bind(after).bind(last).fetch_all(connection).await?;
    Ok(rows.iter().map(row_of).collect())
}

/// Reads the whole table a page at a time, in the order of ids: a row that is there from beginning to end is seen
/// exactly once, whatever else changes.
async fn pages(connection: &mut SqliteConnection, view: &View, names: Option<&str>) -> Result<Vec<Row>, sqlx::Error> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let sql = "SELECT max(id) FROM (SELECT id FROM secret WHERE id > ?1 ORDER BY id LIMIT ?2)";
        let last = sqlx::query(sql).bind(after.as_str()).bind(PAGE_ROWS).fetch_all(&mut *connection).await?;
        let last = last.first().map(|row| text(row, 0)).unwrap_or_default();
        if last.is_empty() {
            return Ok(found);
        }
        let filter = match names {
            Some(names) => Filter::NamesInPage(names, &after, &last),
            None => Filter::Page(&after, &last),
        };
        found.extend(rows(connection, view, filter).await?);
        after = last;
    }
}

/// Reads one row with its values, if it is still visible.
pub(super) async fn stored_values(
    connection: &mut SqliteConnection,
    view: &View,
    id: &str,
) -> Result<Option<(Row, Stored)>, sqlx::Error> {
    let (columns, visible) = (row_columns(view.era), view.era.is_visible());
    let sql = AssertSqlSafe(format!(
        "SELECT {columns}, octet_length(\"values\"), \
         CASE WHEN octet_length(\"values\") <= ?4 THEN CAST(\"values\" AS BLOB) END \
         FROM secret WHERE {visible} AND id = ?3"
    ));
    let query = sqlx::query(sql).bind(view.user.as_deref()).bind(view.workspace.as_deref());
    let found = query.bind(id).bind(MAX_STORED).fetch_all(connection).await?;
    let Some(found) = found.first() else { return Ok(None) };
    let row = row_of(found);
    let stored = if row.empty {
        Stored::Nothing
    } else {
        match found.try_get_unchecked::<Option<&[u8]>, _>(7)? {
            Some(bytes) => {
                let mut buffer = SecretBuffer::with_capacity(bytes.len());
                buffer.push(bytes);
                Stored::Bytes(buffer)
            }
            None => Stored::TooLarge(found.try_get_unchecked(6)?),
        }
    };
    Ok(Some((row, stored)))
}

/// The row of exactly `name` in the first scope that has one; the oldest where the tables allow several, as in ZenML,
/// which sorts by `created`.
pub(super) fn choose<'a>(rows: impl IntoIterator<Item = &'a Row>, name: &str, scopes: Scopes) -> Option<&'a Row> {
    let place = |row: &Row| scopes.order().iter().position(|scope| *scope == row.scope);
    let rows = rows.into_iter().filter(|row| row.name == name && place(row).is_some());
    rows.min_by_key(|row| (place(row), age_order(row)))
}

fn age_order(row: &Row) -> (&str, &str) {
    (&row.created, &row.id)
}

/// Returns a JSON array of names: one bound text for any number of them.
fn json_array(names: &[&str]) -> String {
    let mut array = SecretBuffer::with_capacity(names.iter().map(|name| name.len() + 4).sum());
    for (index, name) in names.iter().enumerate() {
        array.push(if index == 0 { b"[" } else { b"," });
        push_string(&mut array, name);
    }
    array.push(if names.is_empty() { b"[]" } else { b"]" });
    // expose: names, no values.
    String::from_utf8_lossy(array.expose()).into_owned()
}

/// Returns an id as ZenML shows it: `8-4-4-4-12`. Anything but 32 hexadecimal digits stays as it is.
pub(super) fn dashed(id: &str) -> String {
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return id.to_owned();
    }
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}

/// Returns an id as the tables hold it.
fn undashed(id: &str) -> String {
    id.chars().filter(|character| *character != '-').collect::<String>().to_ascii_lowercase()
}
