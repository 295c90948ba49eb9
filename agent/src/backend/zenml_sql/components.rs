//! The local secrets managers among the stack components, which ZenML has had until 0.53.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::BackendError;
use super::ZenmlSql;
use super::error::Doing;
use super::read::dashed;
use super::sqlite::text;

/// One component of type `secrets_manager` and flavor `local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalManager {
    /// With dashes.
    pub id: String,
    /// Its name in ZenML.
    pub name: String,
    /// What its configuration says of the file; empty, as usual, means the default.
    pub secrets_file: PathBuf,
    /// The stacks that use it, with dashes.
    pub stacks: Vec<String>,
}

/// The component's configuration, as far as it matters here.
#[derive(Deserialize, Default)]
struct Configuration {
    #[serde(default)]
    secrets_file: Option<PathBuf>,
}

impl ZenmlSql {
    /// Returns them by id; none where the tables have no components.
    pub(super) async fn local_managers(&self) -> Result<Vec<LocalManager>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let sql =
            "SELECT CAST(count(*) AS TEXT) FROM sqlite_master WHERE name IN ('stack_component', 'stack_composition')";
        let tables = sqlx::query(sql).fetch_all(&mut reader.connection).await.map_err(failure)?;
        if tables.first().is_none_or(|row| text(row, 0) != "2") {
            return Ok(Vec::new());
        }
        let sql = "SELECT c.id, c.name, CAST(c.configuration AS TEXT), s.stack_id \
                   FROM stack_component c LEFT JOIN stack_composition s ON s.component_id = c.id \
                   WHERE c.type = 'secrets_manager' AND c.flavor = 'local' LIMIT 10000";
        let rows = sqlx::query(sql).fetch_all(&mut reader.connection).await.map_err(failure)?;
        self.connections.keep(reader).await;
        let mut managers: BTreeMap<String, LocalManager> = BTreeMap::new();
        for row in &rows {
            let id = dashed(&text(row, 0));
            let manager = managers.entry(id.clone()).or_insert_with(|| LocalManager {
                id,
                name: text(row, 1),
                secrets_file: configuration(&text(row, 2)).secrets_file.unwrap_or_default(),
                stacks: Vec::new(),
            });
            let stack = text(row, 3);
            if !stack.is_empty() {
                manager.stacks.push(dashed(&stack));
            }
        }
        Ok(managers.into_values().collect())
    }
}

/// Reads base64 of JSON; what is neither has no setting that we know.
fn configuration(stored: &str) -> Configuration {
    STANDARD.decode(stored).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}
