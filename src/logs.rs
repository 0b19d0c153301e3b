//! Log lines, the audit trail and traces: where they go, without any secret at any level.
//!
//! Lines go to stderr. The audit trail is always JSON, one object a line, whatever the level of the others is: `serve`
//! writes it to stderr too; `generate` only after it succeeded, since Argo CD shows what a failed command wrote to the
//! application's users. A file gets it at once. Other commands leave none.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, FilterFn, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::operator::{AuditTrail, LogFormat};
use crate::config::{Cli, Command};
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::observe::traces::{Traces, TracesError};
use crate::observe::{STAGES, audit};

/// Logging cannot start as the operator says.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be read.
    #[error(
        "read the log level {0:?}\nhelp: STRONGROOM_LOG takes off, error, warn, info, debug, trace or a filter such as info,strongroom::refs=debug"
    )]
    Level(String),
    /// The audit trail has nowhere to go.
    #[error("append the audit trail to {}\nhelp: STRONGROOM_AUDIT takes stderr, off or an absolute path", .path.display())]
    Audit {
        /// Where it should go.
        path: PathBuf,
        /// Why it does not.
        source: io::Error,
    },
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

impl Fault for LogError {
    fn class(&self) -> Class {
        match self {
            Self::Level(_) | Self::Audit { .. } => Class::Invalid,
            Self::Traces(error) => error.class(),
        }
    }
}

/// What has to be done when the process ends.
#[derive(Debug)]
pub struct Logs {
    held: Option<Held>,
    traces: Option<Traces>,
}

/// Starts logging as the operator says. To be called inside the runtime.
///
/// Only Strongroom's own lines follow the level. No library is logged below `warn`, whatever the filter says: some of
/// them print what they send and receive.
pub fn start(cli: &Cli, environment: &Environment) -> Result<Logs, LogError> {
    let operator = &cli.operator;
    let level = operator.log.as_deref().unwrap_or(cli.command.usual_log_level());
    let filter = EnvFilter::try_new(level).map_err(|_| LogError::Level(level.to_owned()))?;
    let serves = matches!(cli.command, Command::Serve(_));
    let traces = if serves { Traces::start(environment)? } else { None };
    let (trail, held) = trail(&cli.command, operator.audit.as_ref())?;
    let lines = match operator.log_format {
        LogFormat::Text => fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    let trail = trail.map(|writer| {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        let audit = FilterFn::new(|metadata: &Metadata<'_>| metadata.target() == audit::TARGET);
        lines.with_writer(writer).with_filter(audit.with_max_level_hint(Level::INFO))
    });
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(filter_fn(may_be_seen))))
        .with(trail)
        .with(traces.as_ref().map(Traces::layer))
        .try_init();
    Ok(Logs { held, traces })
}

impl Logs {
    /// Lets go of what was held back for the end.
    pub fn end(self, succeeded: bool) {
        if let Some(held) = self.held.filter(|_| succeeded) {
            // Nobody is left to tell when stderr is closed.
            let _ = io::stderr().write_all(&held.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if let Some(traces) = self.traces {
            traces.end();
        }
    }
}

fn may_be_seen(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target.split("::").next() == Some("strongroom") && ![STAGES, audit::TARGET].contains(&target);
    ours || (*metadata.level() <= Level::WARN && !target.starts_with("strongroom"))
}

type Trail = (Option<BoxMakeWriter>, Option<Held>);

fn trail(command: &Command, chosen: Option<&AuditTrail>) -> Result<Trail, LogError> {
    match (command, chosen) {
        (Command::Serve(_) | Command::Generate(_), Some(AuditTrail::File(path))) => {
            let source = |source| LogError::Audit { path: path.clone(), source };
            let file = append(path).map_err(source)?;
            Ok((Some(BoxMakeWriter::new(Mutex::new(file))), None))
        }
        (Command::Serve(_), None | Some(AuditTrail::Stderr)) => {
            Ok((Some(BoxMakeWriter::new(io::stderr)), None))
        }
        (Command::Generate(_), None | Some(AuditTrail::Stderr)) => {
            let held = Held::default();
            let writer = held.clone();
            Ok((Some(BoxMakeWriter::new(move || writer.clone())), Some(held)))
        }
        _ => Ok((None, None)),
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Lines that wait for the end.
#[derive(Clone, Debug, Default)]
struct Held(Arc<Mutex<Vec<u8>>>);

impl Write for Held {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
