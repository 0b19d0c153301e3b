//! Arguments of the commands that write SOPS files, in sops's own spellings.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::sops::file::FileFormat;
use crate::sops::keys::named::NameError;
use crate::sops::keys::{SealedKey, named};

const ENCRYPT_EXAMPLES: &str = "\
Examples:
  # By the rule of .sops.yaml that matches the name
  strongroom encrypt -i secrets.yaml
  # To one key, and as helm-secrets spells it
  strongroom encrypt --age age1… credentials.yaml.dec > credentials.yaml
  # A program's output, never in a file
  kubectl create secret generic db --dry-run=client -o yaml --from-file=password=/dev/stdin |
    strongroom encrypt --filename-override secret.yaml --encrypted-regex '^(data|stringData)$' > secret.yaml";

/// Arguments of `encrypt`.
#[derive(Args, Debug)]
#[command(after_help = ENCRYPT_EXAMPLES)]
pub struct Encrypt {
    /// The plaintext; stdin by default. `.dec` at the end of its name is passed over when the type and rule are looked up.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Write the encrypted file over it.
    #[arg(short, long, conflicts_with = "output")]
    pub in_place: bool,
    /// Write to this file and not to stdout.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What the plaintext is, where its name does not tell; what sops would not know either is binary.
    #[arg(long, value_name = "FORMAT", value_parser = FileFormat::NAMES)]
    pub input_type: Option<String>,
    /// Look type and rule up by this name; needed for stdin.
    #[arg(long, value_name = "NAME")]
    pub filename_override: Option<PathBuf>,
    /// With which keys and how.
    #[command(flatten)]
    pub creation: Creation,
}

const SET_EXAMPLES: &str = "\
Examples:
  # A value is JSON, so text has quotes
  strongroom set values.yaml '[\"image\"][\"tag\"]' '\"1.2.3\"'
  # From stdin, so that no other process sees it
  pwgen 32 1 | jq -R . | strongroom set --value-stdin secrets.yaml '[\"database\"][\"password\"]'
  # One more item of a list of three
  strongroom set secrets.yaml '[\"users\"][3]' '{\"name\": \"eva\"}'";

const UNSET_EXAMPLES: &str = "\
Examples:
  strongroom unset secrets.yaml '[\"database\"][\"password\"]'
  # All is well where it is not there
  strongroom unset --idempotent secrets.yaml '[\"users\"][3]'";

/// A file that is encrypted, to be changed.
#[derive(Args, Debug)]
pub struct Existing {
    /// The encrypted file.
    pub file: PathBuf,
    /// What sops took the file for, where neither its name nor its content tells.
    #[arg(long, value_name = "FORMAT", value_parser = FileFormat::NAMES)]
    pub input_type: Option<String>,
    /// The configuration, which says how metadata is laid out; by default the nearest .sops.yaml of this folder and those
    /// above it.
    #[arg(long, env = "SOPS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const ROTATE_EXAMPLES: &str = "\
Examples:
  strongroom rotate -i secrets.yaml
  # A key comes, and another one goes
  strongroom rotate -i --add-age age1… --rm-pgp 85D77543B3D624B63CEA9E6DBC17301B491B3F21 secrets.yaml";

const UPDATEKEYS_EXAMPLES: &str = "\
Examples:
  # Once .sops.yaml has changed
  strongroom updatekeys secrets.yaml
  strongroom updatekeys --yes secrets/*.yaml";

/// Arguments of `rotate`.
#[derive(Args, Debug)]
#[command(after_help = ROTATE_EXAMPLES)]
pub struct Rotate {
    /// Which file.
    #[command(flatten)]
    pub existing: Existing,
    /// Write the file over the old one.
    #[arg(short, long, conflicts_with = "output")]
    pub in_place: bool,
    /// Write to this file and not to stdout.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Encryption context for keys of AWS KMS that are added: `name:value`, comma-separated.
    #[arg(long, value_name = "LIST")]
    pub encryption_context: Option<String>,
    /// age recipients or SSH public keys that are added, comma-separated.
    #[arg(long, value_name = "LIST")]
    pub add_age: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_age: Option<String>,
    /// Fingerprints of OpenPGP keys that are added.
    #[arg(long, value_name = "LIST")]
    pub add_pgp: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_pgp: Option<String>,
    /// ARNs of keys of AWS KMS that are added.
    #[arg(long, value_name = "LIST")]
    pub add_kms: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_kms: Option<String>,
    /// Keys of Google Cloud KMS that are added.
    #[arg(long, value_name = "LIST")]
    pub add_gcp_kms: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_gcp_kms: Option<String>,
    /// Keys of HuaweiCloud KMS that are added.
    #[arg(long, value_name = "LIST")]
    pub add_hckms: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_hckms: Option<String>,
    /// Keys of Azure Key Vault that are added.
    #[arg(long, value_name = "LIST")]
    pub add_azure_kv: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_azure_kv: Option<String>,
    /// Keys of transit of Vault or OpenBao that are added.
    #[arg(long, value_name = "LIST")]
    pub add_hc_vault_transit: Option<String>,
    /// Those that are removed.
    #[arg(long, value_name = "LIST")]
    pub rm_hc_vault_transit: Option<String>,
}

impl Rotate {
    /// The keys that the file is to get.
    pub fn added(&self) -> Result<Vec<SealedKey>, NameError> {
        let context = self.encryption_context.as_deref().unwrap_or_default();
        keys_of(
            [
                &self.add_age,
                &self.add_pgp,
                &self.add_kms,
                &self.add_gcp_kms,
                &self.add_hckms,
                &self.add_azure_kv,
                &self.add_hc_vault_transit,
            ],
            context,
        )
    }

    /// The keys that the file is to lose.
    pub fn removed(&self) -> Result<Vec<SealedKey>, NameError> {
        keys_of(
            [
                &self.rm_age,
                &self.rm_pgp,
                &self.rm_kms,
                &self.rm_gcp_kms,
                &self.rm_hckms,
                &self.rm_azure_kv,
                &self.rm_hc_vault_transit,
            ],
            "",
        )
    }
}

fn keys_of(lists: [&Option<String>; 7], context: &str) -> Result<Vec<SealedKey>, NameError> {
    let [age, pgp, kms, gcp_kms, hckms, azure, transit] =
        lists.map(|list| list.as_deref().unwrap_or_default());
    let context = &named::context(context)?;
    named::Lists { age, pgp, kms, context, profile: None, gcp_kms, hckms, azure, transit }.keys()
}

/// Arguments of `updatekeys`.
#[derive(Args, Debug)]
#[command(after_help = UPDATEKEYS_EXAMPLES)]
pub struct UpdateKeys {
    /// The encrypted files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// What sops took the files for, where neither name nor content tells.
    #[arg(long, value_name = "FORMAT", value_parser = FileFormat::NAMES)]
    pub input_type: Option<String>,
    /// The configuration with the creation rules; by default the nearest .sops.yaml of this folder and those above it.
    #[arg(long, env = "SOPS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl UpdateKeys {
    /// One of the files.
    pub fn existing(&self, file: &Path) -> Existing {
        Existing { file: file.to_owned(), input_type: self.input_type.clone(), config: self.config.clone() }
    }
}

const EDIT_EXAMPLES: &str = "\
Examples:
  strongroom edit secrets.yaml
  # A file that is not there yet, by the rule of .sops.yaml that matches its name, or to one key
  strongroom edit new.yaml
  SOPS_EDITOR='code --wait' strongroom edit --age age1… new.yaml";

/// Arguments of `edit`.
#[derive(Args, Debug)]
#[command(after_help = EDIT_EXAMPLES)]
pub struct Edit {
    /// The encrypted file, or a new one.
    pub file: PathBuf,
    /// What sops took the file for, where neither its name nor its content tells.
    #[arg(long, value_name = "FORMAT", value_parser = FileFormat::NAMES)]
    pub input_type: Option<String>,
    /// With which keys and how, for a new file.
    #[command(flatten)]
    pub creation: Creation,
}

impl Edit {
    /// The file where it is there.
    pub fn existing(&self) -> Existing {
        let (input_type, config) = (self.input_type.clone(), self.creation.config.clone());
        Existing { file: self.file.clone(), input_type, config }
    }
}

/// Arguments of `set`.
#[derive(Args, Debug)]
#[command(after_help = SET_EXAMPLES)]
pub struct Set {
    /// Which file.
    #[command(flatten)]
    pub existing: Existing,
    /// Where the value is, as `["key"][0]`. What is missing on the way is made.
    pub path: String,
    /// The value, as JSON; a file that holds it with --value-file.
    #[arg(
        required_unless_present = "value_stdin",
        conflicts_with = "value_stdin",
        allow_negative_numbers = true
    )]
    pub value: Option<String>,
    /// Read the value from the file that is named in its place.
    #[arg(long, conflicts_with = "value_stdin")]
    pub value_file: bool,
    /// Read the value from stdin.
    #[arg(long)]
    pub value_stdin: bool,
    /// Leave the file as it is where the value is there already.
    #[arg(long)]
    pub idempotent: bool,
}

/// Arguments of `unset`.
#[derive(Args, Debug)]
#[command(after_help = UNSET_EXAMPLES)]
pub struct Unset {
    /// Which file.
    #[command(flatten)]
    pub existing: Existing,
    /// Where the value is, as `["key"][0]`.
    pub path: String,
    /// Leave the file as it is where there is no such value.
    #[arg(long)]
    pub idempotent: bool,
}

/// Master keys, by lists of their names.
#[derive(Args, Debug)]
pub struct Keys {
    /// age recipients or SSH public keys, comma-separated.
    #[arg(short, long, env = "SOPS_AGE_RECIPIENTS", value_name = "LIST")]
    pub age: Option<String>,
    /// Fingerprints of OpenPGP keys, comma-separated; their public halves are in the keys folder or known to gpg.
    #[arg(short, long, env = "SOPS_PGP_FP", value_name = "LIST")]
    pub pgp: Option<String>,
    /// ARNs of keys of AWS KMS, comma-separated; behind one may stand `+` and the ARN of a role to assume.
    #[arg(short, long, env = "SOPS_KMS_ARN", value_name = "LIST")]
    pub kms: Option<String>,
    /// Profile of the AWS configuration for the keys of --kms.
    #[arg(long, value_name = "NAME")]
    pub aws_profile: Option<String>,
    /// Encryption context for keys of AWS KMS: `name:value`, comma-separated. Keys of `key_groups` have their own.
    #[arg(long, value_name = "LIST")]
    pub encryption_context: Option<String>,
    /// Keys of Google Cloud KMS, `projects/…/cryptoKeys/…`, comma-separated.
    #[arg(long, env = "SOPS_GCP_KMS_IDS", value_name = "LIST")]
    pub gcp_kms: Option<String>,
    /// Keys of HuaweiCloud KMS, `region:uuid`, comma-separated.
    #[arg(long, env = "SOPS_HUAWEICLOUD_KMS_IDS", value_name = "LIST")]
    pub hckms: Option<String>,
    /// Keys of Azure Key Vault, `https://VAULT/keys/NAME/VERSION`, comma-separated; without a version it is the newest.
    #[arg(long, env = "SOPS_AZURE_KEYVAULT_URLS", value_name = "LIST")]
    pub azure_kv: Option<String>,
    /// Keys of transit of Vault or OpenBao, `https://VAULT/v1/ENGINE/keys/NAME`, comma-separated.
    #[arg(long, env = "SOPS_VAULT_URIS", value_name = "LIST")]
    pub hc_vault_transit: Option<String>,
}

impl Keys {
    /// All that are named.
    pub fn named(&self) -> Result<Vec<SealedKey>, NameError> {
        named::Lists {
            age: self.age.as_deref().unwrap_or_default(),
            pgp: self.pgp.as_deref().unwrap_or_default(),
            kms: self.kms.as_deref().unwrap_or_default(),
            context: &self.context()?,
            profile: self.aws_profile.as_deref(),
            gcp_kms: self.gcp_kms.as_deref().unwrap_or_default(),
            hckms: self.hckms.as_deref().unwrap_or_default(),
            azure: self.azure_kv.as_deref().unwrap_or_default(),
            transit: self.hc_vault_transit.as_deref().unwrap_or_default(),
        }
        .keys()
    }

    /// The encryption context for keys of AWS KMS.
    pub fn context(&self) -> Result<Vec<(String, String)>, NameError> {
        named::context(self.encryption_context.as_deref().unwrap_or_default())
    }
}

/// With which keys, and what of a file, is encrypted. Keys that are named here are used instead of those of the rule.
#[derive(Args, Debug)]
pub struct Creation {
    /// The configuration with the creation rules; by default the nearest .sops.yaml of this folder and those above it.
    #[arg(long, env = "SOPS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The keys.
    #[command(flatten)]
    pub keys: Keys,
    /// Encrypt all but what is below keys with this suffix; `_unencrypted` where nothing else is said.
    #[arg(long, value_name = "SUFFIX", group = "rule")]
    pub unencrypted_suffix: Option<String>,
    /// Encrypt only what is below keys with this suffix.
    #[arg(long, value_name = "SUFFIX", group = "rule")]
    pub encrypted_suffix: Option<String>,
    /// Encrypt all but what is below keys that match.
    #[arg(long, value_name = "REGEX", group = "rule")]
    pub unencrypted_regex: Option<String>,
    /// Encrypt only what is below keys that match.
    #[arg(long, value_name = "REGEX", group = "rule")]
    pub encrypted_regex: Option<String>,
    /// Encrypt all but what follows a comment that matches.
    #[arg(long, value_name = "REGEX", group = "rule")]
    pub unencrypted_comment_regex: Option<String>,
    /// Encrypt only what follows a comment that matches.
    #[arg(long, value_name = "REGEX", group = "rule")]
    pub encrypted_comment_regex: Option<String>,
    /// Let the MAC prove the encrypted values only, so that others may be changed without it.
    #[arg(long)]
    pub mac_only_encrypted: bool,
    /// How many key groups open the file.
    #[arg(long, value_name = "NUMBER")]
    pub shamir_secret_sharing_threshold: Option<usize>,
}
