//! What the tables look like, asked anew at each call.

use super::connection::{Connection, Dialect};
use super::era::Columns;

/// The tables that matter here.
pub(super) struct Tables {
    /// The columns of `secret`; none where it is absent.
    pub(super) secret: Columns,
    /// The columns of `user`, likewise.
    pub(super) user: Columns,
    /// Whether `secret.name` can hold every character.
    pub(super) wide_names: bool,
    /// Whether timestamps are cut to whole seconds: ZenML declares them so for MySQL.
    pub(super) whole_seconds: bool,
}

impl Tables {
    /// Asks for them.
    pub(super) async fn of(connection: &mut Connection) -> Result<Self, sqlx::Error> {
        // Table, column, whether it may not be NULL, whether it is too narrow or too coarse.
        let sql = match connection.dialect() {
            Dialect::Sqlite => {
                r#"SELECT 'secret', name, "notnull", 0 FROM pragma_table_info('secret')
                   UNION ALL SELECT 'user', name, "notnull", 0 FROM pragma_table_info('user')"#
            }
            Dialect::Mysql => {
                "SELECT table_name, column_name, is_nullable = 'NO',
                     coalesce(datetime_precision < 6, character_set_name <> 'utf8mb4', 0)
                 FROM information_schema.columns
                 WHERE table_schema = DATABASE() AND table_name IN ('secret', 'user')"
            }
        };
        let rows = connection.rows(sql, &[]).await?;
        let of = |table: &str| {
            let rows = rows.iter().filter(|row| row.text(0) == table);
            rows.map(|row| (row.text(1), row.truth(2))).collect()
        };
        let coarse =
            |column: &str| rows.iter().any(|row| row.text(0) == "secret" && row.text(1) == column && row.truth(3));
        Ok(Self {
            secret: of("secret"),
            user: of("user"),
            wide_names: !coarse("name"),
            whole_seconds: coarse("updated"),
        })
    }

    /// Tells whether persons and service accounts are told apart.
    pub(super) fn has_service_accounts(&self) -> bool {
        self.user.iter().any(|(name, _)| name == "is_service_account")
    }
}

/// Tells which of these tables are there, in the order asked.
pub(super) async fn has_tables(connection: &mut Connection, names: &[&str]) -> Result<Vec<bool>, sqlx::Error> {
    let sql = match connection.dialect() {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table'",
        Dialect::Mysql => "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    };
    let rows = connection.rows(sql, &[]).await?;
    Ok(names.iter().map(|name| rows.iter().any(|row| row.text(0) == *name)).collect())
}
