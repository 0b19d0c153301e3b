//! The parts of the product, put together as the operator chose.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::{self, Address, AddressListError};
use crate::aws::Aws;
use crate::azure::Azure;
use crate::config::Operator;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::google::Google;
use crate::huawei::Huawei;
use crate::kubernetes::{self, Kubernetes};
use crate::policy::{AllowList, AllowListError, Authorise};
use crate::refs::ambient::Ambient;
use crate::refs::resolve::Resolver;
use crate::refs::schemes::{self, SCHEMES, SchemeError};
use crate::refs::source::ANY_OPTION;
use crate::render::Renderer;
use crate::render::helm::HelmCli;
use crate::render::values::Opener;
use crate::secret::Secret;
use crate::sops::keys::age::AgeRecipients;
use crate::sops::keys::age::plugin::Plugins;
use crate::sops::keys::azure::AzureKeyVault;
use crate::sops::keys::folder::{self, LocalKeys};
use crate::sops::keys::gcp::GcpKms;
use crate::sops::keys::gpg::Gpg;
use crate::sops::keys::huawei::HuaweiKms;
use crate::sops::keys::kms::Kms;
use crate::sops::keys::service::{KeyService, ServiceAddressError};
use crate::sops::keys::transit::Transit;
use crate::sops::keys::wrap::{KeyWrap, Wrappers};
use crate::sops::keys::{KeyUnwrap, Keyring, SealedKey};
use crate::sops::open::OpenOptions;
use crate::vault::{Settings, Vault};

/// Whose wishes the process follows beside the operator's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// An Application's: what is not allowed is denied.
    Application,
    /// Those of the person at the terminal, who may do what the person may do.
    Person,
}

/// The operator's choices do not fit.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssemblyError {
    /// A list of what may be opened.
    #[error("read {variable}")]
    AllowList {
        /// The variable that holds it.
        variable: &'static str,
        /// What is wrong.
        source: AllowListError,
    },
    /// A list names what does not exist, so it would allow less than it says.
    #[error("read {variable}: {name:?} is no {what}\nhelp: {help}")]
    Unknown {
        /// The variable that holds the list.
        variable: &'static str,
        /// What it should be.
        what: String,
        /// As the operator wrote it.
        name: String,
        /// Those that exist.
        help: String,
    },
    /// A scheme that vals has and Strongroom has not.
    #[error("read STRONGROOM_ALLOW_REFS")]
    Scheme(#[source] SchemeError),
    /// A path that leads into whatever directory the process is in.
    #[error("use the helm {path}: not an absolute path, so a repository could bring its own helm")]
    Helm {
        /// As the operator gave it.
        path: String,
    },
    /// A file that would be looked for in whatever directory the process is in.
    #[error(
        "use {variable}: {path:?} is not an absolute path, so a repository could bring its own\n\
         help: write the whole path, such as /etc/strongroom/{name}", name = file_name(.path)
    )]
    Relative {
        /// The variable that names it.
        variable: &'static str,
        /// As the operator wrote it.
        path: String,
    },
    /// The list of addresses.
    #[error("read STRONGROOM_ALLOW_ADDRESSES")]
    Addresses(#[from] AddressListError),
    /// An address of a key service.
    #[error("use the key service {address:?}")]
    KeyService {
        /// As the operator wrote it.
        address: String,
        /// What is wrong.
        source: ServiceAddressError,
    },
    /// Nobody may open a key.
    #[error(
        "open keys: the local key service is switched off\nhelp: name another with --keyservice or SOPS_KEYSERVICE"
    )]
    NoKeyService,
    /// The file of the passphrase.
    #[error("read the passphrase from {path}")]
    Passphrase {
        /// Where it should be.
        path: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
}

impl Fault for AssemblyError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Puts the renderer together, with a helm that is `confined` to the repository. Opens nothing but the keys folder.
pub(super) fn renderer(
    operator: &Operator,
    trust: Trust,
    environment: &Environment,
    confined: bool,
) -> Result<Renderer, AssemblyError> {
    if trust == Trust::Application {
        check_files(operator, environment)?;
    }
    let policy: Arc<dyn Authorise> = Arc::new(policy(operator, trust)?);
    let addresses = addresses(operator, environment)?;
    let clouds = Clouds::new(trust, environment, &addresses);
    let keyring = Arc::new(keyring(operator, trust, environment, &policy, clouds.holders())?);
    let clusters = kubernetes::Settings { person: trust == Trust::Person, ..kubernetes::Settings::default() };
    let sops = OpenOptions { ignore_mac: operator.ignore_mac, ..OpenOptions::default() };
    let Clouds { aws, azure, google, vault, .. } = clouds;
    let ambient = Ambient {
        environment: environment.clone(),
        addresses,
        aws,
        azure,
        google,
        kubernetes: Arc::new(Kubernetes::new(environment.clone(), clusters)),
        vault,
        keyring: keyring.clone(),
        sops,
        envsubst: match trust {
            Trust::Application => Some(variables(operator)?.unwrap_or_default()),
            Trust::Person => variables(operator)?,
        },
    };
    Ok(Renderer {
        opener: Opener {
            keyring,
            resolver: Resolver::new(ambient, policy),
            keys_dir: operator.keys_dir.clone(),
            sops,
        },
        helm: Arc::new(HelmCli {
            path: executable(&operator.helm, trust, environment)?,
            memory_limit: operator.helm_memory_limit.clone(),
            confined,
        }),
        timeout: operator.timeout,
    })
}

/// Everything that seals data keys for the person at the terminal, at the operator's addresses and those of the `named` keys,
/// which the person named, and no repository.
pub(super) fn wrappers(
    operator: &Operator,
    environment: &Environment,
    named: &[SealedKey],
) -> Result<Wrappers, AssemblyError> {
    let services = key_services(operator)?.into_iter().map(|service| service as Arc<dyn KeyWrap>);
    if !operator.enable_local_keyservice {
        return Ok(Wrappers::new(services.collect()));
    }
    let mut addresses = addresses(operator, environment)?;
    addresses.extend(named.iter().filter_map(SealedKey::address).filter_map(|address| address.parse().ok()));
    let Clouds { aws, azure, google, huawei, vault } = Clouds::new(Trust::Person, environment, &addresses);
    let pgp = folder::recipients_of(&operator.keys_dir, Gpg::find(environment));
    let local: [Arc<dyn KeyWrap>; 7] = [
        Arc::new(AgeRecipients { plugins: Some(Plugins::of(environment)) }),
        Arc::new(pgp),
        Arc::new(Kms::new(aws)),
        Arc::new(GcpKms::new(google)),
        Arc::new(HuaweiKms::new(huawei)),
        Arc::new(AzureKeyVault::new(azure)),
        Arc::new(Transit::new(vault)),
    ];
    Ok(Wrappers::new(local.into_iter().chain(services).collect()))
}

/// Those that the operator names.
fn key_services(operator: &Operator) -> Result<Vec<Arc<KeyService>>, AssemblyError> {
    let named =
        operator.keyservice.iter().map(|address| address.trim()).filter(|address| !address.is_empty());
    let service = |address: &str| match address.parse() {
        Ok(address) => Ok(Arc::new(KeyService::new(address))),
        Err(source) => {
            Err(AssemblyError::KeyService { address: address.chars().take(200).collect(), source })
        }
    };
    let services = named.map(service).collect::<Result<Vec<_>, _>>()?;
    if services.is_empty() && !operator.enable_local_keyservice {
        return Err(AssemblyError::NoKeyService);
    }
    Ok(services)
}

/// Logins and connections, shared by all that asks the same service.
struct Clouds {
    aws: Arc<Aws>,
    azure: Arc<Azure>,
    google: Arc<Google>,
    huawei: Arc<Huawei>,
    vault: Arc<Vault>,
}

impl Clouds {
    /// Those of an operator who names `addresses`.
    fn new(trust: Trust, environment: &Environment, addresses: &[Address]) -> Self {
        let (aws, person) = (Arc::new(Aws::new()), trust == Trust::Person);
        let settings = Settings { addresses: addresses.to_vec(), home: person };
        Self {
            azure: Arc::new(Azure::new(environment.clone(), addresses.to_vec(), person)),
            google: Arc::new(Google::new(environment.clone())),
            huawei: Arc::new(Huawei::new(environment.clone())),
            vault: Arc::new(Vault::new(environment.clone(), settings).with_aws(aws.clone())),
            aws,
        }
    }

    /// The key services among them.
    fn holders(&self) -> [Arc<dyn KeyUnwrap>; 5] {
        [
            Arc::new(Kms::new(self.aws.clone())),
            Arc::new(GcpKms::new(self.google.clone())),
            Arc::new(HuaweiKms::new(self.huawei.clone())),
            Arc::new(AzureKeyVault::new(self.azure.clone())),
            Arc::new(Transit::new(self.vault.clone())),
        ]
    }
}

fn policy(operator: &Operator, trust: Trust) -> Result<AllowList, AssemblyError> {
    let mut policy = match trust {
        Trust::Application => AllowList::default(),
        Trust::Person => AllowList::everything(),
    };
    if let Some(list) = &operator.allow_refs {
        policy = policy
            .with_references(list)
            .map_err(|source| AssemblyError::AllowList { variable: "STRONGROOM_ALLOW_REFS", source })?;
        check_references(&policy)?;
    }
    if let Some(list) = &operator.allow_keys {
        policy = policy
            .with_keys(list)
            .map_err(|source| AssemblyError::AllowList { variable: "STRONGROOM_ALLOW_KEYS", source })?;
        if let Some(kind) = policy.kinds().find(|kind| !SealedKey::KINDS.contains(kind)) {
            return Err(unknown("STRONGROOM_ALLOW_KEYS", "kind of SOPS key", kind, SealedKey::KINDS));
        }
    }
    Ok(policy)
}

fn check_references(policy: &AllowList) -> Result<(), AssemblyError> {
    const VARIABLE: &str = "STRONGROOM_ALLOW_REFS";
    for (name, mut options) in policy.schemes() {
        let scheme = schemes::find(name).map_err(|error| match error {
            SchemeError::Unknown { .. } => {
                unknown(VARIABLE, "scheme", name, SCHEMES.iter().map(|scheme| scheme.name))
            }
            error => AssemblyError::Scheme(error),
        })?;
        let known = || scheme.judged_options().map(|option| option.name);
        let is_known = |option: &&str| known().any(|known| known == *option || known == ANY_OPTION);
        if let Some(option) = options.find(|option| !is_known(option)) {
            let what = format!("option of {name} that says whom is asked, or as whom");
            return Err(unknown(VARIABLE, &what, option, known()));
        }
    }
    Ok(())
}

fn unknown<'a>(
    variable: &'static str,
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> AssemblyError {
    let known: Vec<_> = known.into_iter().collect();
    let help = if known.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    AssemblyError::Unknown { variable, what: what.to_owned(), name: name.chars().take(100).collect(), help }
}

/// Variables that name files and folders of the operator, for Strongroom and the libraries in it.
const FILES: [&str; 34] = [
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "BAO_CACERT",
    "BAO_CLIENT_CERT",
    "BAO_CLIENT_KEY",
    "BAO_JWT_FILE",
    "BAO_KUBERNETES_JWT_TOKEN_PATH",
    "BAO_PASSWORD_FILE",
    "BAO_SECRET_ID_FILE",
    "BAO_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CREDENTIALS",
    "HOME",
    "HUAWEICLOUD_SDK_CREDENTIALS_FILE",
    "KUBECONFIG",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "SOPS_AGE_KEY_FILE",
    "SOPS_AGE_SSH_PRIVATE_KEY_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "VALS_KUBECONFIGPATH",
    "VAULT_CACERT",
    "VAULT_CLIENT_CERT",
    "VAULT_CLIENT_KEY",
    "VAULT_JWT_FILE",
    "VAULT_KUBERNETES_JWT_TOKEN_PATH",
    "VAULT_PASSWORD_FILE",
    "VAULT_SECRET_ID_FILE",
    "VAULT_TOKEN_FILE",
    "XDG_CONFIG_HOME",
];

/// Of these, those that are lists.
const LISTS_OF_FILES: [&str; 2] = ["KUBECONFIG", "SSL_CERT_DIR"];

/// `generate` runs in the folder of the application, where a path that is not absolute would lead.
fn check_files(operator: &Operator, environment: &Environment) -> Result<(), AssemblyError> {
    let relative = |variable, path: &Path| {
        let is_content =
            variable == "GOOGLE_CREDENTIALS" && path.to_string_lossy().trim_start().starts_with('{');
        let error = || AssemblyError::Relative { variable, path: path.display().to_string() };
        if path.is_absolute() || is_content { Ok(()) } else { Err(error()) }
    };
    relative("STRONGROOM_KEYS_DIR", &operator.keys_dir)?;
    if let Some(path) = &operator.passphrase_file {
        relative("STRONGROOM_PASSPHRASE_FILE", path)?;
    }
    for variable in FILES {
        let Some(said) = environment.get(variable) else { continue };
        if LISTS_OF_FILES.contains(&variable) {
            std::env::split_paths(said).try_for_each(|path| relative(variable, &path))?;
        } else {
            relative(variable, Path::new(said))?;
        }
    }
    Ok(())
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The variables that `envsubst` may see, where the operator lists them.
fn variables(operator: &Operator) -> Result<Option<Vec<String>>, AssemblyError> {
    let Some(list) = &operator.allow_env else { return Ok(None) };
    let names: Vec<_> =
        list.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let is_name = |name: &&String| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(Some(names)),
        Some(name) => Err(AssemblyError::Unknown {
            variable: "STRONGROOM_ALLOW_ENV",
            what: "name of a variable".to_owned(),
            name: name.chars().take(100).collect(),
            help: "a name is letters, digits and _, without $".to_owned(),
        }),
    }
}

fn keyring(
    operator: &Operator,
    trust: Trust,
    environment: &Environment,
    policy: &Arc<dyn Authorise>,
    services: impl IntoIterator<Item = Arc<dyn KeyUnwrap>>,
) -> Result<Keyring, AssemblyError> {
    let remote = key_services(operator)?.into_iter().map(|service| service as Arc<dyn KeyUnwrap>);
    if !operator.enable_local_keyservice {
        return Ok(Keyring::new(policy.clone(), remote.collect()));
    }
    let passphrase = operator.passphrase_file.as_deref().map(passphrase).transpose()?;
    let plugins = (trust == Trust::Person).then(|| Plugins::of(environment));
    let mut keys = LocalKeys::with_passphrase(passphrase.as_ref()).with_plugins(plugins);
    keys.add_folder(&operator.keys_dir);
    keys.add_environment(environment);
    let notes = keys.notes();
    let mut holders = keys.into_holders();
    holders.extend(services);
    if trust == Trust::Person
        && let Some(gpg) = Gpg::find(environment)
    {
        holders.push(Arc::new(gpg));
    }
    holders.extend(remote);
    Ok(Keyring::new(policy.clone(), holders).with_notes(notes))
}

fn addresses(operator: &Operator, environment: &Environment) -> Result<Vec<Address>, AddressListError> {
    let mut addresses = address::list(operator.allow_addresses.as_deref().unwrap_or_default())?;
    // An option that the operator says names an address too.
    addresses.extend(environment.get("VALS_ADDRESS").and_then(|address| address.parse().ok()));
    Ok(addresses)
}

/// A bare name is looked up in `PATH`; where it is not found it stays as it is, and running it says so.
///
/// Neither leads into the current directory, unless a person says so.
pub(super) fn executable(
    name: &Path,
    trust: Trust,
    environment: &Environment,
) -> Result<PathBuf, AssemblyError> {
    let path = || name.display().to_string();
    if name.is_absolute() {
        return Ok(name.to_owned());
    }
    if name.components().count() > 1 {
        return match trust {
            Trust::Application => Err(AssemblyError::Helm { path: path() }),
            Trust::Person => std::path::absolute(name).map_err(|_| AssemblyError::Helm { path: path() }),
        };
    }
    let directories = environment.get("PATH").map(std::env::split_paths).into_iter().flatten();
    let directories = directories.filter(|directory| directory.is_absolute());
    let mut candidates = directories.map(|directory| directory.join(name));
    Ok(candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| name.to_owned()))
}

/// Where [`renderer`] finds keys: files, and folders of them.
pub(super) fn key_files(operator: &Operator, environment: &Environment) -> Vec<PathBuf> {
    let named = ["SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"];
    let named = named.iter().filter_map(|name| environment.get(name)).map(PathBuf::from);
    named.chain([operator.keys_dir.clone()]).collect()
}

/// The first line of the file.
fn passphrase(path: &Path) -> Result<Secret<String>, AssemblyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| AssemblyError::Passphrase { path: path.display().to_string(), source })?;
    let text = Secret::new(text);
    Ok(Secret::new(text.expose().lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::Cli;
    use crate::fault::report;

    /// What is wrong with a list of the operator.
    fn said(flag: &str, list: &str) -> Result<(), String> {
        let cli = Cli::try_parse_from(["strongroom", "get", "ref+echo://x", flag, list]).unwrap();
        let outcome = policy(&cli.operator, Trust::Application).and_then(|_| variables(&cli.operator));
        outcome.map(drop).map_err(|error| report(&error))
    }

    #[test]
    fn a_list_that_names_what_does_not_exist_is_an_error_with_what_exists() {
        for (flag, list, expected) in [
            (
                "--allow-keys",
                "age,gpg:ABCD",
                "read STRONGROOM_ALLOW_KEYS: \"gpg\" is no kind of SOPS key\n\
                 help: there are age, azure_kv, gcp_kms, hc_vault, hckms, kms, pgp",
            ),
            (
                "--allow-refs",
                "sops,awssecret://team-a/",
                "read STRONGROOM_ALLOW_REFS: \"awssecret\" is no scheme\nhelp: there are awskms, awssecrets, awsssm, ",
            ),
            ("--allow-refs", "exec", "read STRONGROOM_ALLOW_REFS: scheme exec is refused: "),
            ("--allow-refs", "op://x/", "read STRONGROOM_ALLOW_REFS: scheme op is not supported yet"),
            (
                "--allow-refs",
                "awssecrets://team-a/?role=*",
                "read STRONGROOM_ALLOW_REFS: \"role\" is no option of awssecrets that says whom is asked, or as whom\n\
                 help: there are region, profile, role_arn",
            ),
            (
                "--allow-refs",
                "file:///apps/?encode=base64",
                "read STRONGROOM_ALLOW_REFS: \"encode\" is no option of file that says whom is asked, or as whom\n\
                 help: there are none",
            ),
            (
                "--allow-env",
                "A,$B",
                "read STRONGROOM_ALLOW_ENV: \"$B\" is no name of a variable\n\
                 help: a name is letters, digits and _, without $",
            ),
        ] {
            let error = said(flag, list).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        for (flag, list) in [
            ("--allow-keys", "age,kms:arn:aws:kms:eu-west-1:,pgp"),
            ("--allow-refs", "*"),
            ("--allow-refs", ""),
            (
                "--allow-refs",
                "sops,awssecrets://team-a/?role_arn=*,httpjson://config.example/?insecure=true&team=a",
            ),
            ("--allow-env", "A, _B1,,c"),
            ("--allow-env", ""),
        ] {
            assert_eq!(said(flag, list), Ok(()), "{flag} {list}");
        }
    }

    #[test]
    fn a_key_service_is_named_by_its_address_and_there_is_one_at_least() {
        let of = |arguments: &[&str]| {
            let line = ["strongroom", "get", "ref+echo://x"].iter().chain(arguments);
            let cli = Cli::try_parse_from(line).unwrap();
            key_services(&cli.operator).map(|services| services.len()).map_err(|error| report(&error))
        };
        let off = "--enable-local-keyservice=false";
        assert_eq!(of(&[]), Ok(0));
        assert_eq!(of(&["--keyservice", "tcp://a:1, unix:///b,", "--keyservice", "tcp://c:2"]), Ok(3));
        assert_eq!(of(&[off, "--keyservice", "tcp://a:1"]), Ok(1));
        assert_eq!(
            of(&["--keyservice", "a:1"]).unwrap_err(),
            "use the key service \"a:1\": it is neither tcp://HOST:PORT nor unix:///PATH"
        );
        assert!(of(&[off]).unwrap_err().starts_with("open keys: the local key service is switched off\n"));
    }

    #[test]
    fn files_of_the_operator_are_never_looked_for_in_the_current_directory() {
        let of = |variables: &[(&str, &str)], arguments: &[&str]| {
            let line = ["strongroom", "get", "ref+echo://x"].iter().chain(arguments);
            let cli = Cli::try_parse_from(line).unwrap();
            check_files(&cli.operator, &variables.iter().copied().collect()).map_err(|error| report(&error))
        };
        assert_eq!(
            of(&[("VAULT_TOKEN_FILE", "keys/token")], &[]).unwrap_err(),
            "use VAULT_TOKEN_FILE: \"keys/token\" is not an absolute path, so a repository could bring its own\n\
             help: write the whole path, such as /etc/strongroom/token"
        );
        for variable in FILES {
            let error = of(&[(variable, "./a")], &[]).unwrap_err();
            assert!(
                error.starts_with(&format!("use {variable}: \"./a\" is not an absolute path")),
                "{error}"
            );
            assert_eq!(of(&[(variable, "/a")], &[]), Ok(()), "{variable}");
        }
        for (flag, variable) in
            [("--keys-dir", "STRONGROOM_KEYS_DIR"), ("--passphrase-file", "STRONGROOM_PASSPHRASE_FILE")]
        {
            let error = of(&[], &[flag, "a"]).unwrap_err();
            assert!(error.starts_with(&format!("use {variable}: ")), "{error}");
            assert_eq!(of(&[], &[flag, "/a"]), Ok(()));
        }
        for (variable, value, fine) in [
            ("GOOGLE_CREDENTIALS", " {\"type\": \"service_account\"}", true),
            ("KUBECONFIG", "/a:/b", true),
            ("KUBECONFIG", "/a:b", false),
            ("VAULT_CACERT", "", true),
        ] {
            assert_eq!(of(&[(variable, value)], &[]).is_ok(), fine, "{variable}={value}");
        }
    }

    #[test]
    fn helm_is_never_taken_from_the_current_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("helm"), "").unwrap();
        let held = folder.path().join("helm");
        let path = format!(":.:target:{}", folder.path().display());
        let environment: Environment = [("PATH", path)].into_iter().collect();
        let find =
            |name: &str, trust| executable(Path::new(name), trust, &environment).map_err(|e| e.to_string());
        assert_eq!(find("helm", Trust::Application), Ok(held.clone()));
        assert_eq!(find("nohelm", Trust::Application), Ok(PathBuf::from("nohelm")));
        assert_eq!(find(&held.display().to_string(), Trust::Application), Ok(held));
        assert_eq!(
            find("./helm", Trust::Application).unwrap_err(),
            "use the helm ./helm: not an absolute path, so a repository could bring its own helm"
        );
        assert!(find("bin/helm", Trust::Application).is_err());
        assert!(find("bin/helm", Trust::Person).unwrap().is_absolute());
    }
}
