//! `GenerateManifest` through the plugin's socket, against Argo CD's own plugin server, which runs a shell, `sops` for each file and
//! `helm`: what helm-secrets comes down to.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize as _;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::support::argocd::{self, NEWEST};
use super::support::grpc_go::{grpc_go, told};
use super::support::keys::AgeKey;
use super::support::process::Run;
use super::support::product::{generate_with, shipped};
use super::support::repository::Repository;
use super::support::sidecar::Sidecar;
use super::support::sops::encrypt;
use super::support::tools::{on_path, tool};
use super::table::{AtMost, Table, median, milliseconds};

const ROUNDS: usize = 3;
const FILES: [&str; 3] = ["database", "mail", "session"];
/// Of what a cold render takes the stock way, helm alone is two fifths with the small chart, and most with the large one.
const CHARTS: [(&str, usize, f64); 2] = [("small chart", 1, 0.5), ("30,000-line chart", 600, 0.75)];
const AT_ONCE: [usize; 3] = [1, 4, 16];
const APPS: usize = 200;
/// Each of them is a hundred megabytes on the socket.
const ASKED: usize = 20;
/// Of a kind that does not compress, beside the apps.
const UNRELATED: usize = 100 << 20;
const MANY: usize = 10_000;

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn one_chart() {
    let mut table = Table::of_rounds(ROUNDS);
    for (chart, objects, cold) in CHARTS {
        let pod = Pod::new();
        pod.write_app("app", objects, "line");
        let calls = if objects == 1 { 48 } else { 16 };
        for (kind, cache, promise) in [("cold", "0", cold), ("repeated", "64", 1.0 / 20.0)] {
            let (ours, theirs) = (pod.serve(&[("STRONGROOM_RENDER_CACHE_MB", cache)]), pod.stock());
            assert_same(&pod.manifests(&ours), &pod.manifests(&theirs));
            for at_once in AT_ONCE {
                let name = format!("{chart}, {kind}, {at_once} at once");
                let renders = Renders { apps: "app", calls, at_once };
                pod.compare(&mut table, &name, &renders, [&ours, &theirs], AtMost(promise));
            }
        }
    }
    table.print();
    table.assert_kept();
}

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn one_commit_to_a_repository_of_200_apps() {
    let mut table = Table::of_rounds(1);
    let pod = Pod::new();
    for app in 0..APPS {
        pod.write_app(&format!("apps/{app}"), 1, &format!("app-{app}"));
    }
    pod.repository.write("unrelated.bin", noise(UNRELATED));
    let (ours, theirs) = (pod.serve(&[]), pod.stock());
    let renders = Renders { apps: "apps/{number}", calls: ASKED, at_once: 4 };
    pod.measure(&ours, &renders);
    pod.write_app("apps/7", 1, "changed");
    let name = format!("a commit to one of {APPS} apps beside 100 MiB, {ASKED} of them, 4 at once");
    pod.compare(&mut table, &name, &renders, [&ours, &theirs], AtMost(1.0));
    table.print();
    table.assert_kept();
}

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn the_process() {
    let mut table = Table::of_rounds(ROUNDS);
    let pod = Pod::new();
    pod.write_app("app", 1, "line");
    let starts: Vec<_> = (0..7)
        .map(|_| {
            let begun = Instant::now();
            let _server = pod.serve(&[]);
            begun.elapsed()
        })
        .collect();
    let ready = median(&starts);
    table.note("until it is ready", &format!("{:.1} ms, of 100 allowed", milliseconds(ready)));

    let (ours, theirs) = (pod.serve(&[("STRONGROOM_RENDER_CACHE_MB", "0")]), pod.stock());
    let idle = resident(&ours);
    table.note_bytes("idle memory, of 15 allowed", idle);
    table.note_bytes("idle memory of `argocd-cmp-server`", resident(&theirs));
    let renders = |calls| Renders { apps: "app", calls, at_once: 4 };
    pod.measure(&ours, &renders(MANY / 10));
    let early = resident(&ours);
    pod.measure(&ours, &renders(MANY - MANY / 10));
    let late = resident(&ours);
    table.note_bytes(&format!("memory after {} renders", MANY / 10), early);
    table.note_bytes(&format!("memory after {MANY} renders"), late);
    table.print();
    assert!(ready <= Duration::from_millis(100), "ready after {ready:?}");
    assert!(idle <= 15 << 20, "idle with {idle} bytes");
    // Allocators keep a little more of what is freed as time goes by.
    assert!(late <= early + (2 << 20), "it grew from {early} to {late} bytes");
}

/// Both servers' sockets and work directories, and the repository.
struct Pod {
    folder: Memory,
    repository: Repository,
    age: AgeKey,
}

/// One of two plugin servers.
struct Server {
    sidecar: Sidecar,
    socket: PathBuf,
}

/// A memory-backed folder, as a pod's `/tmp` should be.
struct Memory(TempDir);

impl Memory {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Run::new(on_path("mount")).args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs"]);
        mount.arg(folder.path()).ok();
        Self(folder)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Lazily, since a server may still have it open.
        Run::new(on_path("umount")).arg("--lazy").arg(self.0.path()).ok();
    }
}

/// What is asked of a server.
struct Renders<'a> {
    apps: &'a str,
    calls: usize,
    at_once: usize,
}

/// What it took.
struct Taken {
    each: Vec<Duration>,
    all: Duration,
    processor: Duration,
}

/// One of many objects; 50 lines.
const TEMPLATE: &str = "\
{{- range $i := until (int .Values.objects) }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $.Release.Name }}-{{ $i }}
stringData:
  database: {{ $.Values.database | quote }}
  mail: {{ $.Values.mail | quote }}
  session: {{ $.Values.session | quote }}
LINES{{- end }}
";

impl Pod {
    fn new() -> Self {
        let folder = Memory::new();
        for name in ["plugins", "work", "keys", "stock"] {
            fs::create_dir(folder.0.path().join(name)).unwrap();
        }
        let age = AgeKey::new();
        fs::write(folder.0.path().join("keys/age.txt"), &age.identity).unwrap();
        Self { folder, repository: Repository::new(), age }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.0.path().join(name)
    }

    /// A chart of so many objects of 50 lines, with three encrypted files.
    fn write_app(&self, folder: &str, objects: usize, word: &str) {
        let write = |name: &str, text: &str| self.repository.write(format!("{folder}/{name}"), text);
        write("Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\n");
        write("values.yaml", &format!("objects: {objects}\n"));
        let lines: String = (0..40).map(|line| format!("  {word}-{line}: \"{{{{ $i }}}}\"\n")).collect();
        write("templates/a.yaml", &TEMPLATE.replace("LINES", &lines));
        for name in FILES {
            let file = self.path(&format!("{name}.yaml"));
            if !file.exists() {
                fs::write(&file, format!("{name}: a password for {name}\n")).unwrap();
                encrypt(&file, &["--age", &self.age.recipient]);
            }
            write(&format!("secrets/{name}.yaml"), &fs::read_to_string(&file).unwrap());
        }
    }

    fn serve(&self, environment: &[(&str, &str)]) -> Server {
        let configured = |run: Run| {
            run.env("ARGOCD_PLUGINSOCKFILEPATH", self.path("plugins"))
                .env("STRONGROOM_PLUGIN_CONFIG", self.path("plugin.yaml"))
                .env("STRONGROOM_HELM", tool("helm"))
        };
        let run = configured(Run::new(shipped()))
            .env("ARGOCD_CMP_WORKDIR", self.path("work"))
            .env("STRONGROOM_HTTP", "127.0.0.1:0")
            .env("STRONGROOM_KEYS_DIR", self.path("keys"))
            .envs(environment.iter().copied())
            .arg("serve");
        let socket = self.path("plugins/strongroom.sock");
        let healthy = || configured(Run::new(shipped())).arg("health").output().status.success();
        Server { sidecar: Sidecar::start(run, &self.path("log"), healthy), socket }
    }

    fn stock(&self) -> Server {
        let mut script = String::from("set -e; d=$(mktemp -d); trap 'rm -rf $d' EXIT; ");
        for name in FILES {
            write!(script, "sops decrypt --output $d/{name}.yaml secrets/{name}.yaml; ").unwrap();
        }
        script.push_str("helm template $ARGOCD_APP_NAME . --namespace $ARGOCD_APP_NAMESPACE --include-crds");
        script.push_str(" --kube-version $KUBE_VERSION --api-versions v1 --api-versions apps/v1");
        for name in FILES {
            write!(script, " --values $d/{name}.yaml").unwrap();
        }
        let config = serde_json::json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "ConfigManagementPlugin",
            "metadata": {"name": "stock"},
            "spec": {"generate": {"command": ["sh", "-c", script]}},
        });
        fs::write(self.path("stock/plugin.yaml"), config.to_string()).unwrap();
        let path = std::env::var("PATH").unwrap();
        let tools = tool("helm").parent().unwrap().display().to_string();
        let run = argocd::cmp_server(NEWEST, &self.path("stock"), &self.path("plugins"))
            .env("PATH", format!("{tools}:{path}"))
            .env("HOME", self.path("stock"))
            .env("SOPS_AGE_KEY_FILE", self.path("keys/age.txt"));
        let socket = self.path("plugins/stock.sock");
        let listening = || UnixStream::connect(&socket).is_ok();
        Server { sidecar: Sidecar::start(run, &self.path("stock.log"), listening), socket: socket.clone() }
    }

    fn call(&self, server: &Server, apps: &str, flags: &[&str]) -> Run {
        let parameters = FILES.map(|name| format!("secrets/{name}.yaml"));
        let parameters = serde_json::json!([{"name": "valueFiles", "array": parameters}]);
        let generate = generate_with(&shipped(), &self.repository, "")
            .env("ARGOCD_APP_PARAMETERS", parameters.to_string());
        let call = grpc_go(&server.socket, &self.repository.path(), apps).args(["-timeout", "10m"]);
        call.args(flags).args(told(generate))
    }

    fn manifests(&self, server: &Server) -> String {
        self.call(server, "app", &[]).ok()
    }

    fn measure(&self, server: &Server, renders: &Renders<'_>) -> Taken {
        let before = processor(server);
        let (calls, at_once) = (renders.calls.to_string(), renders.at_once.to_string());
        let flags = ["-times", "-calls", &calls, "-at-once", &at_once];
        // It may take longer than the runs of a test.
        let output = self.call(server, renders.apps, &flags).into_command().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let times = String::from_utf8(output.stdout).unwrap();
        let mut each: Vec<_> =
            times.lines().map(|line| Duration::from_micros(line.parse().unwrap())).collect();
        let all = each.pop().unwrap();
        assert_eq!(each.len(), renders.calls);
        Taken { each, all, processor: processor(server).checked_sub(before).unwrap() }
    }

    /// Rows of time and processor time a render, of which the servers take turns.
    fn compare(
        &self,
        table: &mut Table,
        name: &str,
        renders: &Renders<'_>,
        servers: [&Server; 2],
        promise: AtMost,
    ) {
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..table.rounds() {
            for (server, taken) in servers.iter().zip(&mut taken) {
                taken.push(self.measure(server, renders));
            }
        }
        let a_render = |time: fn(&Taken) -> Duration| {
            taken.each_ref().map(|taken| {
                let times: Vec<_> = taken.iter().map(time).collect();
                milliseconds(median(&times) / u32::try_from(renders.calls).unwrap())
            })
        };
        let [ours, theirs] = a_render(|taken| taken.all);
        table.hold(&format!("{name}: time a render"), ours, theirs, promise);
        let [ours, theirs] = a_render(|taken| taken.processor);
        table.hold(&format!("{name}: processor time a render"), ours, theirs, promise);
        let [ours, theirs] = taken.map(|taken| {
            let mut each: Vec<_> = taken.into_iter().flat_map(|taken| taken.each).collect();
            each.sort();
            [each.len() / 2, each.len() * 99 / 100].map(|rank| milliseconds(each[rank]))
        });
        let text = format!(
            "p50 {:.1}, p99 {:.1}; the other {:.1} and {:.1}",
            ours[0], ours[1], theirs[0], theirs[1]
        );
        table.note(&format!("{name}: milliseconds an answer took"), &text);
    }
}

/// The other answers in JSON, an object after the other.
fn assert_same(ours: &str, theirs: &str) {
    let ours = serde_yaml::Deserializer::from_str(ours).map(|document| Json::deserialize(document).unwrap());
    let theirs = serde_json::Deserializer::from_str(theirs).into_iter().map(Result::unwrap);
    assert_eq!(ours.collect::<Vec<Json>>(), theirs.collect::<Vec<Json>>());
}

/// Of the server and all the processes that it has waited for.
fn processor(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.sidecar.id())).unwrap();
    // The fields begin after the program's name, of which utime, stime, cutime and cstime are the 12th to the 15th.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    // A tick is a hundredth of a second to Linux's programs, whatever the kernel's own clock does.
    Duration::from_millis(ticks * 10)
}

/// Memory that a server has, in bytes.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.sidecar.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes that no compression makes fewer.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}
