//! The operator's choices: which keys, which helm, who may open what, how long, how it logs.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

/// Flags and variables of the process; an Application cannot set them.
#[derive(Args, Clone, Debug)]
pub struct Operator {
    /// Folder of OpenPGP secret keys, age identities and SSH private keys, recognised by content.
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_KEYS_DIR",
        value_name = "DIR",
        default_value = "/etc/strongroom/keys"
    )]
    pub keys_dir: PathBuf,
    /// The helm to run.
    #[arg(long, global = true, env = "STRONGROOM_HELM", value_name = "FILE", default_value = "helm")]
    pub helm: PathBuf,
    /// Soft bound on the memory of helm's heap, as Go's GOMEMLIMIT.
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_HELM_MEMORY_LIMIT",
        value_name = "SIZE",
        default_value = "1GiB"
    )]
    pub helm_memory_limit: String,
    /// References that may be opened: schemes and URI prefixes, comma-separated (`sops,awssecrets://team-a/`).
    ///
    /// `generate` allows `echo`, `file` and `sops` unless told more; a terminal allows everything.
    #[arg(long, global = true, env = "STRONGROOM_ALLOW_REFS", value_name = "LIST")]
    pub allow_refs: Option<String>,
    /// SOPS keys that may be used: kinds and `kind:id` prefixes, comma-separated (`age,kms:arn:aws:kms:eu-west-1:`).
    #[arg(long, global = true, env = "STRONGROOM_ALLOW_KEYS", value_name = "LIST")]
    pub allow_keys: Option<String>,
    /// Environment variables that `ref+envsubst` may read in `generate`, comma-separated; none by default.
    #[arg(long, global = true, env = "STRONGROOM_ALLOW_ENV", value_name = "LIST", value_delimiter = ',')]
    pub allow_env: Option<Vec<String>>,
    /// Addresses of servers and vaults that references and SOPS files may name, comma-separated; none by default.
    #[arg(long, global = true, env = "STRONGROOM_ALLOW_ADDRESSES", value_name = "LIST")]
    pub allow_addresses: Option<String>,
    /// File whose first line is the passphrase of OpenPGP keys, age identities and SSH keys that have one.
    #[arg(long, global = true, env = "STRONGROOM_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Key services that open and seal data keys where this process cannot, as `sops keyservice` is one: `tcp://HOST:PORT` or
    /// `unix:///PATH`, without TLS.
    #[arg(long, global = true, env = "SOPS_KEYSERVICE", value_name = "ADDRESS", value_delimiter = ',')]
    pub keyservice: Vec<String>,
    /// Whether data keys are opened and sealed in this process, or by key services only.
    #[arg(
        long,
        global = true,
        env = "SOPS_ENABLE_LOCAL_KEYSERVICE",
        value_name = "BOOLEAN",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub enable_local_keyservice: bool,
    /// Open SOPS files whose MAC is wrong or missing.
    #[arg(long, global = true, env = "STRONGROOM_IGNORE_MAC")]
    pub ignore_mac: bool,
    /// How long one render may take.
    #[arg(long, global = true, env = "STRONGROOM_TIMEOUT", value_name = "SECONDS", default_value = "90", value_parser = seconds)]
    pub timeout: Duration,
    /// Log level, or a filter such as `info,strongroom::refs=debug`; `info` for `serve`, else `error`.
    #[arg(long, global = true, env = "STRONGROOM_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "STRONGROOM_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Where `serve` and `generate` tell who opened what: `stderr`, `off`, or a file that is appended to.
    #[arg(long, global = true, env = "STRONGROOM_AUDIT", value_name = "WHERE", value_parser = audit_trail)]
    pub audit: Option<AuditTrail>,
}

/// Where the audit trail goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuditTrail {
    /// To standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// To the end of a file.
    File(PathBuf),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

fn audit_trail(text: &str) -> Result<AuditTrail, String> {
    match text {
        "stderr" => Ok(AuditTrail::Stderr),
        "off" => Ok(AuditTrail::Off),
        path if path.starts_with('/') => Ok(AuditTrail::File(path.into())),
        _ => Err("must be stderr, off or an absolute path".to_owned()),
    }
}

/// Permission bits in octal, that let the owner read and write.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0o600..=0o777) => Ok(mode),
        _ => Err("must be octal permission bits, 600 to 777".to_owned()),
    }
}

/// A whole number of seconds, up to a day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a whole number of seconds, 1 to 86400".to_owned()),
    }
}
