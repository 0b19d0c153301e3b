//! A helm that says what every process of the machine can see of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tools::tool;

/// No run takes longer to reach helm, even when other builds use the machine.
const START: Duration = Duration::from_secs(90);

/// A script in place of helm. It writes down its arguments, environment and open files, then goes on as told.
#[derive(Debug)]
pub struct WrappedHelm {
    folder: TempDir,
}

impl WrappedHelm {
    /// Goes on as the real helm.
    pub fn real() -> Self {
        Self::new(&format!("exec '{}' \"$@\"", tool("helm").display()))
    }

    /// Prints nothing and does not end for a long time.
    pub fn slow() -> Self {
        Self::new("/bin/sleep 600")
    }

    /// The same, and does not obey `SIGTERM`.
    pub fn stubborn() -> Self {
        Self::new("trap '' TERM; /bin/sleep 600; /bin/sleep 600")
    }

    /// Goes on by `script`, a shell script.
    pub fn new(script: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("strongroom-helm-").tempdir().unwrap();
        let seen = folder.path().join("seen").display().to_string();
        let text = format!(
            "#!/bin/sh\n{{ /bin/cat /proc/$$/cmdline /proc/$$/environ; /bin/ls -l /proc/$$/fd; }} >>'{seen}'\n\
             echo $$ >'{seen}.new' && /bin/mv '{seen}.new' '{seen}.pid'\n{script}\n"
        );
        let path = folder.path().join("helm");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// For `STRONGROOM_HELM`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("helm")
    }

    /// Arguments, environment and open files of every run so far.
    pub fn seen(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("seen")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How often it was asked to render.
    pub fn renders(&self) -> usize {
        self.seen().matches("\0template\0").count()
    }

    /// Waits until it runs; its process id.
    pub fn wait_until_started(&self) -> i32 {
        let pid = self.folder.path().join("seen.pid");
        let end = Instant::now() + START;
        loop {
            match std::fs::read_to_string(&pid) {
                Ok(text) => return text.trim().parse().unwrap(),
                Err(error) if Instant::now() > end => panic!("helm was not started: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// The processes of the process group `group` that are not yet ended.
pub fn group_members(group: i32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    processes.filter(|process| is_member(process, group)).map(|path| path.display().to_string()).collect()
}

fn is_member(process: &Path, group: i32) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The name in front may hold anything but the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    matches!(fields[..], [state, _, of, ..] if state != "Z" && of == group.to_string())
}
