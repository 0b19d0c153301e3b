//! Log lines: structured, on stderr, without any secret at any level.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Operator;
use crate::config::operator::LogFormat;
use crate::fault::{Class, Fault};

/// The log level cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "read the log level {level:?}\nhelp: STRONGROOM_LOG takes off, error, warn, info, debug, trace or a filter such as info,strongroom::refs=debug"
)]
pub struct LogError {
    level: String,
}

impl Fault for LogError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Starts logging as the operator says, else at `usual_level`.
///
/// Only Strongroom's own lines follow the level. No library is logged below `warn`, whatever the filter says: some of
/// them print what they send and receive.
pub fn start(operator: &Operator, usual_level: &str) -> Result<(), LogError> {
    let level = operator.log.as_deref().unwrap_or(usual_level);
    let filter = EnvFilter::try_new(level).map_err(|_| LogError { level: level.to_owned() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, keeps the first.
    let _ = match operator.log_format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).finish();
            lines.with(filter_fn(may_be_seen)).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().with(filter_fn(may_be_seen)).try_init(),
    };
    Ok(())
}

fn may_be_seen(metadata: &Metadata<'_>) -> bool {
    let module = metadata.target().split("::").next();
    module == Some("strongroom") || *metadata.level() <= Level::WARN
}
