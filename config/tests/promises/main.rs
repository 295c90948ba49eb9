//! What a configuration means, shown through the public functions alone.
#![allow(missing_docs)]

mod backends;
mod examples;
mod files;
mod hostile;
mod local;
mod mistakes;
mod scene;
mod values;
mod values_elsewhere;
mod variables;
mod zenml;
mod zenml_clouds;
mod zenml_mysql;
mod zenml_secrets_stores;
mod zenml_server;
mod zenml_vault;
