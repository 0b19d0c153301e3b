//! `strongroom serve` as a sidecar runs it, called by a real grpc-go client, with the real helm.
#![allow(clippy::disallowed_methods, reason = "the test looks after its own processes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use support::MARKER;
use support::grpc_go::grpc_go;
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::tools::top;
use tempfile::TempDir;

/// The last signal of a process that is not asked.
const KILL: i32 = 9;

/// The folders of a sidecar's container.
struct Pod {
    folder: TempDir,
    repository: Repository,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plugins", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, repository: Repository::with_example("hello") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("plugins/strongroom.sock")
    }

    /// Starts the sidecar and waits until it is healthy.
    fn start(&self) -> Sidecar {
        let log = File::create(self.path("log")).unwrap();
        let mut command = self
            .configured(strongroom())
            .env("ARGOCD_CMP_WORKDIR", self.path("work"))
            .env("STRONGROOM_HTTP", "127.0.0.1:0")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .arg("serve")
            .into_command();
        let sidecar = Sidecar(command.stderr(log).spawn().unwrap());
        let end = Instant::now() + Duration::from_mins(1);
        while !self.configured(strongroom()).arg("health").output().status.success() {
            assert!(Instant::now() < end, "not healthy:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        sidecar
    }

    fn configured(&self, run: Run) -> Run {
        run.env("ARGOCD_PLUGINSOCKFILEPATH", self.path("plugins"))
            .env("STRONGROOM_PLUGIN_CONFIG", self.path("plugin.yaml"))
    }

    /// A call for the app, with the environment that `generate` gets, and `more`, in which the later one counts.
    fn call(&self, more: &[&str]) -> Run {
        let command = self.generate().into_command();
        let told = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
        let told = told.filter(|(name, _)| name.starts_with("ARGOCD_") || name.starts_with("KUBE_"));
        let told: Vec<_> = told.map(|(name, value)| format!("{name}={value}")).collect();
        grpc_go(&self.socket(), &self.repository.path(), "app").args(told).args(more)
    }

    fn generate(&self) -> Run {
        generate(&self.repository, "app")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .env("ARGOCD_APP_PARAMETERS", PARAMETERS)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.path("work/_cmp_server")).unwrap().count()
    }
}

/// All three encrypted files of the example.
const PARAMETERS: &str =
    r#"[{"name":"valueFiles","array":["secrets/database.yaml","secrets/mail.yaml","secrets/session.yaml"]}]"#;

/// The process, gone with the test.
struct Sidecar(Child);

impl Sidecar {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_sidecar_gives_byte_for_byte_what_generate_gives() {
    let pod = Pod::new();
    let sidecar = pod.start();
    let expected = pod.generate().ok();
    assert!(expected.contains("kind: Secret"));
    for _ in 0..3 {
        assert_eq!(pod.call(&[]).ok(), expected);
    }
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    assert!(!pod.socket().exists());
    assert_eq!(pod.leftovers(), 0);
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn a_failure_is_one_message_that_names_the_app_and_keeps_secrets() {
    let pod = Pod::new();
    let _sidecar = pod.start();
    pod.repository.write("app/templates/broken.yaml", "a: {{ fail .Values.password }}\n");
    let rows = [
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"valueFiles","array":["none.yaml"]}]"#,
            "NotFound: render app \"hello\": none.yaml: no such file",
        ),
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"valuefiles","array":[]}]"#,
            "InvalidArgument: render app \"hello\": ",
        ),
        ("ARGOCD_APP_PARAMETERS=no", "InvalidArgument: render app \"hello\": "),
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"parameters","map":{"password":"ref+echo://STRONGROOM-MARKER-1"}}]"#,
            "InvalidArgument: render app \"hello\": ",
        ),
    ];
    for (parameters, expected) in rows {
        let message = pod.call(&[parameters]).fails();
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains(MARKER), "{message}");
    }
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn after_a_kill_it_starts_again_over_what_was_left() {
    let pod = Pod::new();
    let killed = pod.start();
    fs::create_dir_all(pod.path("work/_cmp_server/left/behind")).unwrap();
    killed.signal(rustix::process::Signal::KILL);
    assert_eq!(killed.end().signal(), Some(KILL));
    assert!(pod.socket().exists());
    let _sidecar = pod.start();
    assert_eq!(pod.leftovers(), 0);
    assert!(pod.call(&[]).ok().contains("kind: Secret"));
}
