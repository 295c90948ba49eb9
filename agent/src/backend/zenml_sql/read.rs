//! Reading: single short statements, none inside a transaction, values only where they are wanted.

use std::collections::{HashMap, HashSet};

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::SecretValues;
use tokio::time::{Duration, sleep};

use super::super::{BackendError, Description, Scope, Scopes, Secret};
use super::connection::{Bound, Connection, Dialect, Record, VALUES};
use super::connections::Reader;
use super::elsewhere::{self, Backup, Found, Holder};
use super::era::Era;
use super::error::Doing;
use super::sqlite::NAMES_PER_STATEMENT;
use super::tables::Tables;
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
    /// Whether the column of names holds every character.
    pub(super) wide_names: bool,
    /// Whether timestamps have whole seconds only: two changes within one then look alike.
    pub(super) whole_seconds: bool,
    /// Whether rows are read in order to be written.
    pub(super) for_update: bool,
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

/// What the rows are chosen by: names, ids after the first and up to the second, or both.
#[derive(Default, Clone, Copy)]
struct Filter<'a> {
    names: Option<&'a [&'a str]>,
    page: Option<(&'a str, &'a str)>,
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
        let secret = self.read_secret_with(&mut reader, name, scopes).await;
        if matches!(secret, Ok(_) | Err(BackendError::NotFound)) {
            self.connections.keep(reader).await;
        }
        secret
    }

    async fn read_secret_with(&self, reader: &mut Reader, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let mut settled = false;
        for _ in 0..ATTEMPTS {
            let connection = &mut reader.connection;
            let view = self.view(connection).await?;
            let found = self.rows_named(connection, &view, &[name]).await.map_err(failure)?;
            let Some(row) = choose(&found, name, scopes) else { return Err(BackendError::NotFound) };
            let stored = if self.elsewhere.holds_values() {
                row_with(connection, &view, &row.id).await.map(|row| row.map(|row| (row, Stored::Nothing)))
            } else {
                reader.has_seen_values = true;
                stored_values(connection, &view, &row.id).await
            };
            // Renamed, moved to another scope or deleted since: look again.
            let stored = stored.map_err(failure)?;
            let Some((row, stored)) = stored.filter(|(now, _)| now.name == name && now.scope == row.scope) else {
                continue;
            };
            let age = timestamp::age(&row.updated).unwrap_or(SETTLE);
            let ours = self.own_writes.contains(&row.version());
            if age < SETTLE && !settled && !ours {
                settled = true;
                sleep(SETTLE - age).await;
                continue;
            }
            let young = age < DOUBT && !ours;
            let missing = matches!(stored, Stored::Nothing);
            let found = match self.value_of(reader, &view, &row, stored).await {
                // ZenML commits a new row before its values.
                Err(_) if young && missing && !self.elsewhere.holds_values() => None,
                Err(BackendError::NotFound) if young => None,
                Err(BackendError::NotFound) => return Err(self.elsewhere.nothing_there(name)),
                found => Some(found?),
            };
            let Some(found) = found else {
                sleep(CREATION_PAUSE).await;
                continue;
            };
            self.check_sizes(name, &found.values)?;
            let mut description = row.describe(view.era);
            if self.elsewhere.is_anywhere() {
                self.elsewhere.remember(&dashed(&row.id), found.version.as_deref());
                self.elsewhere.complete(&mut description);
            }
            if young {
                // On a busy machine the values may still be on their way. A version that no listing shows makes change
                // detection read the row again until it is past doubt.
                description.version.push(IN_DOUBT);
            }
            return Ok(Secret { description, values: found.values });
        }
        Err(being_written(&self.place.backend, name))
    }

    /// The values of a row: from the tables, or from the place that holds them in their stead. After any failure there from
    /// the backup; where that does not have them either, the first failure stays the answer.
    async fn value_of(
        &self,
        reader: &mut Reader,
        view: &View,
        row: &Row,
        stored: Stored,
    ) -> Result<Found, BackendError> {
        let first = if self.elsewhere.holds_values() {
            self.values_elsewhere(&mut reader.connection, row).await
        } else {
            self.found_stored(row, stored)
        };
        let (error, backup) = match (first, self.elsewhere.backup()) {
            (Err(error), Some(backup)) => (error, backup),
            (first, _) => return first,
        };
        let (place, second) = match backup {
            Backup::Tables => (&self.place.backend, self.copy_in_tables(reader, view, row).await),
            Backup::Other(holder) => (&holder.name, self.copy_elsewhere(holder, &mut reader.connection, row).await),
        };
        let id = dashed(&row.id);
        match second {
            Ok(found) => {
                tracing::warn!(backend = place, id, %error, "values are read from the backup");
                Ok(found)
            }
            Err(second) => {
                tracing::debug!(backend = place, id, error = %second, "the backup does not have them either");
                Err(error)
            }
        }
    }

    async fn values_elsewhere(&self, connection: &mut Connection, row: &Row) -> Result<Found, BackendError> {
        let deployment = elsewhere::deployment(&self.place, connection).await?;
        self.elsewhere.values_of(&dashed(&row.id), &deployment).await.map(Found::from)
    }

    async fn copy_elsewhere(
        &self,
        holder: &Holder,
        connection: &mut Connection,
        row: &Row,
    ) -> Result<Found, BackendError> {
        let deployment = elsewhere::deployment(&self.place, connection).await?;
        holder.store.values_of(&dashed(&row.id), &deployment).await.map(Found::from)
    }

    async fn copy_in_tables(&self, reader: &mut Reader, view: &View, row: &Row) -> Result<Found, BackendError> {
        reader.has_seen_values = true;
        let stored = stored_values(&mut reader.connection, view, &row.id).await;
        let stored = stored.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        let (_, stored) = stored.ok_or(BackendError::NotFound)?;
        self.found_stored(row, stored)
    }

    fn found_stored(&self, row: &Row, stored: Stored) -> Result<Found, BackendError> {
        Ok(Found { values: self.decode_stored(row, stored)?, version: None })
    }

    fn refuse_older_era(&self, era: Era) -> Result<(), BackendError> {
        if era != Era::B {
            return Ok(());
        }
        let backend = &self.place.backend;
        Err(self.place.identity(
            "has tables of a ZenML before 0.55, which hold the values themselves or nothing at all",
            format!(
                "remove `values` from back-end `{backend}`; a cloud store of that ZenML is a back-end by itself, with \
                 names and values"
            ),
        ))
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
            choose(rows.iter().copied(), name, scopes).map(|row| self.description(row, &view))
        };
        let descriptions = names.iter().map(describe).collect();
        self.connections.keep(reader).await;
        Ok(descriptions)
    }

    pub(super) async fn list_secrets(&self) -> Result<Vec<Description>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let view = self.view(&mut reader.connection).await?;
        let rows = pages(&mut reader.connection, &view, Filter::default()).await;
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
        let listed: Vec<_> = oldest.into_values().map(|row| self.description(row, &view)).collect();
        self.elsewhere.forget_others(&listed);
        Ok(listed)
    }

    fn description(&self, row: &Row, view: &View) -> Description {
        let mut description = row.describe(view.era);
        self.elsewhere.complete(&mut description);
        description
    }

    /// Finds out what the tables look like and whom the settings mean, each time anew: a migration or a new user
    /// shows at the next call.
    /// Returns the era of the tables; `None` where they are none we know.
    pub(super) async fn era(&self) -> Result<Option<Era>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let tables = Tables::of(&mut reader.connection).await;
        let tables = tables.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        self.connections.keep(reader).await;
        Ok(Era::of(&tables.secret))
    }

    pub(super) async fn view(&self, connection: &mut Connection) -> Result<View, BackendError> {
        let tables = Tables::of(connection).await.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        let era = Era::of(&tables.secret).ok_or_else(|| self.place.no_table(tables.secret.is_empty()))?;
        if self.elsewhere.holds_values() {
            self.refuse_older_era(era)?;
        }
        let user = match &self.user {
            Some(wanted) => self.find_user(connection, &tables, wanted).await?,
            None => None,
        };
        let workspace = if era.has_workspaces() { Some(self.find_workspace(connection).await?) } else { None };
        let Tables { wide_names, whole_seconds, .. } = tables;
        Ok(View { era, user, workspace, wide_names, whole_seconds, for_update: false })
    }

    async fn find_user(
        &self,
        connection: &mut Connection,
        tables: &Tables,
        wanted: &str,
    ) -> Result<Option<String>, BackendError> {
        // A person and a service account may have one name: the person is meant.
        let order = if tables.has_service_accounts() { ", is_service_account" } else { "" };
        let rows = named_or_numbered(connection, "user", order, wanted).await;
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        match rows.first() {
            Some(row) => Ok(Some(row.text(0))),
            None if self.user_required => Err(self.place.identity(
                &format!("holds no user `{wanted}`"),
                format!("set `user` of back-end `{}` to the name or id of a ZenML user", self.place.backend),
            )),
            None => Ok(None),
        }
    }

    async fn find_workspace(&self, connection: &mut Connection) -> Result<String, BackendError> {
        let hint =
            || format!("set `workspace` of back-end `{}` to the name or id of a ZenML workspace", self.place.backend);
        let rows = match &self.workspace {
            Some(wanted) => named_or_numbered(connection, "workspace", "", wanted).await,
            None => {
                // `default` first, so that the limit does not hide it.
                let sql = "SELECT id, name FROM workspace ORDER BY name = 'default' DESC, name LIMIT 20";
                connection.rows(sql, &[]).await
            }
        };
        let rows = rows.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        match (&self.workspace, rows.as_slice()) {
            (Some(wanted), []) => Err(self.place.identity(&format!("holds no workspace `{wanted}`"), hint())),
            (None, []) => Err(self.place.identity("holds no workspace", hint())),
            (Some(_), [row, ..]) | (None, [row]) => Ok(row.text(0)),
            (None, rows) => match rows.iter().find(|row| row.text(1) == "default") {
                Some(row) => Ok(row.text(0)),
                None => {
                    let names: Vec<_> = rows.iter().map(|row| format!("`{}`", row.text(1))).collect();
                    let what = format!("holds several workspaces and none is called `default`: {}", names.join(", "));
                    Err(self.place.identity(&what, hint()))
                }
            },
        }
    }

    /// All visible rows of `names`, in any scope.
    pub(super) async fn rows_named(
        &self,
        connection: &mut Connection,
        view: &View,
        names: &[&str],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut found = Vec::new();
        for names in names.chunks(NAMES_PER_STATEMENT) {
            let filter = Filter { names: Some(names), page: None };
            if view.era.has_name_index() || connection.dialect() == Dialect::Mysql {
                found.extend(rows(connection, view, filter).await?);
            } else {
                // Without an index the whole table is read, a page at a time so that no lock is long.
                found.extend(pages(connection, view, filter).await?);
            }
        }
        // A server's own comparison takes upper and lower case, and more, for the same.
        let names: HashSet<_> = names.iter().copied().collect();
        found.retain(|row| names.contains(row.name.as_str()));
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
                    "ZenML keeps them in another secrets store: configure it as a back-end and name it in `values`; or a \
                     back-up moved them: `zenml secret restore`",
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

/// The rows of a table whose name or id this is, the one with the id first, then in `order`.
async fn named_or_numbered(
    connection: &mut Connection,
    table: &str,
    order: &str,
    wanted: &str,
) -> Result<Vec<Record>, sqlx::Error> {
    // Only what looks like an id is compared with ids: their column may not be comparable with any other text.
    let id = Some(undashed(wanted)).filter(|id| is_id(id)).unwrap_or_default();
    // Names are text of any kind there: widened, as few as they are.
    let name = connection.dialect().name(false);
    let sql =
        format!("SELECT id, name FROM {table} WHERE id = ?1 OR {name} = ?2 ORDER BY id = ?1 DESC{order} LIMIT 20");
    let mut rows = connection.rows(&sql, &[Bound::Text(&id), Bound::Text(wanted)]).await?;
    rows.retain(|row| (is_id(&id) && row.text(0) == id) || row.text(1) == wanted);
    Ok(rows)
}

/// Returns the columns of [`Row`] as SQL. Length and NULL come from a row's header: no value is read. (Nor is anything
/// that stands behind the values in a row, where that can be helped: SQLite would have to walk through them.)
fn row_columns(era: Era, dialect: Dialect) -> String {
    format!(
        "id, name, {} AS is_private, {}, {}, coalesce(octet_length({VALUES}), 0) = 0",
        era.is_private(),
        dialect.text("created"),
        dialect.text("updated"),
    )
}

fn row_of(row: &Record) -> Row {
    Row {
        id: row.text(0),
        name: row.text(1),
        scope: if row.truth(2) { Scope::Private } else { Scope::Public },
        created: timestamp::whole(row.text(3)),
        updated: timestamp::whole(row.text(4)),
        empty: row.truth(5),
    }
}

/// What is bound in every statement on `secret`: user and workspace.
fn bound(view: &View) -> Vec<Bound<'_>> {
    vec![Bound::Optional(view.user.as_deref()), Bound::Optional(view.workspace.as_deref())]
}

async fn rows(connection: &mut Connection, view: &View, filter: Filter<'_>) -> Result<Vec<Row>, sqlx::Error> {
    let dialect = connection.dialect();
    let mut bound = bound(view);
    let mut sql = format!("SELECT {} FROM secret WHERE {}", row_columns(view.era, dialect), view.era.is_visible());
    if let Some((after, last)) = filter.page {
        sql.push_str(" AND id > ?3 AND id <= ?4");
        bound.extend([Bound::Text(after), Bound::Text(last)]);
    }
    if let Some(names) = filter.names {
        let places: Vec<_> = (0..names.len()).map(|name| format!("?{}", bound.len() + 1 + name)).collect();
        sql.push_str(&format!(" AND {} IN ({})", dialect.name(view.wide_names), places.join(",")));
        bound.extend(names.iter().map(|name| Bound::Text(name)));
    }
    if view.for_update {
        sql.push_str(dialect.for_update());
    }
    // A list of names is of another length each time.
    let rows = match filter.names {
        Some([_, _, ..]) => connection.rows_once(&sql, &bound).await?,
        _ => connection.rows(&sql, &bound).await?,
    };
    Ok(rows.iter().map(row_of).collect())
}

/// Reads the whole table a page at a time, in the order of ids: a row that is there from beginning to end is seen
/// exactly once, whatever else changes.
async fn pages(connection: &mut Connection, view: &View, filter: Filter<'_>) -> Result<Vec<Row>, sqlx::Error> {
    let page_rows = connection.dialect().page_rows();
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let sql = "SELECT max(id) FROM (SELECT id FROM secret WHERE id > ?1 ORDER BY id LIMIT ?2) AS page";
        let last = connection.rows(sql, &[Bound::Text(&after), Bound::Number(page_rows)]).await?;
        let last = last.first().map(|row| row.text(0)).unwrap_or_default();
        if last.is_empty() {
            return Ok(found);
        }
        found.extend(rows(connection, view, Filter { page: Some((&after, &last)), ..filter }).await?);
        after = last;
    }
}

/// Reads one row without its values, if it is still visible.
async fn row_with(connection: &mut Connection, view: &View, id: &str) -> Result<Option<Row>, sqlx::Error> {
    let columns = row_columns(view.era, connection.dialect());
    let sql = format!("SELECT {columns} FROM secret WHERE {} AND id = ?3", view.era.is_visible());
    let mut bound = bound(view);
    bound.push(Bound::Text(id));
    let rows = connection.rows(&sql, &bound).await?;
    Ok(rows.first().map(row_of))
}

/// Reads one row with its values, if it is still visible.
pub(super) async fn stored_values(
    connection: &mut Connection,
    view: &View,
    id: &str,
) -> Result<Option<(Row, Stored)>, sqlx::Error> {
    let dialect = connection.dialect();
    let (columns, visible, bytes) = (row_columns(view.era, dialect), view.era.is_visible(), dialect.bytes(VALUES));
    let lock = if view.for_update { dialect.for_update() } else { "" };
    let sql = format!(
        "SELECT {columns}, octet_length({VALUES}), CASE WHEN octet_length({VALUES}) <= ?4 THEN {bytes} END \
         FROM secret WHERE {visible} AND id = ?3{lock}"
    );
    let mut bound = bound(view);
    bound.extend([Bound::Text(id), Bound::Number(MAX_STORED)]);
    let found = connection.rows(&sql, &bound).await?;
    let Some(found) = found.first() else { return Ok(None) };
    let row = row_of(found);
    let stored = if row.empty {
        Stored::Nothing
    } else {
        match found.bytes(7) {
            Some(bytes) => {
                let mut buffer = SecretBuffer::with_capacity(bytes.len());
                buffer.push(bytes);
                Stored::Bytes(buffer)
            }
            None => Stored::TooLarge(found.number(6)),
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

/// Returns an id as ZenML shows it: `8-4-4-4-12`. Anything but 32 hexadecimal digits stays as it is.
pub(super) fn dashed(id: &str) -> String {
    if !is_id(id) {
        return id.to_owned();
    }
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns an id as the tables hold it.
fn undashed(id: &str) -> String {
    id.chars().filter(|character| *character != '-').collect::<String>().to_ascii_lowercase()
}
