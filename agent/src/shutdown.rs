//! The end of the agent: a signal asks for it, a second one makes it happen at once.

use std::sync::mpsc::Sender;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit code when a second signal cuts the stop short.
const CUT_SHORT: i32 = 1;

/// The signals that matter to the agent, caught from the moment this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts catching; must be called on the runtime, before anything that a stop must undo.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Turns `stop` true at the first SIGTERM or SIGINT and ends the process at the second; tells `hang_ups` of each
    /// SIGHUP. Runs until dropped.
    pub async fn watch(mut self, stop: watch::Sender<bool>, hang_ups: Sender<()>) {
        let mut asked = false;
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => {}
                Some(()) = self.interrupt.recv() => {}
                Some(()) = self.hang_up.recv() => {
                    if hang_ups.send(()).is_err() {
                        tracing::warn!("SIGHUP is ignored: a private agent lives as long as its client");
                    }
                    continue;
                }
            }
            if asked {
                tracing::warn!("second signal: ending at once");
                std::process::exit(CUT_SHORT);
            }
            asked = true;
            tracing::info!("stopping");
            // No receiver means that everything has stopped already.
            let _ = stop.send(true);
        }
    }
}
