//! Promises of the real `keyside-exec`, run against a scripted agent.

mod agent;
mod command;
mod configuration;
mod directory;
mod environment;
mod files;
mod harness;
mod memfd;
mod pid_one;
mod private;
mod transparency;
