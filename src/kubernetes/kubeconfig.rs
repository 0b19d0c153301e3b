//! Which cluster, and as whom: a kubeconfig as kubectl reads it, or what a pod is given.
//!
//! Neither kube's own search for a kubeconfig nor its view of proxies is used: both read the process environment.

use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, KubeconfigError};
use reqwest::header::{HeaderValue, USER_AGENT};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use crate::environment::Environment;
use crate::fault::Class;
use crate::kubernetes::{Connection, KubernetesError, Settings, unreadable};
use crate::web;

/// How servers of Kubernetes see who asks, in their own audit trail.
const AGENT: &str = concat!("strongroom/", env!("CARGO_PKG_VERSION"));

/// Where a cluster and the login to it are said.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the files of a kubeconfig, of which the first that says something counts.
    Kubeconfig {
        files: Vec<PathBuf>,
        context: Option<String>,
        /// Whether it may name programs to log in by.
        programs: bool,
        proxies: Proxies,
    },
    /// In what a pod is given.
    Pod { server: String, folder: PathBuf, proxies: Proxies },
    #[cfg(test)]
    Mock(Box<Config>),
}

impl Place {
    /// Reads no file.
    pub(super) fn choose(
        connection: &Connection,
        environment: &Environment,
        settings: &Settings,
    ) -> Result<Self, KubernetesError> {
        let own = environment.get("KUBECONFIG");
        let own: Vec<_> = own.map(std::env::split_paths).into_iter().flatten().collect();
        let own: Vec<_> = own.into_iter().filter(|path| !path.as_os_str().is_empty()).collect();
        let proxies = Proxies::of(environment);
        let Connection { kubeconfig, context, in_cluster } = connection;
        if *in_cluster {
            if kubeconfig.is_some() || context.is_some() {
                return Err(KubernetesError::invalid(
                    "inCluster goes without kubeConfigPath and kubeContext",
                ));
            }
            return Self::pod(environment, settings, proxies);
        }
        let files = match kubeconfig {
            Some(named) => vec![permitted(named, &own, environment, settings)?],
            None if !own.is_empty() => own,
            None if settings.person && environment.get("KUBERNETES_SERVICE_HOST").is_none() => {
                let home = environment.get("HOME").ok_or_else(nowhere)?;
                vec![Path::new(home).join(".kube/config")]
            }
            None if context.is_some() => return Err(nowhere()),
            None => return Self::pod(environment, settings, proxies),
        };
        Ok(Self::Kubeconfig { files, context: context.clone(), programs: settings.person, proxies })
    }

    fn pod(
        environment: &Environment,
        settings: &Settings,
        proxies: Proxies,
    ) -> Result<Self, KubernetesError> {
        let variable = |name| environment.get(name).ok_or_else(nowhere);
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let bracketed = host.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
        let server = format!("https://{}:{port}", bracketed.unwrap_or_else(|_| host.to_owned()));
        Ok(Self::Pod { server, folder: settings.service_account.clone(), proxies })
    }

    /// The configuration of a client, from files as they are now.
    pub(super) fn load(&self) -> Result<Config, KubernetesError> {
        match self {
            Self::Kubeconfig { files, context, programs, proxies } => {
                let kubeconfig = read(files)?;
                let context = context.as_ref().or(kubeconfig.current_context.as_ref());
                let context = context.filter(|name| !name.is_empty()).ok_or_else(|| {
                    KubernetesError::invalid(
                        "the kubeconfig has no current context\nhelp: name one with kubeContext",
                    )
                })?;
                let (cluster, login) = chosen(&kubeconfig, context)?;
                of_cluster(cluster, permitted_login(login, cluster, *programs)?, proxies)
            }
            Self::Pod { server, folder, proxies } => {
                let mut config = configuration(server)?;
                trust_file(&mut config, &folder.join("ca.crt"))?;
                config.auth_info.token_file = Some(folder.join("token").display().to_string());
                config.proxy_url = proxies.to(server).map(|proxy| parsed(&proxy, "the proxy")).transpose()?;
                Ok(config)
            }
            #[cfg(test)]
            Self::Mock(config) => Ok(config.as_ref().clone()),
        }
    }
}

fn nowhere() -> KubernetesError {
    KubernetesError::invalid(
        "no cluster is named\nhelp: the operator names a kubeconfig with KUBECONFIG; in a pod none is needed",
    )
}

/// The file that a reference names, if it is one of the operator's.
fn permitted(
    named: &str,
    own: &[PathBuf],
    environment: &Environment,
    settings: &Settings,
) -> Result<PathBuf, KubernetesError> {
    let path = PathBuf::from(named);
    let is_option = environment.get("VALS_KUBECONFIGPATH") == Some(named);
    if settings.person || is_option || own.contains(&path) {
        return Ok(path);
    }
    let reason = format!(
        "{named:?} is not a kubeconfig that the operator names\nhelp: the operator names kubeconfigs with KUBECONFIG"
    );
    Err(KubernetesError::new(Class::Denied, reason))
}

/// All files as one; those that are not there are left out, unless none is.
fn read(files: &[PathBuf]) -> Result<Kubeconfig, KubernetesError> {
    let mut all: Option<Kubeconfig> = None;
    let mut missing = None;
    for path in files {
        let next = match Kubeconfig::read_from(path) {
            Ok(next) => next,
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == io::ErrorKind::NotFound => {
                missing.get_or_insert_with(|| unreadable(path, &error));
                continue;
            }
            Err(KubeconfigError::ReadConfig(error, _)) => return Err(unreadable(path, &error)),
            // Its own words can hold lines of the file.
            Err(_) => {
                return Err(KubernetesError::invalid(format!("{} is no kubeconfig", path.display())));
            }
        };
        all = Some(match all {
            None => next,
            Some(all) => all.merge(next).map_err(|_| {
                KubernetesError::invalid(format!(
                    "{} is of another kind than the files before it",
                    path.display()
                ))
            })?,
        });
    }
    all.ok_or_else(|| missing.unwrap_or_else(nowhere))
}

/// The cluster of a context, and the login to it: none where the context has none.
fn chosen<'a>(kubeconfig: &'a Kubeconfig, name: &str) -> Result<(&'a Cluster, AuthInfo), KubernetesError> {
    let contexts = || kubeconfig.contexts.iter();
    let Some(Context { cluster, user, .. }) =
        contexts().find(|context| context.name == name).and_then(|context| context.context.as_ref())
    else {
        let known: Vec<_> = contexts().map(|context| context.name.as_str()).collect();
        let known = known.join(", ");
        return Err(KubernetesError::invalid(format!(
            "the kubeconfig has no context {name:?}\nhelp: its contexts are {known}"
        )));
    };
    let found = kubeconfig.clusters.iter().find(|known| &known.name == cluster);
    let found = found.and_then(|known| known.cluster.as_ref()).ok_or_else(|| {
        KubernetesError::invalid(format!(
            "the kubeconfig has no cluster {cluster:?}, which the context names"
        ))
    })?;
    let login = user.as_ref().and_then(|user| kubeconfig.auth_infos.iter().find(|known| &known.name == user));
    Ok((found, login.and_then(|login| login.auth_info.clone()).unwrap_or_default()))
}

/// A login by a program is for a person's terminal.
fn permitted_login(
    mut login: AuthInfo,
    cluster: &Cluster,
    programs: bool,
) -> Result<AuthInfo, KubernetesError> {
    if !programs && (login.exec.is_some() || login.auth_provider.is_some()) {
        return Err(KubernetesError::new(
            Class::Denied,
            "the kubeconfig logs in by running a program, which is for a terminal only\n\
             help: the operator's kubeconfig has a token, a tokenFile or a client certificate, or there is none in a pod",
        ));
    }
    if let Some(exec) = login.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        let told = cluster.try_into();
        exec.cluster = Some(told.map_err(|_| KubernetesError::invalid(NO_AUTHORITY))?);
    }
    Ok(login)
}

const NO_AUTHORITY: &str = "the cluster's certificate authority is not readable PEM";

fn of_cluster(cluster: &Cluster, login: AuthInfo, proxies: &Proxies) -> Result<Config, KubernetesError> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let server = said(&cluster.server)
        .ok_or_else(|| KubernetesError::invalid("the kubeconfig does not say where the cluster is"))?;
    let mut config = configuration(&server)?;
    if let Some(data) = said(&cluster.certificate_authority_data) {
        let pem = STANDARD.decode(data.trim()).map_err(|_| KubernetesError::invalid(NO_AUTHORITY))?;
        config.root_cert = Some(authorities(&pem)?);
    } else if let Some(path) = said(&cluster.certificate_authority) {
        trust_file(&mut config, Path::new(&path))?;
    }
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.tls_server_name = said(&cluster.tls_server_name);
    let proxy = said(&cluster.proxy_url).or_else(|| proxies.to(&server));
    config.proxy_url = proxy.map(|proxy| parsed(&proxy, "the proxy")).transpose()?;
    config.auth_info = login;
    Ok(config)
}

/// A client of the cluster at `server`, without a login.
pub(super) fn configuration(server: &str) -> Result<Config, KubernetesError> {
    let mut config = Config::new(parsed(server, "the cluster's server")?);
    config.connect_timeout = Some(web::CONNECT_TIMEOUT);
    config.write_timeout = None;
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    Ok(config)
}

/// A URL as the client wants it.
fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, KubernetesError> {
    let wrong = || KubernetesError::invalid(format!("{what} is no URL"));
    let url: Url = text.parse().map_err(|_| wrong())?;
    url.as_str().trim_end_matches('/').parse().map_err(|_| wrong())
}

/// What the file holds is trusted, and what it will hold.
fn trust_file(config: &mut Config, path: &Path) -> Result<(), KubernetesError> {
    let pem = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    config.root_cert = Some(authorities(&pem)?);
    config.root_cert_file = Some(path.to_owned());
    Ok(())
}

fn authorities(pem: &[u8]) -> Result<Vec<Vec<u8>>, KubernetesError> {
    let certificates = CertificateDer::pem_slice_iter(pem).map(|der| der.map(|der| der.to_vec()));
    let certificates: Vec<_> =
        certificates.collect::<Result<_, _>>().map_err(|_| KubernetesError::invalid(NO_AUTHORITY))?;
    if certificates.is_empty() { Err(KubernetesError::invalid(NO_AUTHORITY)) } else { Ok(certificates) }
}

/// The proxies that the environment names.
#[derive(Clone)]
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    none_for: String,
}

impl std::fmt::Debug for Proxies {
    /// Their URLs can hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxies")
    }
}

impl Proxies {
    fn of(environment: &Environment) -> Self {
        let variable = |name: &str| {
            environment.get(name).or_else(|| environment.get(&name.to_ascii_lowercase())).map(str::to_owned)
        };
        let or_all = |name| variable(name).or_else(|| variable("ALL_PROXY"));
        Self {
            http: or_all("HTTP_PROXY"),
            https: or_all("HTTPS_PROXY"),
            none_for: variable("NO_PROXY").unwrap_or_default(),
        }
    }

    /// The one on the way to `server`.
    fn to(&self, server: &str) -> Option<String> {
        let url: Url = server.parse().ok()?;
        let proxy = if url.scheme() == "http" { &self.http } else { &self.https }.as_deref()?;
        let matcher = Matcher::builder().all(proxy).no(self.none_for.as_str()).build();
        let passes = web::is_this_machine(&url) || matcher.intercept(&server.parse().ok()?).is_none();
        let whole = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
        (!passes).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::report;

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: near, cluster: {server: 'http://127.0.0.1:8001'}}
- {name: far, cluster: {server: 'https://far.example:6443', certificate-authority-data: STRONGROOM-MARKER, tls-server-name: ''}}
- {name: nowhere, cluster: {}}
users:
- {name: me, user: {token: STRONGROOM-MARKER-token}}
- {name: program, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: 'false', interactiveMode: Never}}}
- {name: provider, user: {auth-provider: {name: gcp, config: {cmd-path: 'false'}}}}
contexts:
- {name: one, context: {cluster: near, user: me}}
- {name: far, context: {cluster: far, user: me}}
- {name: program, context: {cluster: near, user: program}}
- {name: provider, context: {cluster: near, user: provider}}
- {name: anonymous, context: {cluster: near}}
- {name: nowhere, context: {cluster: nowhere, user: me}}
- {name: lost, context: {cluster: absent, user: me}}
";

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().copied().collect()
    }

    fn settings(person: bool) -> Settings {
        Settings { person, service_account: "/nowhere".into() }
    }

    fn connection(kubeconfig: Option<&str>, context: Option<&str>, in_cluster: bool) -> Connection {
        Connection {
            kubeconfig: kubeconfig.map(str::to_owned),
            context: context.map(str::to_owned),
            in_cluster,
        }
    }

    fn told<T>(outcome: Result<T, KubernetesError>) -> Result<T, String> {
        outcome.map_err(|error| {
            let said = format!("{:?}: {}", error.class, report(&error));
            assert!(!said.contains("MARKER"), "{said}");
            said
        })
    }

    #[test]
    fn the_operator_says_which_cluster() {
        const POD: [(&str, &str); 2] =
            [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "443")];
        let none: &[(&str, &str)] = &[];
        let config: &[(&str, &str)] = &[("KUBECONFIG", "/etc/a::/etc/b")];
        let both = [config, &POD].concat();
        for (variables, person, connection, expected) in [
            (none, false, connection(None, None, false), Err("Invalid: no cluster is named")),
            (none, false, connection(None, None, true), Err("Invalid: no cluster is named")),
            (&POD, false, connection(None, None, false), Ok("https://[fd00::1]:443")),
            (&POD, true, connection(None, None, false), Ok("https://[fd00::1]:443")),
            (&POD, false, connection(None, Some("x"), false), Err("Invalid: no cluster is named")),
            (config, false, connection(None, None, false), Ok("/etc/a /etc/b")),
            (&both, false, connection(None, None, false), Ok("/etc/a /etc/b")),
            (&both, false, connection(None, None, true), Ok("https://[fd00::1]:443")),
            (&both, true, connection(None, Some("x"), true), Err("Invalid: inCluster goes without")),
            (config, false, connection(Some("/etc/b"), None, false), Ok("/etc/b")),
            (
                config,
                false,
                connection(Some("/etc/../etc/b"), None, false),
                Err("Denied: \"/etc/../etc/b\" is"),
            ),
            (config, false, connection(Some("repo/kubeconfig"), None, false), Err("Denied: ")),
            (config, true, connection(Some("mine"), None, false), Ok("mine")),
            (
                &[("VALS_KUBECONFIGPATH", "/etc/c")],
                false,
                connection(Some("/etc/c"), None, false),
                Ok("/etc/c"),
            ),
            (&[("HOME", "/home/me")], true, connection(None, None, false), Ok("/home/me/.kube/config")),
            (
                &[("HOME", "/home/me")],
                false,
                connection(None, None, false),
                Err("Invalid: no cluster is named"),
            ),
        ] {
            let place = told(Place::choose(&connection, &environment(variables), &settings(person)));
            match (place, expected) {
                (Ok(Place::Pod { server, .. }), Ok(expected)) => assert_eq!(server, expected),
                (Ok(Place::Kubeconfig { files, .. }), Ok(expected)) => {
                    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                    assert_eq!(files.join(" "), expected);
                }
                (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{said}"),
                (place, expected) => panic!("{variables:?} {connection:?}: {place:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_context_is_a_cluster_and_a_login_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let two = at("two", TWO);
        let more =
            at("more", "current-context: other\ncontexts:\n- {name: more, context: {cluster: near}}\n");
        let (broken, empty) = (at("broken", "a: [STRONGROOM-MARKER"), at("empty", ""));
        let absent = folder.path().join("absent");
        let load = |files: &[&PathBuf], context: Option<&str>, programs| {
            let files = files.iter().map(|file| (*file).clone()).collect();
            let context = context.map(str::to_owned);
            let proxies = Proxies::of(&Environment::default());
            told(Place::Kubeconfig { files, context, programs, proxies }.load())
        };
        for (files, context, programs, expected) in [
            (vec![&two], None, false, Ok("http://127.0.0.1:8001/")),
            (vec![&two], Some("anonymous"), false, Ok("http://127.0.0.1:8001/")),
            (vec![&absent, &two, &more], Some("more"), false, Ok("http://127.0.0.1:8001/")),
            (vec![&two, &more], None, false, Ok("http://127.0.0.1:8001/")),
            (vec![&two], Some("program"), true, Ok("http://127.0.0.1:8001/")),
            (vec![&two], Some("program"), false, Err("Denied: the kubeconfig logs in by running a program")),
            (vec![&two], Some("provider"), false, Err("Denied: the kubeconfig logs in by running a program")),
            (
                vec![&two],
                Some("far"),
                false,
                Err("Invalid: the cluster's certificate authority is not readable PEM"),
            ),
            (
                vec![&two],
                Some("nowhere"),
                false,
                Err("Invalid: the kubeconfig does not say where the cluster is"),
            ),
            (vec![&two], Some("lost"), false, Err("Invalid: the kubeconfig has no cluster \"absent\"")),
            (
                vec![&two],
                Some("tow"),
                false,
                Err(
                    "Invalid: the kubeconfig has no context \"tow\"\nhelp: its contexts are one, far, program, ",
                ),
            ),
            (vec![&empty], None, false, Err("Invalid: the kubeconfig has no current context")),
            (vec![&broken], None, false, Err("Invalid: ")),
            (vec![&absent], None, false, Err("Invalid: ")),
        ] {
            match (load(&files, context, programs), expected) {
                (Ok(config), Ok(expected)) => assert_eq!(config.cluster_url.to_string(), expected),
                (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{said}"),
                (config, _) => panic!("{context:?}: {config:?}"),
            }
        }
        assert!(
            load(&[&absent], None, false).unwrap_err().ends_with("absent cannot be read: entity not found")
        );
        assert!(load(&[&broken], None, false).unwrap_err().ends_with("broken is no kubeconfig"));
    }

    #[test]
    fn the_proxy_is_the_one_of_the_environment_but_never_to_this_machine() {
        let of = |variables: &[(&str, &str)], server: &str| Proxies::of(&environment(variables)).to(server);
        let one = [("https_proxy", "proxy.example:3128"), ("NO_PROXY", "kubernetes.default.svc,10.0.0.0/8,")];
        for (server, expected) in [
            ("https://far.example:6443", Some("http://proxy.example:3128")),
            ("http://far.example:6443", None),
            ("https://kubernetes.default.svc", None),
            ("https://10.1.2.3:443", None),
            ("https://127.0.0.1:6443", None),
        ] {
            assert_eq!(of(&one, server).as_deref(), expected, "{server}");
        }
        assert_eq!(of(&[("ALL_PROXY", "http://a:b@p:1")], "https://far").as_deref(), Some("http://a:b@p:1"));
        assert_eq!(of(&[], "https://far.example"), None);
    }
}
