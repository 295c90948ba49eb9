//! Promises of the real `keyside-exec`, run against a scripted agent.

mod agent;
mod command;
mod configuration;
mod environment;
mod files;
mod harness;
mod transparency;
