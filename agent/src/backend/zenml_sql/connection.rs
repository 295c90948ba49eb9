//! One connection to either kind of data base, and what differs between their SQL.
//!
//! Statements are written once, for both: numbered places (`?1`) for what is bound, backticks around reserved words,
//! which SQLite takes too, and the words of [`Dialect`] where the two have none in common.

use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _, SqliteConnection};
use std::sync::Arc;

/// The column of the values; a reserved word.
pub(super) const VALUES: &str = "`values`";

/// A connection. Dropping it ends it, also in the middle of a statement, and undoes a transaction.
pub(super) enum Connection {
    Sqlite(SqliteConnection),
    Mysql(Box<MySqlConnection>),
}

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Mysql,
}

/// What is bound to a place of a statement.
#[derive(Clone)]
pub(super) enum Bound<'a> {
    Text(&'a str),
    Optional(Option<&'a str>),
    Number(i64),
    /// Values on their way into the data base; whoever holds the other reference wipes them.
    Secret(Arc<str>),
}

/// One row of an answer.
pub(super) enum Record {
    Sqlite(SqliteRow),
    Mysql(MySqlRow),
}

impl Dialect {
    /// SQL: an expression as text.
    pub(super) fn text(self, expression: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({expression} AS TEXT)"),
            // By name of the character set: the bytes of a BLOB are ZenML's UTF-8.
            Self::Mysql => format!("CONVERT({expression} USING utf8mb4)"),
        }
    }

    /// SQL: an expression as bytes.
    pub(super) fn bytes(self, expression: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({expression} AS BLOB)"),
            Self::Mysql => format!("CAST({expression} AS BINARY)"),
        }
    }

    /// SQL: a column of names, to be compared with bound text. Where the data base's own comparison takes other names
    /// for the same (upper and lower case, accents, blanks at the end), the caller tells them apart.
    ///
    /// `wide`: the column holds every character. A narrower one (`latin1`, which MariaDB has by default) is widened,
    /// because it could not be compared with a name that it cannot hold; that costs the index.
    pub(super) fn name(self, wide: bool) -> &'static str {
        match (self, wide) {
            (Self::Sqlite, _) => "name COLLATE BINARY",
            (Self::Mysql, true) => "name",
            (Self::Mysql, false) => "CONVERT(name USING utf8mb4)",
        }
    }

    /// SQL at the end of a reading statement whose rows are about to be written.
    pub(super) fn for_update(self) -> &'static str {
        match self {
            // The whole file is locked.
            Self::Sqlite => "",
            Self::Mysql => " FOR UPDATE",
        }
    }

    /// SQL that begins a transaction.
    fn begin(self) -> &'static str {
        match self {
            // With the write lock in hand: what is read next cannot change before it is written.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Mysql => "START TRANSACTION",
        }
    }

    /// Rows that one statement of a walk through a whole table reads.
    pub(super) fn page_rows(self) -> i64 {
        match self {
            Self::Sqlite => super::sqlite::PAGE_ROWS,
            // Readers lock nothing there.
            Self::Mysql => 1000,
        }
    }
}

impl Connection {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Mysql(_) => Dialect::Mysql,
        }
    }

    /// Runs a statement that is run again and again, and returns its rows. `sql` is built from constants; everything
    /// from outside is bound.
    pub(super) async fn rows(&mut self, sql: &str, bound: &[Bound<'_>]) -> Result<Vec<Record>, sqlx::Error> {
        self.run(sql, bound, true).await
    }

    /// The same for a statement whose text is hardly ever the same twice.
    pub(super) async fn rows_once(&mut self, sql: &str, bound: &[Bound<'_>]) -> Result<Vec<Record>, sqlx::Error> {
        self.run(sql, bound, false).await
    }

    /// Runs a statement that changes something.
    pub(super) async fn execute(&mut self, sql: &str, bound: &[Bound<'_>]) -> Result<(), sqlx::Error> {
        self.run(sql, bound, false).await.map(drop)
    }

    /// Begins a transaction; it ends with [`commit`](Self::commit), or undone with the connection.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.raw(self.dialect().begin()).await
    }

    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.raw("COMMIT").await
    }

    /// Ends it in good order; an error in that changes nothing for what was done.
    pub(super) async fn close(self) {
        let _ = match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Mysql(connection) => connection.close().await,
        };
    }

    /// Runs constant SQL that no server prepares.
    async fn raw(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Mysql(connection) => sqlx::raw_sql(sql).execute(&mut **connection).await.map(drop),
        }
    }

    async fn run(&mut self, sql: &str, bound: &[Bound<'_>], again: bool) -> Result<Vec<Record>, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => {
                let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(again);
                for one in bound {
                    query = match one {
                        Bound::Text(text) => query.bind(*text),
                        Bound::Optional(text) => query.bind(*text),
                        Bound::Number(number) => query.bind(*number),
                        Bound::Secret(text) => query.bind(Arc::clone(text)),
                    };
                }
                let rows = query.fetch_all(connection).await?;
                Ok(rows.into_iter().map(Record::Sqlite).collect())
            }
            Self::Mysql(connection) => {
                let (sql, order) = in_order(sql);
                let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(again);
                for place in order {
                    query = match &bound[place - 1] {
                        Bound::Text(text) => query.bind(*text),
                        Bound::Optional(text) => query.bind(*text),
                        Bound::Number(number) => query.bind(*number),
                        Bound::Secret(text) => query.bind(Arc::clone(text)),
                    };
                }
                let rows = query.fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Record::Mysql).collect())
            }
        }
    }
}

impl Record {
    /// Returns a column as text, whatever it was declared as; empty when NULL or not UTF-8.
    pub(super) fn text(&self, column: usize) -> String {
        match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).unwrap_or_default(),
            Self::Mysql(row) => row.try_get_unchecked(column).unwrap_or_default(),
        }
    }

    /// Returns a column as a truth value; NULL is false.
    pub(super) fn truth(&self, column: usize) -> bool {
        self.number(column) != 0
    }

    /// Returns a column as a number; NULL is 0.
    pub(super) fn number(&self, column: usize) -> i64 {
        match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).unwrap_or_default(),
            Self::Mysql(row) => row.try_get_unchecked(column).unwrap_or_default(),
        }
    }

    /// Returns a column as bytes; `None` when NULL.
    pub(super) fn bytes(&self, column: usize) -> Option<&[u8]> {
        match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).unwrap_or_default(),
            Self::Mysql(row) => row.try_get_unchecked(column).unwrap_or_default(),
        }
    }
}

/// Turns numbered places into MySQL's nameless ones, and returns which number stands at each. The statements are ours:
/// no question mark in them is anything else.
fn in_order(sql: &str) -> (String, Vec<usize>) {
    let mut pieces = sql.split('?');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    let mut order = Vec::new();
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        order.push(piece[..digits].parse().expect("each place has a number"));
        plain.push('?');
        plain.push_str(&piece[digits..]);
    }
    (plain, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_places_become_nameless_ones_in_their_order() {
        let check = |sql: &str, plain: &str, order: &[usize]| assert_eq!(in_order(sql), (plain.into(), order.to_vec()));
        check("SELECT 1", "SELECT 1", &[]);
        check("a = ?2 AND (b = ?1 OR c = ?1)", "a = ? AND (b = ? OR c = ?)", &[2, 1, 1]);
        check("x IN (?6,?7,?12)", "x IN (?,?,?)", &[6, 7, 12]);
    }
}
