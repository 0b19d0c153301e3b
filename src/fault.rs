//! What kind of failure an error is, and how a chain of errors is told to a person.
//!
//! Every error of the product implements [`Fault`]; the edges (`cmp`, `http`, `main`) map a [`Class`] to a
//! gRPC code, a metric label or an exit code, and nothing else does.

use std::error::Error;

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// The operator or a backend does not allow it.
    Denied,
    /// A defect of Strongroom or of its installation.
    Internal,
    /// The input is wrong: a file, a parameter, a reference.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// The deadline passed.
    Timeout,
    /// A backend did not answer, or answered that it is busy; trying again later may help.
    Unavailable,
}

impl Class {
    /// The label used in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

/// An error that knows its class.
///
/// Messages are lower-case fragments without a full stop that name the file, the reference or the key and never
/// a secret. A line that starts with `help: ` tells the reader what to do.
pub trait Fault: Error + Send + Sync + 'static {
    /// What kind of failure this is.
    fn class(&self) -> Class;
}

/// Joins an error and its sources into one message: `outer: inner: innermost`.
///
/// `help: …` lines of every link are moved to the end, one a line, each said once. Control characters, which the names
/// of a repository may hold and a terminal would obey, are shown and not printed.
pub fn report(error: &dyn Error) -> String {
    let mut causes = Vec::new();
    let mut help = Vec::new();
    let mut link = Some(error);
    while let Some(error) = link {
        let mut lines = Vec::new();
        for line in error.to_string().lines() {
            if line.starts_with("help: ") {
                if !help.iter().any(|known| known == line) {
                    help.push(line.to_owned());
                }
            } else {
                lines.push(line.to_owned());
            }
        }
        causes.push(lines.join("\n"));
        link = error.source();
    }
    let mut message = causes.join(": ");
    for line in help {
        message.push('\n');
        message.push_str(&line);
    }
    visible(message)
}

fn visible(message: String) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n';
    if !message.contains(obeyed) {
        return message;
    }
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open a.yaml\nhelp: add the key")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("open \u{1b}[2J.yaml\tor\nnot")]
    struct Hostile;

    #[derive(Debug, thiserror::Error)]
    #[error("no key matches\nhelp: add the key")]
    struct Inner;

    #[test]
    fn report_joins_the_chain_and_says_each_help_once() {
        assert_eq!(report(&Hostile), "open \\u{1b}[2J.yaml\\tor\nnot");
        assert_eq!(report(&Outer(Inner)), "open a.yaml: no key matches\nhelp: add the key");
    }
}
