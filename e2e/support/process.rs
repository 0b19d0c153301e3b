//! One run of a program, with an environment of its own and a limit in time.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No single run of a program takes longer.
const LIMIT: Duration = Duration::from_mins(2);

/// A program to be run. It starts with an empty environment.
#[derive(Debug)]
pub struct Run {
    command: Command,
    stdin: Vec<u8>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Run {
    /// Will start `program`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        Self { command, stdin: Vec::new() }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets one variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets variables.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Takes one variable away.
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs in `directory`.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Writes `text` to standard input, which is empty otherwise.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// The command as it stands, for a test that needs the process while it runs.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end, which may be any.
    pub fn output(mut self) -> Output {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = self.command.get_program().to_owned();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input is free to end first.
        let feed = std::thread::spawn(move || stdin.write_all(&self.stdin).ok());
        let status = wait(&mut child, &program);
        feed.join().unwrap();
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }

    /// Runs it and returns standard output; the test fails when it fails.
    pub fn ok(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "failed with {}:\n{}", output.status, output.stderr);
        output.stdout
    }

    /// Runs it and returns standard error; the test fails when it does not fail, or prints anything else.
    pub fn fails(self) -> String {
        let output = self.output();
        assert!(!output.status.success(), "it did not fail, and printed:\n{}", output.stdout);
        assert_eq!(output.stdout, "", "a failed run printed to standard output");
        output.stderr
    }
}

impl Output {
    /// Both streams, to look for something that must be in neither.
    pub fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Reads on a thread of its own, so that neither pipe can fill up and block the program.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).expect("the program prints UTF-8")
    })
}

fn wait(child: &mut Child, program: &OsStr) -> ExitStatus {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{} ran longer than {LIMIT:?}", program.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
