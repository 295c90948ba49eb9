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
