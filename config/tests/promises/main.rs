//! What a configuration means, shown through the public functions alone.
#![allow(missing_docs)]

mod examples;
mod files;
mod hostile;
mod local;
mod mistakes;
mod scene;
mod values;
mod variables;
mod zenml;
