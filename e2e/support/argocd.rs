//! The real repo-server of a released Argo CD with a real redis, and what Argo CD's other parts ask of it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::process::Run;
use super::repository::Repository;
use super::server::{Server, free_address};
use super::tools::{on_path, tool};

/// A release of Argo CD, with the helm of its own image's major version.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The tool that has its servers.
    pub servers: &'static str,
    /// The helm.
    pub helm: &'static str,
    /// What its repo-server wants to be told.
    flags: &'static [&'static str],
}

/// The newest release, and the oldest that is still supported.
pub const RELEASES: [Release; 2] = [NEWEST, OLDEST];

/// The newest. Without TLS it refuses its own default for a client's authority.
pub const NEWEST: Release = Release { servers: "argocd", helm: "helm", flags: &["--client-ca-path="] };
const OLDEST: Release = Release { servers: "argocd-min", helm: "helm3", flags: &[] };

/// A running repo-server.
#[derive(Debug)]
pub struct ArgoCd {
    /// Which one it is.
    pub release: Release,
    repo_server: Server,
    _redis: Server,
}

impl ArgoCd {
    /// Starts one; `flags` are its own.
    pub fn start(release: Release, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("argocd-").tempdir().unwrap();
        for name in ["bin", "plugins", "ssh", "tls", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        symlink(tool(release.helm), folder.path().join("bin/helm")).unwrap();
        no_signatures(&folder.path().join("bin/git-verify-wrapper.sh"));
        let redis = redis();
        let repo_server = repo_server(release, folder, redis.address, flags);
        Self { release, repo_server, _redis: redis }
    }

    /// The folder of the plugins' sockets.
    pub fn plugins(&self) -> PathBuf {
        self.repo_server.home.join("plugins")
    }

    /// All that the repo-server said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.repo_server.home.join("log")).unwrap()
    }

    /// One call, which may take as long as `limit` says.
    pub fn call(&self, method: &str, request: &Json, limit: &str) -> Run {
        Run::new(tool(self.release.servers))
            .args(["call", &self.repo_server.address.to_string(), method, limit])
            .stdin(request.to_string())
    }

    /// Argo CD's own server for plugins that are commands, set up by the `plugin.yaml` in `config`.
    pub fn cmp_server(&self, config: &Path) -> Run {
        cmp_server(self.release, config, &self.plugins())
    }
}

/// The same beside no repo-server, with its socket in `plugins`.
pub fn cmp_server(release: Release, config: &Path, plugins: &Path) -> Run {
    Run::new(tool(release.servers))
        .args(["cmp-server", "--logformat", "text", "--config-dir-path"])
        .arg(config)
        .env("ARGOCD_PLUGINSOCKFILEPATH", plugins)
        .env("TMPDIR", config)
}

/// Redis as Argo CD uses it: for what can be made again.
fn redis() -> Server {
    let folder = tempfile::Builder::new().prefix("redis-").tempdir().unwrap();
    // It cannot choose a port itself.
    let address = free_address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let directory = folder.path().display().to_string();
    let arguments = ["--bind", &ip, "--port", &port, "--save", "", "--appendonly", "no", "--dir", &directory];
    let listening = |said: &str| {
        let (_, rest) = said.split_once("port=")?;
        let port = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        said.contains("Ready to accept connections").then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    Server::start(&on_path("redis-server"), &arguments, folder, listening)
}

fn repo_server(release: Release, folder: TempDir, redis: SocketAddr, flags: &[&str]) -> Server {
    let at = |name: &str| folder.path().join(name).display().to_string();
    let path = std::env::var("PATH").unwrap();
    let environment = [
        format!("PATH={}:{path}", at("bin")),
        format!("HOME={}", at("tmp")),
        format!("TMPDIR={}", at("tmp")),
        format!("ARGOCD_PLUGINSOCKFILEPATH={}", at("plugins")),
        format!("ARGOCD_SSH_DATA_PATH={}", at("ssh")),
        format!("ARGOCD_TLS_DATA_PATH={}", at("tls")),
        format!("ARGOCD_ASK_PASS_SOCK={}", at("ask-pass.sock")),
        // Keyrings are a matter of Argo CD's own.
        "ARGOCD_GPG_ENABLED=false".to_owned(),
        // Else a failure is told again from its cache for an hour.
        "ARGOCD_PAUSE_GEN_AFTER_FAILED_ATTEMPTS=0".to_owned(),
    ];
    let (program, redis) = (tool(release.servers), redis.to_string());
    let mut arguments = vec!["-i"];
    arguments.extend(environment.iter().map(String::as_str));
    arguments.extend([program.to_str().unwrap(), "repo-server", "--address", "127.0.0.1", "--port", "0"]);
    arguments.extend(["--metrics-address", "127.0.0.1", "--metrics-port", "0", "--redis", &redis]);
    arguments.extend(["--disable-tls", "--logformat", "text", "--loglevel", "debug"]);
    arguments.extend(release.flags);
    arguments.extend(flags);
    let listening = |said: &str| {
        let (_, rest) = said.split_once("argocd-repo-server is listening on ")?;
        rest.split(['"', '\n']).next()?.parse().ok()
    };
    Server::start(&on_path("env"), &arguments, folder, listening)
}

/// In place of the script of Argo CD's image that verifies signatures: there are none.
fn no_signatures(script: &Path) {
    fs::write(script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Commits all that is in a repository; the commit.
pub fn commit(repository: &Repository) -> String {
    let git = |arguments: &[&str]| {
        Run::new(on_path("git"))
            .env("HOME", "/nonexistent")
            .directory(repository.path())
            .args(["-c", "user.name=test", "-c", "user.email=test@strongroom.example"])
            .args(arguments)
            .ok()
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "--all", "--force"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "test"]);
    git(&["rev-parse", "HEAD"]).trim().to_owned()
}

/// The source of an application: a folder of a repository, and `more` of the Application's own words.
pub fn source(repository: &Repository, path: &str, more: Json) -> Json {
    let mut source = json!({"repoURL": url(repository), "path": path, "targetRevision": "main"});
    merge(&mut source, more);
    source
}

/// What the controller asks to have application `name` rendered from `source` at `revision`.
pub fn manifest_request(name: &str, source: &Json, revision: &str) -> Json {
    json!({
        "repo": {"repo": source["repoURL"]},
        "revision": revision,
        "appName": name,
        "namespace": "demo",
        "projectName": "default",
        "appLabelKey": "app.kubernetes.io/instance",
        "kubeVersion": "1.33.0",
        "apiVersions": ["v1", "apps/v1"],
        "applicationSource": source,
    })
}

/// What the user interface asks about application `name`.
pub fn details_request(name: &str, source: &Json) -> Json {
    json!({"repo": {"repo": source["repoURL"]}, "appName": name, "source": source})
}

fn url(repository: &Repository) -> String {
    format!("file://{}", repository.path().display())
}

fn merge(into: &mut Json, from: Json) {
    let (Json::Object(into), Json::Object(from)) = (into, from) else { panic!("both are objects") };
    into.extend(from);
}
