//! What a plugin of age says to the person at the terminal, and asks there.
//!
//! Where there is no terminal, the plugin is told that nobody answers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use ::age::Callbacks;
use ::age::secrecy::SecretString;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::secret::Secret;
use crate::sops::keys::age::plugin::shown;

/// Longest answer, in bytes; room for it is made at once, because growing would leave copies of a PIN behind.
const ANSWER_LIMIT: usize = 4096;

/// The person that the plugin of this name speaks to.
#[derive(Clone, Debug)]
pub(super) struct Person {
    plugin: String,
}

impl Person {
    pub(super) fn of(plugin: &str) -> Self {
        Self { plugin: plugin.to_owned() }
    }

    /// One line of the terminal; `None` where there is none.
    fn ask(&self, question: &str, secret: bool) -> Option<Secret<String>> {
        let answer = || -> io::Result<Secret<String>> {
            let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
            let _quiet = secret.then(|| Quiet::on(&terminal)).transpose()?;
            // On a line of its own, so that the line of progress does not wipe it.
            writeln!(terminal, "age-plugin-{}: {}", self.plugin, shown(question))?;
            let mut answer = Secret::new(String::with_capacity(ANSWER_LIMIT));
            // A byte at a time leaves no copy in a buffer.
            BufReader::with_capacity(1, terminal).read_line(answer.expose_mut())?;
            let end = answer.expose().trim_end_matches(['\r', '\n']).len();
            answer.expose_mut().truncate(end);
            Ok(answer)
        };
        answer().ok()
    }
}

impl Callbacks for Person {
    fn display_message(&self, message: &str) {
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(io::stderr(), "age-plugin-{}: {}", self.plugin, shown(message));
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let question = format!("{message} [y: {yes}, n: {}]", no.unwrap_or("no"));
        let answer = self.ask(&question, false)?;
        Some(answer.expose().trim().to_ascii_lowercase().starts_with('y'))
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        self.ask(description, false).map(|answer| answer.expose().clone())
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        self.ask(description, true).map(|answer| SecretString::from(answer.expose().as_str()))
    }
}

/// A terminal that does not show what is typed, until dropped.
struct Quiet {
    terminal: File,
    before: rustix::termios::Termios,
}

impl Quiet {
    fn on(terminal: &File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal: terminal.try_clone()?, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
