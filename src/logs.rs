//! Log lines: structured, on stderr, without any secret at any level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
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

/// Starts logging as the operator says, else at `usual_level`. Libraries other than Strongroom are never logged below `warn`: some of them
/// print request bodies.
pub fn start(operator: &Operator, usual_level: &str) -> Result<(), LogError> {
    let level = operator.log.as_deref().unwrap_or(usual_level);
    let invalid = || LogError { level: level.to_owned() };
    let mut filter = EnvFilter::try_new(level).map_err(|_| invalid())?;
    for library in [
        "aws_config",
        "aws_sigv4",
        "aws_smithy_runtime",
        "h2",
        "hyper",
        "hyper_util",
        "rustls",
        "tonic",
        "tower",
    ] {
        filter = filter.add_directive(format!("{library}=warn").parse().map_err(|_| invalid())?);
    }
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, keeps the first.
    let _ = match operator.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    Ok(())
}
