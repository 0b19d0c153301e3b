//! The one place that starts other programs.
//!
//! A [`Program`] gets exactly the environment it is given, its own process group, a deadline, and bounds on what
//! it may write. Secrets reach it as [`MemoryFile`]s or on standard input, never in its arguments and never through
//! a path on disk. When the deadline passes, or the caller no longer waits, the whole group is ended and reaped.
//! A child that outlives a `SIGKILL` of Strongroom itself fails at its next write, because its pipes are gone.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::CommandFdExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;
use zeroize::Zeroize as _;

use crate::fault::{Class, Fault};
use crate::sandbox::Reach;
use crate::secret::Secret;

/// How long a program may take to obey `SIGTERM` before it gets `SIGKILL`.
const GRACE: Duration = Duration::from_millis(300);

/// A program to run, and the bounds of its run.
pub struct Program {
    /// Path of the executable, relative to our own working directory; a bare name is not looked up.
    pub path: PathBuf,
    /// Arguments, without any secret: every process on the machine can read them.
    pub args: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub directory: PathBuf,
    /// What it reads on standard input; `None` is an empty one.
    pub stdin: Option<Secret<Vec<u8>>>,
    /// Files it inherits, under the paths that [`MemoryFile::path`] says.
    pub files: Vec<MemoryFile>,
    /// What it may touch of the file system; `None` is all that this process may.
    pub reach: Option<Reach>,
    /// When it is ended.
    pub deadline: Instant,
    /// More bytes than this on standard output are an error.
    pub stdout_limit: usize,
    /// Bytes of standard error that are kept; the rest is read and dropped.
    pub stderr_limit: usize,
}

/// What a program wrote, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Standard output, whole.
    pub stdout: Secret<Vec<u8>>,
    /// The beginning of standard error. It may quote secrets.
    pub stderr: Secret<String>,
    /// Whether standard error was longer than its limit.
    pub stderr_cut: bool,
    /// Exit code, 0 for success.
    pub code: i32,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such file.
    #[error("{} not found", .program.display())]
    NotFound {
        /// Path of the executable.
        program: PathBuf,
    },
    /// The system refused to start it.
    #[error("{} cannot be started", .program.display())]
    Start {
        /// Path of the executable.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The pipes to it broke.
    #[error("lost the connection to {}", .program.display())]
    Pipe {
        /// Path of the executable.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A signal ended it.
    #[error("{} was killed by {}", .program.display(), signal_name(*.signal))]
    Killed {
        /// Path of the executable.
        program: PathBuf,
        /// Number of the signal.
        signal: i32,
    },
    /// It ran until the deadline.
    #[error("{} was still running after {:.1} s and was ended", .program.display(), .after.as_secs_f64())]
    TimedOut {
        /// Path of the executable.
        program: PathBuf,
        /// How long it ran.
        after: Duration,
    },
    /// It wrote more than it may.
    #[error("{} wrote more than {} MiB", .program.display(), .limit >> 20)]
    TooMuchOutput {
        /// Path of the executable.
        program: PathBuf,
        /// Allowed bytes.
        limit: usize,
    },
}

impl Fault for ProcessError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::Start { .. } | Self::Pipe { .. } => Class::Internal,
            Self::Killed { .. } => Class::Unavailable,
            Self::TimedOut { .. } => Class::Timeout,
            Self::TooMuchOutput { .. } => Class::Invalid,
        }
    }
}

/// Replaces this process by `program`, whose signals and exit code are then its own. Returns only if that failed.
///
/// `variables` may hold secrets: it is what the person at the terminal asks for. They win over those of this process,
/// which are kept where `inherit` says so.
pub fn replace(
    program: &Path,
    args: &[OsString],
    variables: &[(String, Secret<String>)],
    inherit: bool,
) -> ProcessError {
    #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
    let mut command = std::process::Command::new(program);
    if !inherit {
        command.env_clear();
    }
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value.expose())));
    let source = std::os::unix::process::CommandExt::exec(&mut command);
    let program = program.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ProcessError::NotFound { program },
        _ => ProcessError::Start { program, source },
    }
}

/// Runs `program` at the terminal of this process and in its environment, to its end, and gives its exit code. It is looked up
/// on `PATH`, and asked to end when the future is dropped.
pub async fn attend(program: &Path, args: &[OsString]) -> Result<i32, ProcessError> {
    #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
    let mut command = Command::new(program);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ProcessError::NotFound { program: program.to_owned() },
        _ => ProcessError::Start { program: program.to_owned(), source },
    };
    let mut child = command.args(args).spawn().map_err(failed)?;
    let mut guest = Guest(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let status = child.wait().await;
    guest.0 = None;
    let status = status.map_err(|source| ProcessError::Pipe { program: program.to_owned(), source })?;
    status.code().ok_or_else(|| ProcessError::Killed {
        program: program.to_owned(),
        signal: status.signal().unwrap_or_default(),
    })
}

/// A program that shares the terminal, as long as it runs.
struct Guest(Option<Pid>);

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may have ended just now.
            let _ = rustix::process::kill_process(id, Signal::TERM);
        }
    }
}

/// A file without a name, in memory, that a program can inherit.
///
/// On Linux it is a sealed `memfd`; elsewhere a private temporary file that is unlinked before it is written.
pub struct MemoryFile {
    file: OwnedFd,
}

/// A [`MemoryFile`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// Programs address inherited files through this directory.
    #[error("{directory} is missing\nhelp: mount proc at /proc in the container that runs strongroom")]
    NoDirectory {
        /// `/proc/self/fd` or `/dev/fd`.
        directory: &'static str,
    },
    /// The system refused.
    #[error("create a file in memory")]
    Create(#[source] io::Error),
}

impl Fault for MemoryFileError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

impl MemoryFile {
    #[cfg(target_os = "linux")]
    const DIRECTORY: &str = "/proc/self/fd";
    #[cfg(not(target_os = "linux"))]
    const DIRECTORY: &str = "/dev/fd";

    /// A file that holds `content` and cannot be changed.
    pub fn new(content: &[u8]) -> Result<Self, MemoryFileError> {
        if !Path::new(Self::DIRECTORY).exists() {
            return Err(MemoryFileError::NoDirectory { directory: Self::DIRECTORY });
        }
        create(content).map(|file| Self { file }).map_err(MemoryFileError::Create)
    }

    /// Where the program that inherits it finds it. The descriptor keeps its number, because giving it another one
    /// could overwrite a descriptor that the standard library needs between fork and exec.
    pub fn path(&self) -> String {
        format!("{}/{}", Self::DIRECTORY, self.file.as_raw_fd())
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({})", self.path())
    }
}

#[cfg(target_os = "linux")]
fn create(content: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let fd = memfd_create(c"strongroom", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

#[cfg(not(target_os = "linux"))]
fn create(content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Seek as _;
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

impl Program {
    /// Runs it to its end. Dropping the future ends the program.
    pub async fn run(mut self) -> Result<Output, ProcessError> {
        let started = Instant::now();
        let mut group = Group::start(&mut self)?;
        let remaining = self.deadline.saturating_duration_since(started);
        if let Ok(output) = timeout(remaining, group.attend(&mut self)).await {
            return output;
        }
        group.end().await;
        Err(ProcessError::TimedOut { program: self.path, after: started.elapsed() })
    }

    fn command(&mut self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
        let mut command = Command::new(&self.path);
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.drain(..))
            .current_dir(&self.directory)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .preserved_fds(self.files.drain(..).map(|memory| memory.file).collect());
        command
    }

    fn pipe_error(&self, source: io::Error) -> ProcessError {
        ProcessError::Pipe { program: self.path.clone(), source }
    }
}

/// A running program and everything it started that stayed in its process group.
struct Group {
    leader: Child,
    /// `None` once the group is known to be gone.
    id: Option<Pid>,
}

impl Group {
    fn start(program: &mut Program) -> Result<Self, ProcessError> {
        let bare = program.path.components().count() < 2;
        // Else the working directory, which may be anybody's, would say which program it is.
        program.path = if bare { program.path.clone() } else { absolute(&program.path) };
        if bare || !program.path.is_file() {
            return Err(ProcessError::NotFound { program: program.path.clone() });
        }
        let mut command = program.command();
        let runtime = Handle::current();
        let leader = match program.reach.take() {
            None => command.spawn(),
            Some(reach) => reach.within(move || {
                let _inside = runtime.enter();
                command.spawn()
            }),
        };
        let leader =
            leader.map_err(|source| ProcessError::Start { program: program.path.clone(), source })?;
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { leader, id })
    }

    /// Feeds and drains all pipes at once and waits for the end.
    async fn attend(&mut self, program: &mut Program) -> Result<Output, ProcessError> {
        let stdin = self.leader.stdin.take();
        let stdout = self.leader.stdout.take().expect("standard output is piped");
        let stderr = self.leader.stderr.take().expect("standard error is piped");
        let input = program.stdin.take();
        let feed = async {
            if let (Some(mut pipe), Some(input)) = (stdin, input) {
                // A program that does not want all of its input says so by its exit code.
                let _ = pipe.write_all(input.expose()).await;
            }
            Ok(())
        };
        let limit = program.stdout_limit;
        let output = async {
            let (text, cut) =
                drain(stdout, limit, Overflow::Stop).await.map_err(|e| program.pipe_error(e))?;
            if cut {
                return Err(ProcessError::TooMuchOutput { program: program.path.clone(), limit });
            }
            Ok(text)
        };
        let messages = async {
            drain(stderr, program.stderr_limit, Overflow::Drop).await.map_err(|e| program.pipe_error(e))
        };
        let end = async { self.wait().await.map_err(|e| program.pipe_error(e)) };
        let ((), stdout, (stderr, stderr_cut), status) = tokio::try_join!(feed, output, messages, end)?;
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                return Err(ProcessError::Killed { program: program.path.clone(), signal });
            }
        };
        Ok(Output { stdout, stderr: text(&stderr), stderr_cut, code })
    }

    /// Waits for the leader, then ends whatever it left behind, which also closes the pipes that this holds open.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait().await?;
        self.signal(Signal::KILL);
        self.id = None;
        Ok(status)
    }

    /// Ends the group: first asked, then forced.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if timeout(GRACE, self.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = timeout(GRACE, self.wait()).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // Fails only when no member is left, which is what it is for.
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    /// Nobody waits any more: no grace. The runtime reaps the leader (`kill_on_drop`); here it gets the time to.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if self.id.is_none() {
            return;
        }
        for _ in 0..50 {
            if !matches!(self.leader.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// From our own working directory; where that is gone, the path stays as it is and is not found.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What happens to bytes beyond the limit.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Overflow {
    Drop,
    Stop,
}

/// Reads `pipe` to its end; says whether there was more than `limit`. Growing wipes what it leaves behind.
async fn drain(
    mut pipe: impl AsyncRead + Unpin,
    limit: usize,
    overflow: Overflow,
) -> io::Result<(Secret<Vec<u8>>, bool)> {
    let mut kept = Secret::new(Vec::new());
    let mut chunk = Secret::new(vec![0; 64 << 10]);
    let mut cut = false;
    loop {
        let count = pipe.read(chunk.expose_mut()).await?;
        if count == 0 {
            return Ok((kept, cut));
        }
        let fitting = count.min(limit - kept.expose().len());
        append(&mut kept, &chunk.expose()[..fitting]);
        cut |= fitting < count;
        if cut && overflow == Overflow::Stop {
            return Ok((kept, cut));
        }
    }
}

fn append(kept: &mut Secret<Vec<u8>>, more: &[u8]) {
    let old = kept.expose_mut();
    if old.capacity() < old.len() + more.len() {
        let mut grown = Vec::with_capacity((2 * old.capacity()).max(old.len() + more.len()));
        grown.extend_from_slice(old);
        old.zeroize();
        *old = grown;
    }
    old.extend_from_slice(more);
}

fn text(bytes: &Secret<Vec<u8>>) -> Secret<String> {
    Secret::new(String::from_utf8_lossy(bytes.expose()).into_owned())
}

fn signal_name(signal: i32) -> String {
    let name = match Signal::from_named_raw(signal) {
        Some(Signal::KILL) => return "SIGKILL, which the kernel also sends when memory runs out".to_owned(),
        Some(Signal::TERM) => "SIGTERM",
        Some(Signal::SEGV) => "SIGSEGV",
        Some(Signal::ABORT) => "SIGABRT",
        Some(Signal::BUS) => "SIGBUS",
        Some(Signal::INT) => "SIGINT",
        Some(Signal::QUIT) => "SIGQUIT",
        Some(Signal::XCPU) => "SIGXCPU",
        Some(Signal::SYS) => "SIGSYS",
        Some(Signal::ILL) => "SIGILL",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            path: PathBuf::from("/bin/sh"),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            directory: std::env::temp_dir(),
            stdin: None,
            files: Vec::new(),
            reach: None,
            deadline: Instant::now() + Duration::from_secs(20),
            stdout_limit: 1 << 20,
            stderr_limit: 1 << 10,
        }
    }

    fn stdout(output: &Output) -> &str {
        std::str::from_utf8(output.stdout.expose()).unwrap()
    }

    /// Whether any process has `marker` in its arguments.
    fn alive(marker: &str) -> bool {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|args| {
                let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
                !own && String::from_utf8_lossy(&args).contains(marker)
            })
        })
    }

    fn gone(marker: &str) -> bool {
        let patience = Instant::now() + Duration::from_secs(5);
        while alive(marker) && Instant::now() < patience {
            std::thread::yield_now();
        }
        !alive(marker)
    }

    #[tokio::test]
    async fn a_program_sees_only_what_it_is_given() {
        let first = MemoryFile::new(b"STRONGROOM-MARKER one").unwrap();
        let second = MemoryFile::new(b" two").unwrap();
        let script = format!("cat {} {} -; echo; /usr/bin/env; exit 3", first.path(), second.path());
        let mut program = shell(&script);
        program.files = vec![first, second];
        program.stdin = Some(Secret::new(b" three".to_vec()));
        program.env = vec![("ONLY".into(), "this".into())];
        let output = program.run().await.unwrap();
        let mut lines = stdout(&output).lines();
        assert_eq!(lines.next(), Some("STRONGROOM-MARKER one two three"));
        assert!(
            lines
                .all(|line| ["ONLY=", "PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|v| line.starts_with(v)))
        );
        assert_eq!(output.code, 3);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn memory_files_have_no_name_on_disk_and_cannot_be_changed() {
        let file = MemoryFile::new(b"STRONGROOM-MARKER").unwrap();
        let mut program = shell(&format!("readlink {0}; echo x >> {0}", file.path()));
        program.files = vec![file];
        let output = program.run().await.unwrap();
        assert!(stdout(&output).starts_with("/memfd:strongroom"), "{}", stdout(&output));
        assert_ne!(output.code, 0);
    }

    #[tokio::test]
    async fn a_confined_program_reads_what_it_may_and_writes_nothing() {
        assert!(crate::sandbox::is_enforced(), "this kernel has no Landlock");
        let folder = tempfile::tempdir().unwrap();
        for name in ["mine", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("file"), name).unwrap();
        }
        let memory = MemoryFile::new(b"memory").unwrap();
        let script = format!(
            "cat mine/file {}; cat other/file; echo x > mine/file; echo x > new; mkdir made; rm mine/file; \
             cat /proc/1/environ; echo x > /dev/null; true",
            memory.path()
        );
        let run = |reach| Program {
            directory: folder.path().to_owned(),
            files: vec![MemoryFile { file: memory.file.try_clone().unwrap() }],
            reach,
            ..shell(&script)
        };
        let program = run(Some(Reach(vec![folder.path().join("mine")])));
        let script_of = script.replace(&memory.path(), &program.files[0].path());
        let output = Program { args: vec!["-c".into(), script_of.into()], ..program }.run().await.unwrap();
        assert_eq!(stdout(&output), "minememory");
        assert_eq!(output.stderr.expose().lines().count(), 6, "{}", output.stderr.expose());
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["mine", "other"]);
        // Nobody else lost anything.
        std::fs::write(folder.path().join("other/file"), "x").unwrap();
        assert!(shell("cat /etc/passwd").run().await.unwrap().code == 0);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_confined_program_speaks_to_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
        for (reach, reached) in [(Some(Reach::default()), false), (None, true)] {
            let program = Program { path: "/bin/bash".into(), reach, ..shell(&script) };
            assert_eq!(program.run().await.unwrap().code == 0, reached);
            assert_eq!(listener.accept().is_ok(), reached);
        }
    }

    #[tokio::test]
    async fn a_program_does_not_inherit_files_of_others() {
        let file = MemoryFile::new(b"STRONGROOM-MARKER").unwrap();
        let output = shell(&format!("cat {}", file.path())).run().await.unwrap();
        assert_ne!(output.code, 0);
        assert_eq!(stdout(&output), "");
    }

    #[tokio::test]
    async fn the_deadline_ends_the_whole_group() {
        let mut program = shell("sleep 86411 & trap '' TERM; sleep 86411; sleep 86411");
        program.deadline = Instant::now() + Duration::from_millis(100);
        let error = program.run().await.unwrap_err();
        assert_eq!(error.class(), Class::Timeout);
        assert!(error.to_string().starts_with("/bin/sh was still running after 0."), "{error}");
        assert!(gone("86411"));
    }

    #[tokio::test]
    async fn dropping_the_future_ends_the_whole_group() {
        let waiting = shell("sleep 86412 & sleep 86412").run();
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
        assert!(gone("86412"));
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_is_ended_with_it() {
        let output = shell("sleep 86413 & echo done").run().await.unwrap();
        assert_eq!(stdout(&output), "done\n");
        assert!(gone("86413"));
    }

    #[tokio::test]
    async fn both_pipes_are_drained_and_standard_error_is_cut() {
        let output = shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero").run().await.unwrap();
        assert_eq!(output.stdout.expose().len(), 300_000);
        assert_eq!((output.stderr.expose().len(), output.stderr_cut), (1 << 10, true));
    }

    #[tokio::test]
    async fn too_much_output_is_an_error() {
        let error = shell("cat /dev/zero").run().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh wrote more than 1 MiB");
        assert_eq!(error.class(), Class::Invalid);
    }

    #[tokio::test]
    async fn a_signal_is_named() {
        let error = shell("kill -SEGV $$").run().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh was killed by SIGSEGV");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let mut program = shell("STRONGROOM-MARKER");
        program.path = "/nowhere/helm".into();
        let error = program.run().await.unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/helm not found");
    }

    #[tokio::test]
    async fn a_program_in_the_working_directory_is_not_taken_for_ours() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("helm");
        std::fs::copy("/bin/true", &script).unwrap();
        for path in ["helm", "./helm"] {
            let mut program = shell("");
            program.path = path.into();
            program.directory = directory.path().to_owned();
            assert!(matches!(program.run().await, Err(ProcessError::NotFound { .. })), "{path}");
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_start_says_why_and_not_with_which_arguments() {
        let mut program = shell("STRONGROOM-MARKER");
        program.path = "/etc/passwd".into();
        let error = program.run().await.unwrap_err();
        let report = crate::fault::report(&error);
        assert!(report.starts_with("/etc/passwd cannot be started: Permission denied"), "{report}");
        assert!(!report.contains("MARKER"));
    }

    #[tokio::test]
    async fn input_that_nobody_reads_is_no_error() {
        let mut program = shell("echo ok");
        program.stdin = Some(Secret::new(vec![b'x'; 1 << 20]));
        assert_eq!(stdout(&program.run().await.unwrap()), "ok\n");
    }
}
