//! What the scenarios stand on: hermetic homes, the real programs, a client that may misbehave, real ZenML.
//!
//! # Layout, in the order a scenario uses it
//!
//! * [`home`]: a directory of its own for one scenario; at its end all output is searched for the planted value.
//! * [`canary`]: that value, and the forms it is searched for in.
//! * [`programs`]: where the built programs and the interpreter are.
//! * [`prometheus`]: metrics, read strictly.
//! * [`run`]: one program, run to its end or kept running.
//! * [`step`]: a shell under the wrapper.
//! * [`store`]: ZenML's data, copied from the fixtures.
//! * [`agent`]: an agent that is ready, and ended with the scenario.
//! * [`socket_client`]: bytes to the socket and replies from it.
//! * [`zenml`]: the real ZenML, one process driven line by line.
//! * [`values_elsewhere`]: ZenML's names in its tables, and the values in another place.
//! * [`mariadb`]: a real MariaDB.
//! * [`aws`]: what stands for AWS.
//! * [`openbao`]: the real OpenBao, a free Vault.
//! * [`process_memory`]: what stands in the memory of a running process.
//! * [`containers`]: the project's images, built and run by podman.
//! * [`eventually`]: waiting without sleeping.
//! * [`remark`]: figures, and what this machine cannot show.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test's fault is a panic, and its words go to stderr")]

pub mod agent;
pub mod aws;
pub mod canary;
pub mod containers;
pub mod eventually;
pub mod home;
pub mod mariadb;
pub mod openbao;
pub mod process_memory;
pub mod programs;
pub mod prometheus;
pub mod remark;
pub mod run;
pub mod socket_client;
pub mod step;
pub mod store;
pub mod values_elsewhere;
pub mod zenml;

pub use agent::Agent;
pub use home::Home;
pub use run::Ended;
pub use socket_client::{Client, Reply};
pub use store::Store;
