//! The agent: `reference -> resolver -> cache -> back-end -> layout -> value -> api -> Unix socket`.
//!
//! # Layout, in the order of the flow
//!
//! * [`mod@run`], `reload`: the wiring: settings in, parts built, served, drained; the same again with other settings.
//! * [`listen`], [`serve`], [`capacity`], [`pace`], `head`: sockets, connections, how many, their deadlines, and the one
//!   spelling of a head.
//! * [`access`], [`program`]: which peer may read or write what, and what it runs.
//! * [`api`]: the routes; the only place that knows HTTP serving.
//! * [`check`]: the three validation levels.
//! * [`resolver`]: precedence and scopes, one call in flight for each secret, one consistent set for each resolve.
//! * [`cache`], [`held`], [`breaker`]: freshness and pauses; pure, the clock is an argument. `arena`: the memory of its
//!   own that values lie in.
//! * [`refresh`]: change detection.
//! * [`backend`], [`layout`]: places that store secrets, and how ZenML writes them there.
//! * [`metrics`]: what is counted, and its text form; [`scrape`]: it over TCP.
//! * [`audit`], [`request_id`], [`memory`], [`shutdown`], [`notify`], [`clock`], [`timer`].
//!
//! The cache and the back-ends do not know each other; a back-end never caches and never logs a value; a layout does no
//! I/O. ARCHITECTURE.md has the reasons.
#![deny(unsafe_code)]

pub mod access;
pub mod api;
mod arena;
pub mod audit;
pub mod backend;
pub mod breaker;
pub mod cache;
pub mod capacity;
pub mod check;
pub mod clock;
mod file_state;
mod head;
pub mod held;
pub mod layout;
pub mod listen;
pub mod memory;
pub mod metrics;
mod near_miss;
pub mod notify;
pub mod pace;
pub mod program;
pub mod refresh;
mod reload;
pub mod request_id;
pub mod resolver;
pub mod run;
pub mod scrape;
pub mod serve;
pub mod shutdown;
mod sys;
pub mod timer;
pub mod watch;

pub use memory::harden;
pub use reload::Loader;
pub use run::{RunOptions, StartError, run};
pub use sys::wiping::WipingAllocator;
