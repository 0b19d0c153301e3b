//! The real API server of Kubernetes on loopback, with RBAC, static tokens, client certificates and service accounts, and
//! nothing that would run a pod.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value as Json, json};

use super::process::Run;
use super::server::{Server, free_address};
use super::tools::tool;

/// The token of the administrator.
const ADMINISTRATOR: &str = "STRONGROOM-MARKER-administrator";
/// The token of the user `team`, who may do nothing unless told.
pub const TEAM: &str = "STRONGROOM-MARKER-team";
/// No cluster takes longer to be ready.
const START: Duration = Duration::from_secs(90);

/// Who reads which secrets and configmaps is noted, and nothing else.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [get, list, watch], resources: [{group: '', resources: [secrets, configmaps]}]}
- {level: None}
";

/// A running API server.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    clients: CertifiedIssuer<'static, KeyPair>,
}

impl Cluster {
    /// Starts one, ready to be asked.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("strongroom-kubernetes-").tempdir().unwrap();
        let clients = authority();
        let signing = KeyPair::generate().unwrap();
        let tokens = format!("{ADMINISTRATOR},administrator,1,\"system:masters\"\n{TEAM},team,2\n");
        let files = [
            ("tokens", tokens),
            ("clients.pem", clients.pem()),
            ("signing.key", signing.serialize_pem()),
            ("signing.pub", signing.public_key_pem()),
            ("audit.yaml", AUDIT.to_owned()),
        ];
        for (name, text) in files {
            fs::write(home.path().join(name), text).unwrap();
        }
        let at = |name: &str| home.path().join(name).display().to_string();
        let arguments = [
            home.path().display().to_string(),
            // It cannot choose a port itself.
            format!("--secure-port={}", free_address().port()),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--cert-dir={}", at("certificates")),
            format!("--token-auth-file={}", at("tokens")),
            format!("--client-ca-file={}", at("clients.pem")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", at("signing.key")),
            format!("--service-account-key-file={}", at("signing.pub")),
            format!("--audit-policy-file={}", at("audit.yaml")),
            format!("--audit-log-path={}", at("audit.log")),
            "--audit-log-mode=blocking".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let server = Server::start(&tool("kubernetes"), &arguments, home, listening);
        let cluster = Self { server, clients };
        let end = Instant::now() + START;
        // Also that the roles and namespaces are there that everything else needs.
        let ready = || cluster.kubectl().args(["get", "--raw", "/readyz"]).output();
        let made = || cluster.kubectl().args(["get", "serviceaccounts,clusterroles,namespaces"]).output();
        while !(ready().status.success() && made().status.success()) {
            assert!(Instant::now() < end, "it is not ready: {}", ready().stderr);
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster
    }

    /// `kubectl …` of the administrator.
    pub fn kubectl(&self) -> Run {
        let config =
            self.kubeconfig("administrator", &[("administrator", json!({ "token": ADMINISTRATOR }))]);
        Run::new(tool("kubectl")).env("HOME", self.home()).env("KUBECONFIG", config)
    }

    /// Makes these objects.
    pub fn apply(&self, objects: &[Json]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl().args(["apply", "-f", "-"]).stdin(list.to_string()).ok();
    }

    /// A kubeconfig called `name`, with these users, each in a context of its own name; the first is the current one.
    pub fn kubeconfig(&self, name: &str, users: &[(&str, Json)]) -> PathBuf {
        let authority = STANDARD.encode(fs::read(self.authority()).unwrap());
        let cluster = json!({"server": self.url(), "certificate-authority-data": authority});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": users[0].0,
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": users.iter().map(|(name, user)| json!({"name": name, "user": user})).collect::<Vec<_>>(),
            "contexts": users.iter().map(|(name, _)| {
                json!({"name": name, "context": {"cluster": "here", "user": name}})
            }).collect::<Vec<_>>(),
        });
        let path = self.home().join(format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// A certificate of the user `name` and its key, in PEM.
    pub fn client(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let certificate = params.signed_by(&key, &self.clients).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A folder such as a pod has of a service account.
    pub fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl().args(["create", "token", name, "-n", namespace]).ok();
        let folder = self.home().join(format!("{namespace}-{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), token.trim_end()).unwrap();
        fs::copy(self.authority(), folder.join("ca.crt")).unwrap();
        folder
    }

    /// The variables that a pod has beside that folder.
    pub fn pod(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.server.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.server.address.port().to_string()),
        ]
    }

    /// The paths that `agent` asked for, in order, each with the status of the answer.
    pub fn asked_by(&self, agent: &str) -> Vec<String> {
        let log = fs::read_to_string(self.home().join("audit.log")).unwrap_or_default();
        let events = log.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let own = events.filter(|event| event["userAgent"].as_str().is_some_and(|by| by.starts_with(agent)));
        own.map(|event| {
            format!("{} {}", event["requestURI"].as_str().unwrap(), event["responseStatus"]["code"])
        })
        .collect()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// The certificate that its own is by.
    pub fn authority(&self) -> PathBuf {
        self.home().join("certificates/apiserver.crt")
    }

    /// The folder that ends with the server.
    pub fn home(&self) -> &Path {
        &self.server.home
    }
}

/// Who signs the certificates of clients.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "clients");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// From the line `… Serving securely on 127.0.0.1:40123`.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Serving securely on ")?;
    rest.lines().next()?.trim().parse().ok()
}
