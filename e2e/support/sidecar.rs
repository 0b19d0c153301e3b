//! A process beside Argo CD's repo-server: `strongroom serve`, or Argo CD's own plugin server.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::process::Run;

/// No server takes longer to start, even when other builds use the machine.
const START: Duration = Duration::from_mins(1);

/// The process, gone with the test.
#[derive(Debug)]
pub struct Sidecar(Child);

impl Sidecar {
    /// Starts it, with its messages in the file `log`, and waits until it is `ready`.
    pub fn start(run: Run, log: &Path, ready: impl Fn() -> bool) -> Self {
        let messages = File::create(log).unwrap();
        let mut command = run.into_command();
        let sidecar = Self(command.stdin(Stdio::null()).stderr(messages).spawn().unwrap());
        let end = Instant::now() + START;
        while !ready() {
            assert!(Instant::now() < end, "not ready:\n{}", std::fs::read_to_string(log).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        sidecar
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
