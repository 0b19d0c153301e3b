//! What a person at a terminal sees beside the result: what a command waits for, and colours.
//!
//! Pipes and files get neither, nor does a terminal that cannot do it (`TERM=dumb`); `NO_COLOR` takes the colours away.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::Style;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::environment::Environment;
use crate::observe::{Observer, Stage};

/// Work that ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two lines.
const STEP: Duration = Duration::from_millis(250);

/// What the terminal of a command can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    colours: bool,
    progress: bool,
}

impl Terminal {
    /// That of this process.
    pub(super) fn of(environment: &Environment) -> Self {
        let able = environment.get("TERM").is_some_and(|term| term != "dumb");
        Self {
            colours: able && environment.get("NO_COLOR").is_none() && io::stdout().is_terminal(),
            progress: able && io::stderr().is_terminal(),
        }
    }

    /// `text` in `style`, where there are colours.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Awaits `work`; when that takes long, a line on stderr says what it waits for, and is gone in the end.
    pub(super) async fn watch<T>(self, observer: &Observer, work: impl Future<Output = T>) -> T {
        if !self.progress {
            return work.await;
        }
        tokio::pin!(work);
        let begun = Instant::now();
        let mut ticks = interval_at(begun + PATIENCE, STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut line = Line(io::stderr(), 0);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                _ = ticks.tick() => line.show(&told(observer.last(), begun.elapsed())),
            }
        }
    }
}

/// The line that the person types after `question`; `None` where nobody answers.
pub(super) async fn ask(question: &str) -> Option<String> {
    let _ = io::stderr().write_all(question.as_bytes());
    let (send, answer) = tokio::sync::oneshot::channel();
    // On a thread of the runtime it would keep a process from ending that is told to.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        let _ = send.send(matches!(read, Ok(1..)).then_some(line));
    });
    answer.await.ok().flatten()
}

fn told(stage: Stage, took: Duration) -> String {
    let what = match stage {
        Stage::Queue | Stage::Receive => "waiting for keys and stores",
        Stage::Plan => "reading the chart",
        Stage::Open => "opening value files",
        Stage::Resolve => "fetching references",
        Stage::Helm => "waiting for helm",
        Stage::Check => "checking the result",
    };
    format!("{what} … {} s", took.as_secs())
}

/// One line that is written again and again, and wiped when dropped; with its length.
struct Line<W: Write>(W, usize);

impl<W: Write> Line<W> {
    fn show(&mut self, text: &str) {
        self.wipe();
        // Nobody is left to tell when the terminal is gone.
        let _ = self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush());
        self.1 = text.chars().count();
    }

    fn wipe(&mut self) {
        if self.1 > 0 {
            let _ = write!(self.0, "\r{}\r", " ".repeat(self.1)).and_then(|()| self.0.flush());
        }
        self.1 = 0;
    }
}

impl<W: Write> Drop for Line<W> {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn a_line_takes_the_place_of_the_one_before_and_is_gone_in_the_end() {
        let mut written = Vec::new();
        let mut line = Line(&mut written, 0);
        line.show("long … 1 s");
        line.show("ab");
        drop(line);
        let spaces = " ".repeat(10);
        assert_eq!(String::from_utf8(written).unwrap(), format!("long … 1 s\r{spaces}\rab\r  \r"));
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        let (green, terminal) = (AnsiColor::Green.on_default(), Terminal { colours: true, progress: true });
        assert_eq!(terminal.paint(green, "a"), "\u{1b}[32ma\u{1b}[0m");
        assert_eq!(Terminal { colours: false, ..terminal }.paint(green, "a"), "a");
    }
}
