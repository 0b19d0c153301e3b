//! What each command does, from the operator's choices to the bytes for stdout.

mod amend;
mod assembly;
mod check;
mod docs;
mod edit;
mod encrypt;
mod environ;
mod explain;
mod files;
mod generate;
mod open;
mod private;
mod rotate;
mod serve;
mod template;
mod terminal;
mod version;
mod watched;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::config::{Cli, Command};
use crate::environment::Environment;
use crate::fault::{Class, Fault, report};
use crate::observe::Observer;
use crate::secret::Secret;
use crate::signals::Termination;

use assembly::Trust;
use terminal::Terminal;

/// Why a command failed, as a person reads it, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    message: String,
    /// The process's exit code.
    pub code: u8,
    /// What goes to stdout all the same.
    pub output: Secret<Vec<u8>>,
}

impl Failure {
    fn new(message: impl Into<String>, code: u8) -> Self {
        Self { message: message.into(), code, output: Secret::default() }
    }

    /// An error, with what was being done in front.
    fn of(doing: impl fmt::Display, error: &dyn Fault) -> Self {
        Self::new(format!("failed to {doing}: {}", report(error)), exit_code(error.class()))
    }

    /// Several errors of one kind, with what was being done in front.
    fn all<E: Fault>(doing: &str, errors: &[E]) -> Self {
        let reports: Vec<_> = errors.iter().map(|error| report(error)).collect();
        let class = errors.first().map_or(Class::Internal, Fault::class);
        Self::new(format!("failed to {doing} {}", reports.join("\n")), exit_code(class))
    }

    /// A defect of the installation.
    pub fn internal(error: impl std::error::Error) -> Self {
        Self::new(error.to_string(), exit_code(Class::Internal))
    }

    /// What was typed is not what the command takes.
    fn usage(message: impl Into<String>) -> Self {
        Self::new(message, 2)
    }

    /// A signal came first.
    pub fn stopped(signal: Termination) -> Self {
        Self::new(format!("stopped by {signal}"), signal.exit_code())
    }
}

impl<E: Fault> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(format!("failed to {}", report(&error)), exit_code(error.class()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

const fn exit_code(class: Class) -> u8 {
    match class {
        Class::Invalid | Class::NotFound | Class::Denied => 1,
        Class::Internal => 70,
        Class::Timeout | Class::Unavailable => 75,
    }
}

/// Runs the command and returns what goes to stdout. What `stop` says first ends it.
pub async fn run(
    cli: Cli,
    environment: Environment,
    stop: impl Future<Output = Termination> + Send,
) -> Result<Secret<Vec<u8>>, Failure> {
    if let Command::Serve(args) = &cli.command {
        let confined = !args.unconfined_helm;
        let assemble = || assembly::renderer(&cli.operator, Trust::Application, &environment, confined);
        let keys = [
            ("keys", assembly::key_files(&cli.operator, &environment)),
            ("passphrase", Vec::from_iter(cli.operator.passphrase_file.clone())),
        ];
        return serve::run(args, assemble, keys, stop).await;
    }
    tokio::select! {
        output = once(cli, environment) => output,
        signal = stop => Err(Failure::stopped(signal)),
    }
}

/// Gives up what `serve` and `generate` do not need, before any thread is there: other processes of the same user cannot
/// read the memory of this one, no core is dumped, and no program that is started gains privileges. Not done on a
/// terminal, where it would also take `/dev/fd` away from an unprivileged person.
///
/// What the kernel refused is returned.
pub fn lock_down(command: &Command) -> Vec<io::Error> {
    #[cfg(target_os = "linux")]
    if matches!(command, Command::Serve(_) | Command::Generate(_)) {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        let no_core = Rlimit { current: Some(0), maximum: Some(0) };
        let refused = [
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
            setrlimit(Resource::Core, no_core),
            rustix::thread::set_no_new_privs(true),
        ];
        return refused.into_iter().filter_map(|outcome| Some(outcome.err()?.into())).collect();
    }
    Vec::new()
}

/// A command that ends by itself.
async fn once(cli: Cli, environment: Environment) -> Result<Secret<Vec<u8>>, Failure> {
    let operator = cli.operator;
    let renderer = |trust| assembly::renderer(&operator, trust, &environment, false);
    let (terminal, observer) = (Terminal::of(&environment), Observer::keeping_trail());
    match cli.command {
        Command::Serve(_) => unreachable!("it does not end by itself"),
        Command::Health(args) => serve::health(&args).await,
        Command::Generate(args) => generate::run(&args, &renderer(Trust::Application)?, &environment).await,
        Command::Template(args) => {
            let renderer = renderer(Trust::Person)?;
            terminal.watch(&observer, template::run(&args, &renderer, &observer)).await
        }
        Command::Check(args) => {
            let renderer = renderer(Trust::Person)?;
            terminal.watch(&observer, check::run(&args, &renderer, &observer, terminal)).await
        }
        Command::Explain(args) => {
            let renderer = renderer(Trust::Person)?;
            terminal.watch(&observer, explain::run(&args, &renderer, &observer, terminal)).await
        }
        Command::Decrypt(args) => open::decrypt(&args, &renderer(Trust::Person)?).await,
        Command::Encrypt(args) => encrypt::run(&args, &operator, &environment).await,
        Command::Edit(args) => edit::run(&args, &operator, &renderer(Trust::Person)?, &environment).await,
        Command::Set(args) => amend::set(&args, &renderer(Trust::Person)?).await,
        Command::Unset(args) => amend::unset(&args, &renderer(Trust::Person)?).await,
        Command::Rotate(args) => {
            rotate::rotate(&args, &operator, &renderer(Trust::Person)?, &environment).await
        }
        Command::UpdateKeys(args) => {
            let wrappers = assembly::wrappers(&operator, &environment, &[])?;
            rotate::update_keys(&args, &renderer(Trust::Person)?, &wrappers).await
        }
        Command::Resolve(args) => {
            let renderer = renderer(Trust::Person)?;
            terminal.watch(&observer, open::resolve(&args, &renderer)).await
        }
        Command::Get(args) => open::get(&args, &renderer(Trust::Person)?).await,
        Command::Env(args) => environ::env(&args, &renderer(Trust::Person)?).await,
        Command::Exec(args) => environ::exec(&args, &renderer(Trust::Person)?, &environment).await,
        Command::Version(args) => version::run(&args),
        Command::Man { command } => man(command.as_deref()),
        Command::Completion { shell } => Ok(completion(shell)),
        Command::Docs { page } => Ok(docs::page(page).into_bytes().into()),
    }
}

/// A panic message can hold a piece of the text that was being sliced, so only its place is told.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|panic| {
        use io::Write;
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(io::stderr(), "strongroom: internal error at {place}; please report it");
    }));
}

fn completion(shell: clap_complete::Shell) -> Secret<Vec<u8>> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "strongroom", &mut script);
    script.into()
}

/// The manual page of the program, or of one command.
fn man(command: Option<&str>) -> Result<Secret<Vec<u8>>, Failure> {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::usage(format!("there is no command {name}")))?
        }
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(Failure::internal)?;
    Ok(roff.into())
}

/// A file or directory named by the person at the terminal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
struct InputError {
    path: String,
    source: io::Error,
}

impl Fault for InputError {
    fn class(&self) -> Class {
        match self.source.kind() {
            io::ErrorKind::NotFound => Class::NotFound,
            io::ErrorKind::PermissionDenied => Class::Denied,
            _ => Class::Invalid,
        }
    }
}

/// The absolute path without symlinks of a directory that exists.
fn directory(path: &Path) -> Result<PathBuf, InputError> {
    path.canonicalize().map_err(|source| InputError { path: path.display().to_string(), source })
}

/// As [`input`], with the exit codes of sops.
fn input_of_sops(path: &Path) -> Result<Secret<Vec<u8>>, Failure> {
    input(path).map_err(|error| {
        let code = if error.class() == Class::NotFound { 100 } else { 2 };
        Failure { code, ..Failure::from(error) }
    })
}

/// A file that the person named, or stdin for `-`.
fn input(path: &Path) -> Result<Secret<Vec<u8>>, InputError> {
    use io::Read;
    let read = || {
        let mut bytes = Secret::default();
        if path == Path::new("-") {
            io::stdin().lock().read_to_end(bytes.expose_mut())?;
        } else {
            std::fs::File::open(path)?.read_to_end(bytes.expose_mut())?;
        }
        Ok(bytes)
    };
    read().map_err(|source| InputError { path: path.display().to_string(), source })
}
