//! The secrets managers among the stack components, which ZenML has had until 0.53.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::BackendError;
use super::ZenmlSql;
use super::error::Doing;
use super::read::dashed;
use super::tables::has_tables;

/// One component of type `secrets_manager`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsManager {
    /// With dashes.
    pub id: String,
    /// Its name in ZenML.
    pub name: String,
    /// Where it keeps its secrets: `local`, `aws`, `gcp`, `azure`, `vault`, `github`, or a word of the user's own.
    pub flavor: String,
    /// Of one that is local, what its configuration says of the file; empty, as usual, means the default.
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
    pub(super) async fn secrets_managers(&self) -> Result<Vec<SecretsManager>, BackendError> {
        let mut reader = self.connections.reader().await?;
        let connection = &mut reader.connection;
        let failure = |error: sqlx::Error| self.place.failure(Doing::Reading, &error);
        let (component, composition) = ("stack_component", "stack_composition");
        if !has_tables(connection, &[component, composition]).await.map_err(failure)?.iter().all(|found| *found) {
            return Ok(Vec::new());
        }
        let configured = connection.dialect().text("c.configuration");
        let sql = format!(
            "SELECT c.id, c.name, {configured}, s.stack_id, c.flavor \
             FROM {component} c LEFT JOIN {composition} s ON s.component_id = c.id \
             WHERE c.type = 'secrets_manager' LIMIT 10000"
        );
        let rows = connection.rows_once(&sql, &[]).await.map_err(failure)?;
        self.connections.keep(reader).await;
        let mut managers: BTreeMap<String, SecretsManager> = BTreeMap::new();
        for row in &rows {
            let id = dashed(&row.text(0));
            let manager = managers.entry(id.clone()).or_insert_with(|| SecretsManager {
                id,
                name: row.text(1),
                flavor: row.text(4),
                secrets_file: configuration(&row.text(2)).secrets_file.unwrap_or_default(),
                stacks: Vec::new(),
            });
            let stack = row.text(3);
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
