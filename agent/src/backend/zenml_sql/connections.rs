//! Gives out connections, to a file or to a server.

use super::super::BackendError;
use super::connection::Connection;
use super::error::FileId;
use super::{mysql, sqlite};

/// Where connections come from.
pub(super) enum Connections {
    Sqlite(sqlite::Connections),
    Mysql(Box<mysql::Connections>),
}

/// A connection that reads. Dropping it ends it.
pub(super) struct Reader {
    pub(super) connection: Connection,
    /// The file that it has open; `None` with a server.
    file: Option<FileId>,
    /// Set by whoever reads values with it: the library may keep parts of the last reply for as long as a connection to a
    /// server stands, so such a one is not kept.
    pub(super) has_seen_values: bool,
}

impl Connections {
    /// Returns a connection that reads.
    pub(super) async fn reader(&self) -> Result<Reader, BackendError> {
        let (connection, file) = match self {
            Self::Sqlite(connections) => {
                let reader = connections.reader().await?;
                (Connection::Sqlite(reader.connection), Some(reader.file))
            }
            Self::Mysql(connections) => (connections.reader().await?, None),
        };
        Ok(Reader { connection, file, has_seen_values: false })
    }

    /// Takes a reader back after its last statement has ended well.
    pub(super) async fn keep(&self, reader: Reader) {
        match (self, reader.connection, reader.file) {
            (Self::Sqlite(connections), Connection::Sqlite(connection), Some(file)) => {
                connections.keep(sqlite::Reader { connection, file }).await;
            }
            (Self::Mysql(connections), Connection::Mysql(connection), _) if !reader.has_seen_values => {
                connections.keep(connection).await;
            }
            (_, connection, _) => connection.close().await,
        }
    }

    /// Returns a connection that writes, for one transaction.
    pub(super) async fn writer(&self) -> Result<Connection, BackendError> {
        match self {
            Self::Sqlite(connections) => connections.writer().await.map(Connection::Sqlite),
            Self::Mysql(connections) => connections.writer().await,
        }
    }

    /// Ends all kept readers; no further connection is given out.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(connections) => connections.close().await,
            Self::Mysql(connections) => connections.close().await,
        }
    }
}
