//! The container image, built twice and started as Kubernetes starts a sidecar: uid 999, a read-only root, no capability,
//! no new privileges, the plugins folder and a memory-backed `/tmp`.
#![allow(clippy::disallowed_methods, reason = "a test passes its own environment on")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use support::MARKER;
use support::fake_aws::FakeSecretsManager;
use support::fake_dns;
use support::grpc_go::{grpc_go, told};
use support::process::Run;
use support::product::{generate, shipped};
use support::repository::Repository;
use support::tools::{on_path, tool, top};

/// Compressed, of all layers.
const LARGEST: u64 = 40 << 20;
const NAME: &str = "secretsmanager.strongroom.test";
/// Set by the test that makes a network namespace, for the one that runs in it.
const INSIDE: &str = "STRONGROOM_TEST_INSIDE";
/// The user of Argo CD's containers.
const ARGOCD: u32 = 999;

/// An archive that `image/build` made, unpacked.
struct Archive {
    path: PathBuf,
    blobs: TempDir,
}

impl Archive {
    fn build(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let tools = tool("helm").parent().unwrap().to_owned();
        let cache = tools.parent().and_then(Path::parent).unwrap();
        Run::new(top().join("image/build"))
            .arg(&path)
            .envs(std::env::vars_os())
            .env("STRONGROOM_SHIPPED", shipped())
            .env("STRONGROOM_CACHE", cache)
            .ok();
        let blobs = tempfile::tempdir().unwrap();
        Run::new(on_path("tar")).arg("-xf").arg(&path).arg("-C").arg(blobs.path()).ok();
        Self { path, blobs }
    }

    fn json(&self, path: &str) -> Json {
        serde_json::from_slice(&fs::read(self.blobs.path().join(path)).unwrap()).unwrap()
    }

    fn digest(&self) -> String {
        self.json("index.json")["manifests"][0]["digest"].as_str().unwrap().to_owned()
    }

    fn manifest(&self) -> Json {
        self.json(&blob(&self.json("index.json")["manifests"][0]))
    }

    fn configuration(&self) -> Json {
        self.json(&blob(&self.manifest()["config"]))["config"].clone()
    }

    /// Every file of every layer.
    fn files(&self) -> BTreeSet<String> {
        let manifest = self.manifest();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let list = layers.map(|layer| {
            Run::new(on_path("tar"))
                .arg("-tf")
                .arg(self.blobs.path().join(blob(layer)))
                .env("PATH", "/usr/bin:/bin")
                .ok()
        });
        let names: String = list.collect();
        names.lines().filter(|name| !name.ends_with('/')).map(str::to_owned).collect()
    }

    /// The content of one file of the one layer.
    fn read(&self, file: &str) -> String {
        let manifest = self.manifest();
        let layer = self.blobs.path().join(blob(&manifest["layers"][0]));
        Run::new(on_path("tar")).arg("-xOf").arg(layer).arg(file).env("PATH", "/usr/bin:/bin").ok()
    }

    fn bill(&self) -> Json {
        serde_json::from_slice(&fs::read(self.path.with_extension("spdx.json")).unwrap()).unwrap()
    }
}

/// Where the blob of this descriptor lies.
fn blob(descriptor: &Json) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

#[test]
fn two_builds_are_one_image_that_holds_the_two_programs_and_little_else() {
    let folder = tempfile::tempdir().unwrap();
    let (image, again) = (Archive::build(folder.path(), "one.tar"), Archive::build(folder.path(), "two.tar"));
    assert_eq!(image.digest(), again.digest());
    assert_eq!(image.bill(), again.bill());
    let files = [
        "etc/group",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "home/argocd/cmp-server/config/plugin.yaml",
        "usr/local/bin/helm",
        "usr/local/bin/strongroom",
        "usr/share/licenses/helm.txt",
    ];
    assert_eq!(image.files(), files.map(str::to_owned).into());
    let size = fs::metadata(&image.path).unwrap().len();
    assert!(size <= LARGEST, "{size} bytes");
    let configuration = image.configuration();
    assert_eq!(configuration["User"], "999:999");
    assert_eq!(configuration["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(configuration["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
    let licences = image.read("usr/share/licenses/helm.txt");
    assert!(licences.contains("\nhelm.sh/helm/v4 v4"), "{}", &licences[..200]);
    assert!(licences.contains("BSD 3-Clause") && licences.contains("Apache License"), "{}", &licences[..200]);
    let bill = image.bill();
    let names: Vec<_> = bill["packages"].as_array().unwrap().iter().map(|package| &package["name"]).collect();
    for part in ["strongroom", "rustls", "glibc", "libgcc", "helm", "sigs.k8s.io/yaml", "std"] {
        assert!(names.iter().any(|name| **name == part), "{part}");
    }
    for package in bill["packages"].as_array().unwrap() {
        assert_ne!(package["licenseDeclared"], "NOASSERTION", "{}", package["name"]);
    }
}

/// Podman with a storage of its own, which ends with the value.
struct Podman {
    storage: TempDir,
}

impl Podman {
    fn with(image: &Path) -> Self {
        let podman = Self { storage: tempfile::tempdir().unwrap() };
        podman.run(&["pull", "--quiet", &format!("oci-archive:{}", image.display())]).ok();
        podman
    }

    fn run(&self, args: &[&str]) -> Run {
        let at = |name: &str| self.storage.path().join(name);
        Run::new(on_path("podman"))
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"))
            .args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(args)
            .envs(std::env::vars_os())
    }

    /// `podman run` with what the values of `argocd-values/` ask of Kubernetes.
    fn start(&self, network: &str, more: &[&str]) -> Run {
        self.run(&["run", "--rm", "--network", network, "--read-only", "--read-only-tmpfs=false"])
            .args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"])
            // Without both, runc wants a capability that a container host may lack.
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"])
            .args(["--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=64m,mode=1777"])
            .args(more)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]).output();
    }
}

fn image() -> String {
    format!("localhost/strongroom:{}", env!("CARGO_PKG_VERSION"))
}

/// The folder that the repo-server shares with the sidecar, and the keys.
fn volumes(folder: &Path) -> [String; 2] {
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins).unwrap();
    chown(&plugins, Some(ARGOCD), Some(ARGOCD)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    [
        format!("{}:/home/argocd/cmp-server/plugins", plugins.display()),
        format!("{}:/etc/strongroom/keys:ro", top().join("examples/keys").display()),
    ]
}

#[test]
fn it_serves_as_a_locked_down_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let podman = Podman::with(&Archive::build(folder.path(), "image.tar").path);
    let [plugins, keys] = volumes(folder.path());
    podman
        .start("none", &["--detach", "--name", "sidecar", "-v", &plugins, "-v", &keys, &image(), "serve"])
        .ok();
    let end = Instant::now() + Duration::from_mins(1);
    while !podman.run(&["exec", "sidecar", "/usr/local/bin/strongroom", "health"]).output().status.success() {
        assert!(Instant::now() < end, "not healthy: {}", podman.run(&["logs", "sidecar"]).output().stderr);
        std::thread::sleep(Duration::from_millis(50));
    }

    let repository = Repository::with_example("hello");
    let parameters = r#"[{"name":"valueFiles","array":["secrets/database.yaml","secrets/mail.yaml"]}]"#;
    let told = told(generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", parameters));
    let socket = folder.path().join("plugins/strongroom.sock");
    let manifests = grpc_go(&socket, &repository.path(), "app").args(told).ok();
    assert!(manifests.contains("kind: Secret"), "{manifests}");

    let pid = podman.run(&["inspect", "--format", "{{.State.Pid}}", "sidecar"]).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    assert_eq!(of("Uid:"), Some("999"));
    assert_eq!(of("CapEff:"), Some("0000000000000000"));
    assert_eq!(of("NoNewPrivs:"), Some("1"));
    assert_eq!(of("Seccomp:"), Some("2"));
    let changed = podman.run(&["diff", "sidecar"]).ok();
    // The runtime's own mount points.
    let ours = changed.lines().filter(|line| {
        !line.starts_with("C ")
            && !["/etc", "/run", "/dev", "/proc", "/sys"].iter().any(|path| line[2..].starts_with(path))
    });
    let ours: Vec<_> = ours.filter(|line| !line.ends_with("/plugins")).collect();
    assert_eq!(ours, Vec::<&str>::new());
    podman.run(&["stop", "--time", "20", "sidecar"]).ok();
    assert!(!socket.exists(), "the socket is left behind");
}

#[test]
fn it_finds_a_server_by_name_and_speaks_tls_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = Archive::build(folder.path(), "image.tar");
    Run::new(on_path("unshare"))
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside_a_network_of_its_own", "--ignored", "--nocapture"])
        .envs(std::env::vars_os())
        .env(INSIDE, &image.path)
        .ok();
}

#[test]
#[ignore = "runs in the namespace that it_finds_a_server_by_name_and_speaks_tls_to_it makes"]
fn inside_a_network_of_its_own() {
    let archive = PathBuf::from(std::env::var_os(INSIDE).expect("the other test starts this one"));
    Run::new(on_path("ip")).args(["link", "set", "lo", "up"]).ok();
    let folder = tempfile::tempdir().unwrap();
    let server = FakeSecretsManager::start_tls(NAME, &[("team/database".to_owned(), MARKER.to_owned())]);
    let authority = folder.path().join("ca.crt");
    fs::write(&authority, server.authority()).unwrap();
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    for file in [&authority, &resolver] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fake_dns::start((Ipv4Addr::LOCALHOST, 53), NAME, Ipv4Addr::LOCALHOST);
    let podman = Podman::with(&archive);
    let mount = |file: &Path, at: &str| format!("{}:{at}:ro", file.display());
    let (authority, resolver) =
        (mount(&authority, "/etc/ssl/certs/ca-certificates.crt"), mount(&resolver, "/etc/resolv.conf"));
    let endpoint = format!("AWS_ENDPOINT_URL=https://{NAME}:{}", server.port());
    let environment =
        [&endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=eu-west-1"];
    let environment: Vec<_> = environment.iter().flat_map(|variable| ["--env", variable]).collect();
    let secret = podman
        .start("host", &["-v", &authority, "-v", &resolver])
        .args(environment)
        .args([&image(), "get", "ref+awssecrets://team/database"])
        .ok();
    assert_eq!(secret.trim_end(), MARKER);
}
