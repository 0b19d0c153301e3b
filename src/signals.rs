//! The signals that end the process.

use std::fmt;
use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Termination {
    /// `SIGINT`, from a terminal.
    Interrupt,
    /// `SIGTERM`, from a supervisor.
    Terminate,
}

impl Termination {
    /// The exit code that shells expect of a process ended so.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Listens from now on, and waits for the first of them. Where they cannot be listened for, it waits forever and the
/// default action holds. To be called inside the runtime.
pub fn termination() -> impl Future<Output = Termination> + Send {
    let listeners = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut interrupt), Ok(mut terminate)) = listeners else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => Termination::Interrupt,
            _ = terminate.recv() => Termination::Terminate,
        }
    }
}
