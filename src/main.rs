//! The `strongroom` binary: logs, arguments, one command, one exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use strongroom::commands::{self, Failure};
use strongroom::config::Cli;
use strongroom::environment::Environment;
use strongroom::secret::Secret;
use strongroom::signals;

fn main() -> ExitCode {
    commands::silence_panics();
    let cli = Cli::parse();
    match run(cli) {
        Ok(output) => print(&output),
        Err(failure) => complain(&failure),
    }
}

fn run(cli: Cli) -> Result<Secret<Vec<u8>>, Failure> {
    let environment = Environment::of_process();
    let refused = commands::lock_down(&cli.command);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::internal)?;
    let inside = runtime.enter();
    let stop = signals::termination();
    let logs = strongroom::logs::start(&cli, &environment)?;
    drop(inside);
    for error in refused {
        tracing::warn!(%error, "the kernel does not let this process lock itself down");
    }
    let output = runtime.block_on(commands::run(cli, environment, stop));
    logs.end(output.is_ok());
    output
}

/// The result goes out in one piece and only when it is whole.
fn print(output: &Secret<Vec<u8>>) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(output.expose()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => complain(&Failure::internal(error)),
    }
}

fn complain(failure: &Failure) -> ExitCode {
    let _ = io::stdout().lock().write_all(failure.output.expose());
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "strongroom: {failure}");
    ExitCode::from(failure.code)
}
