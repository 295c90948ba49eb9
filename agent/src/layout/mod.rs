//! How ZenML names and encodes secrets in each kind of back-end: pure functions, tested by vectors.

#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "zenml-sql")]
pub mod zenml;
#[cfg(feature = "zenml-server")]
pub mod zenml_rest;
#[cfg(feature = "zenml-server")]
pub mod zenml_stack;
