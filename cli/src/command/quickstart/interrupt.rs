//! Signals while quickstart runs: it must not die before it has stopped its agent, and the step must hear of them.

use std::io::IsTerminal as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::output::io_text;

/// The signals that end a program when nobody catches them, and that somebody sends on purpose.
const CAUGHT: [(SignalKind, Signal); 4] = [
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
];

/// What was caught so far, and who is to hear of it.
pub(super) struct Interrupts {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The first signal; 0 for none.
    first: AtomicI32,
    /// The step while it runs.
    step: Mutex<Option<OwnedFd>>,
}

impl Interrupts {
    /// Catches signals from now on, until the program ends.
    pub(super) fn catch() -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unavailable, format!("cannot catch signals: {}", io_text(&error)))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let streams = {
            let _entered = runtime.enter();
            CAUGHT.map(|(kind, number)| signal(kind).map(|stream| (stream, number)))
        };
        let mut tasks = Vec::new();
        for stream in streams {
            let (mut stream, number) = stream.map_err(failed)?;
            let shared = Arc::clone(&shared);
            tasks.push(async move {
                while stream.recv().await.is_some() {
                    shared.caught(number);
                }
            });
        }
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    let mut running: Vec<_> = tasks.into_iter().map(|task| tokio::spawn(task)).collect();
                    while let Some(task) = running.pop() {
                        let _ = task.await;
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self { shared })
    }

    /// Fails once a signal has come, with the code that a shell would show.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.shared.first.load(Ordering::Acquire) {
            0 => Ok(()),
            number => Err(Failure::new(Exit::Passed(128 + u8::try_from(number).unwrap_or(0)), "interrupted")),
        }
    }

    /// From now on the child `id`, which is not reaped yet, hears of every signal, of an earlier one too.
    pub(super) fn forward_to(&self, id: u32) {
        let pidfd =
            i32::try_from(id).ok().and_then(Pid::from_raw).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        *self.shared.step() = pidfd;
        if let Some(earlier) = Signal::from_named_raw(self.shared.first.load(Ordering::Acquire)) {
            self.shared.send(earlier);
        }
    }

    /// The child has ended.
    pub(super) fn forward_to_none(&self) {
        *self.shared.step() = None;
    }
}

impl Shared {
    fn step(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caught(&self, signal: Signal) {
        let _ = self.first.compare_exchange(0, signal.as_raw(), Ordering::AcqRel, Ordering::Acquire);
        // What a terminal sends reaches the step by itself: it is in our process group.
        let from_terminal = matches!(signal, Signal::INT | Signal::QUIT) && std::io::stdin().is_terminal();
        if !from_terminal {
            self.send(signal);
        }
    }

    fn send(&self, signal: Signal) {
        if let Some(step) = &*self.step() {
            // It may have ended just now: then there is nobody to tell.
            let _ = pidfd_send_signal(step, signal);
        }
    }
}
