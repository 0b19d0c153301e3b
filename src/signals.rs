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
    /// `SIGHUP`: the terminal is gone.
    Hangup,
    /// `SIGQUIT`, from a terminal.
    Quit,
}

impl Termination {
    /// The exit code that shells expect of a process ended so.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
            Self::Quit => 131,
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
            Self::Quit => "SIGQUIT",
        })
    }
}

/// Listens from now on, and waits for the first of them. Where they cannot be listened for, it waits forever and the
/// default action holds. To be called inside the runtime.
pub fn termination() -> impl Future<Output = Termination> + Send {
    either(
        (SignalKind::interrupt(), Termination::Interrupt),
        (SignalKind::terminate(), Termination::Terminate),
    )
}

/// As [`termination`], for the other signals that end a process by default, with what it has yet to take away.
pub fn abandonment() -> impl Future<Output = Termination> + Send {
    either((SignalKind::hangup(), Termination::Hangup), (SignalKind::quit(), Termination::Quit))
}

fn either(
    first: (SignalKind, Termination),
    second: (SignalKind, Termination),
) -> impl Future<Output = Termination> + Send {
    let listeners = (signal(first.0), signal(second.0));
    async move {
        let (Ok(mut one), Ok(mut other)) = listeners else { return std::future::pending().await };
        tokio::select! {
            _ = one.recv() => first.1,
            _ = other.recv() => second.1,
        }
    }
}
