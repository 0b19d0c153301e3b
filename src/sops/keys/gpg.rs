//! The user's own gpg, for keys that gpg-agent or a smart card holds. For terminals only.
//!
//! gpg uses whichever secret key it has, not only the one that a file names, so this holder never serves an Argo CD
//! sidecar. The sealed key goes in on standard input and the data key comes out on standard output.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Mutex;

use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::process::{Output, ProcessError, Program};
use crate::secret::Secret;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// Time to find the passphrase and type it into pinentry.
const DEADLINE: Duration = Duration::from_mins(1);
const OUTPUT_LIMIT: usize = 4096;
/// A public key with many signatures.
const EXPORT_LIMIT: usize = 4 << 20;
/// What gpg and pinentry need to find the home, the agent and the screen.
const VARIABLES: [&str; 13] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GNUPGHOME",
    "GPG_TTY",
    "HOME",
    "LOGNAME",
    "PATH",
    "TERM",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// Asks gpg, one sealed key at a time, because gpg-agent runs out of locked memory when asked for many at once.
#[derive(Debug)]
pub struct Gpg {
    path: PathBuf,
    variables: Environment,
    turn: Mutex<()>,
}

impl Gpg {
    /// The gpg that `SOPS_GPG_EXEC` names, else the first one in `PATH`.
    pub fn find(environment: &Environment) -> Option<Self> {
        let path = match environment.get("SOPS_GPG_EXEC") {
            Some(name) => look_up(name, environment)?,
            None => look_up("gpg", environment)?,
        };
        let variables =
            VARIABLES.iter().filter_map(|name| Some((*name, environment.get_raw(name)?))).collect();
        Some(Self { path, variables, turn: Mutex::new(()) })
    }

    /// The public key that gpg calls by this name; nothing where it has none.
    pub(in crate::sops) async fn export(&self, name: &str) -> Result<Vec<u8>, UnwrapError> {
        let output = self.run(&["--export", "--", name], None, EXPORT_LIMIT).await?;
        Ok(output.stdout.expose().clone())
    }

    async fn decrypt(&self, enc: &str) -> Result<DataKey, UnwrapError> {
        let enc = Secret::new(enc.as_bytes().to_vec());
        self.run(&["--decrypt"], Some(enc), OUTPUT_LIMIT).await.and_then(data_key)
    }

    async fn run(
        &self,
        arguments: &[&str],
        stdin: Option<Secret<Vec<u8>>>,
        stdout_limit: usize,
    ) -> Result<Output, UnwrapError> {
        let _turn = self.turn.lock().await;
        let program = Program {
            path: self.path.clone(),
            args: ["--batch", "--quiet", "--no-tty"].iter().chain(arguments).map(OsString::from).collect(),
            env: self.variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            directory: "/".into(),
            stdin,
            files: Vec::new(),
            reach: None,
            deadline: Instant::now() + DEADLINE,
            stdout_limit,
            stderr_limit: OUTPUT_LIMIT,
        };
        program.run().await.map_err(|error| told(&error))
    }
}

impl KeyUnwrap for Gpg {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Pgp { enc, .. } => Some(self.decrypt(enc).await),
                _ => None,
            }
        }
        .boxed()
    }
}

fn look_up(name: &str, environment: &Environment) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let folders = std::env::split_paths(environment.get_raw("PATH")?).collect::<Vec<_>>();
    folders.iter().map(|folder| folder.join(name)).find(|path: &PathBuf| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_absolute() && path.is_file()
}

fn told(error: &ProcessError) -> UnwrapError {
    UnwrapError::new(error.class(), error.to_string())
}

/// gpg's words may quote what it decrypted, so only their meaning is passed on.
fn data_key(output: Output) -> Result<DataKey, UnwrapError> {
    if output.code == 0 {
        return Ok(output.stdout);
    }
    let words = output.stderr.expose().to_lowercase();
    let (class, reason) = if words.contains("no secret key") {
        (Class::Denied, "gpg has no secret key for it")
    } else if words.contains("cancel") || words.contains("passphrase") || words.contains("pinentry") {
        (
            Class::Denied,
            "gpg did not get the passphrase of the key\nhelp: set GPG_TTY=$(tty), or unlock the key first",
        )
    } else {
        (Class::Invalid, "gpg does not open it")
    };
    Err(UnwrapError::new(class, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(code: i32, stderr: &str) -> Output {
        Output {
            stdout: Secret::new(b"STRONGROOM-MARKER".to_vec()),
            stderr: Secret::new(stderr.into()),
            stderr_cut: false,
            code,
        }
    }

    #[test]
    fn gpg_is_found_in_path_or_where_sops_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let gpg = folder.path().join("gpg");
        std::fs::write(&gpg, "").unwrap();
        let path = std::env::join_paths(["relative".as_ref(), folder.path()]).unwrap();
        let found = |name: &str, value: OsString| Gpg::find(&Environment::from_iter([(name, value)]));
        assert_eq!(found("PATH", path).unwrap().path, gpg);
        assert_eq!(found("SOPS_GPG_EXEC", gpg.clone().into()).unwrap().path, gpg);
        assert!(found("SOPS_GPG_EXEC", "/nonexistent/gpg".into()).is_none());
        assert!(found("HOME", "/".into()).is_none());
    }

    #[test]
    fn gpgs_words_are_never_passed_on() {
        let table = [
            (
                2,
                "gpg: decryption failed: No secret key STRONGROOM-MARKER",
                Class::Denied,
                "gpg has no secret key for it",
            ),
            (2, "gpg: STRONGROOM-MARKER", Class::Invalid, "gpg does not open it"),
        ];
        for (code, stderr, class, reason) in table {
            let error = data_key(output(code, stderr)).unwrap_err();
            assert_eq!((error.class, error.reason.as_str()), (class, reason));
        }
        assert_eq!(data_key(output(0, "")).unwrap().expose(), b"STRONGROOM-MARKER");
    }
}
