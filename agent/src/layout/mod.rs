//! How ZenML names and encodes secrets in each kind of back-end: pure functions, tested by vectors.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "gcp")]
pub mod gcp;
#[cfg(feature = "local")]
pub mod local;
#[cfg(any(feature = "zenml-sql", feature = "aws", feature = "azure", feature = "gcp"))]
pub(crate) mod pairs;
#[cfg(any(
    feature = "zenml-server",
    feature = "zenml-sql",
    feature = "aws",
    feature = "azure",
    feature = "gcp",
    feature = "vault"
))]
mod text;
#[cfg(feature = "vault")]
pub mod vault;
#[cfg(feature = "zenml-sql")]
pub mod zenml;
#[cfg(feature = "zenml-server")]
pub mod zenml_rest;
#[cfg(feature = "zenml-server")]
pub mod zenml_stack;
