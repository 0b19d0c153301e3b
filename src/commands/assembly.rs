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
use crate::policy::{AllowList, AllowListError, Authorise};
use crate::refs::ambient::Ambient;
use crate::refs::resolve::Resolver;
use crate::render::Renderer;
use crate::render::helm::HelmCli;
use crate::render::values::Opener;
use crate::secret::Secret;
use crate::sops::keys::age::AgeRecipients;
use crate::sops::keys::azure::AzureKeyVault;
use crate::sops::keys::folder::{self, LocalKeys};
use crate::sops::keys::gcp::GcpKms;
use crate::sops::keys::gpg::Gpg;
use crate::sops::keys::kms::Kms;
use crate::sops::keys::transit::Transit;
use crate::sops::keys::wrap::Wrappers;
use crate::sops::keys::{KeyUnwrap, Keyring};
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
    /// A path that leads into whatever directory the process is in.
    #[error("use the helm {path}: not an absolute path, so a repository could bring its own helm")]
    Helm {
        /// As the operator gave it.
        path: String,
    },
    /// The list of addresses.
    #[error("read STRONGROOM_ALLOW_ADDRESSES")]
    Addresses(#[from] AddressListError),
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
    let policy: Arc<dyn Authorise> = Arc::new(policy(operator, trust)?);
    let aws = Arc::new(Aws::new());
    let addresses = addresses(operator, environment)?;
    let settings = Settings { addresses: addresses.clone(), home: trust == Trust::Person };
    let vault = Arc::new(Vault::new(environment.clone(), settings).with_aws(aws.clone()));
    let google = Arc::new(Google::new(environment.clone()));
    let azure = Arc::new(Azure::new(environment.clone(), addresses.clone(), trust == Trust::Person));
    let services: [Arc<dyn KeyUnwrap>; 4] = [
        Arc::new(Kms::new(aws.clone())),
        Arc::new(GcpKms::new(google.clone())),
        Arc::new(AzureKeyVault::new(azure.clone())),
        Arc::new(Transit::new(vault.clone())),
    ];
    let keyring = Arc::new(keyring(operator, trust, environment, &policy, services)?);
    let sops = OpenOptions { ignore_mac: operator.ignore_mac };
    let ambient = Ambient {
        environment: environment.clone(),
        addresses,
        aws,
        azure,
        google,
        vault,
        keyring: keyring.clone(),
        sops,
        envsubst: match trust {
            Trust::Application => Some(operator.allow_env.clone().unwrap_or_default()),
            Trust::Person => operator.allow_env.clone(),
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

/// Everything that seals data keys.
pub(super) fn wrappers(operator: &Operator, environment: &Environment) -> Wrappers {
    let pgp = folder::recipients_of(&operator.keys_dir, Gpg::find(environment));
    Wrappers::new(vec![Arc::new(AgeRecipients), Arc::new(pgp)])
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
    }
    if let Some(list) = &operator.allow_keys {
        policy = policy
            .with_keys(list)
            .map_err(|source| AssemblyError::AllowList { variable: "STRONGROOM_ALLOW_KEYS", source })?;
    }
    Ok(policy)
}

fn keyring(
    operator: &Operator,
    trust: Trust,
    environment: &Environment,
    policy: &Arc<dyn Authorise>,
    services: impl IntoIterator<Item = Arc<dyn KeyUnwrap>>,
) -> Result<Keyring, AssemblyError> {
    let passphrase = operator.passphrase_file.as_deref().map(passphrase).transpose()?;
    let mut keys = LocalKeys::with_passphrase(passphrase.as_ref());
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

/// Where [`renderer`] finds keys and what unlocks them: files, and folders of them.
pub(super) fn key_files(operator: &Operator, environment: &Environment) -> Vec<PathBuf> {
    let named = ["SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"];
    let named = named.iter().filter_map(|name| environment.get(name)).map(PathBuf::from);
    named.chain(operator.passphrase_file.clone()).chain([operator.keys_dir.clone()]).collect()
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
    use super::*;

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
