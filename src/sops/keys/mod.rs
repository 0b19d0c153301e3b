//! The keyring: everything that can open a SOPS data key, and the order in which it is tried.
//!
//! Each kind of master key is one file here that implements [`KeyUnwrap`]. Key material is read once, when `config`
//! asks for it, and never written. A key is opened only by the very master key that the file names, because that
//! name is what the policy was asked about.

pub mod age;
pub mod azure;
pub mod folder;
pub mod gcp;
pub mod gpg;
pub mod huawei;
pub mod kms;
pub mod named;
pub mod pgp;
pub mod service;
pub mod transit;
pub mod wrap;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::fault::{Class, Fault};
use crate::observe::Meters;
use crate::observe::audit::Access;
use crate::policy::{Authorise, Denied, What, Who};
use crate::scope::{Scope, TOO_LATE};
use crate::secret::Secret;
use crate::sops::shamir;

/// Opened data keys that are kept; when there are more, all are forgotten and opened again on demand.
const OPENED_KEPT: usize = 8192;
/// For so long a key that its service was not available for is not asked for again.
const DOWN_FOR: Duration = Duration::from_secs(10);
/// Longest name of a key in a message; an SSH RSA recipient is longer.
const NAME_LIMIT: usize = 120;
const DATA_KEY_LENGTH: usize = 32;
const SHARE_LENGTH: usize = DATA_KEY_LENGTH + 1;

/// The key that a file's values are encrypted with: 32 bytes, or 33 for a Shamir share.
pub type DataKey = Secret<Vec<u8>>;

/// One data key, sealed to one master key, as a file's metadata lists it. The SOPS format closes the set.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SealedKey {
    /// `age`: an armored age file.
    Age {
        /// The recipient, `age1…` or an SSH public key.
        recipient: String,
        /// ASCII armor.
        enc: String,
    },
    /// `pgp`: an armored OpenPGP message.
    Pgp {
        /// Fingerprint of the key, in hex; may end in `!`.
        fingerprint: String,
        /// ASCII armor.
        enc: String,
    },
    /// `kms`: an AWS KMS ciphertext blob.
    Kms {
        /// ARN of the key or alias; its region is the one that is asked.
        arn: String,
        /// Role to assume first.
        role: Option<String>,
        /// Encryption context, in the file's order.
        context: Vec<(String, String)>,
        /// Profile of the AWS configuration.
        profile: Option<String>,
        /// Standard base64.
        enc: String,
    },
    /// `gcp_kms`.
    GcpKms {
        /// `projects/…/cryptoKeys/…`.
        resource_id: String,
        /// Standard base64.
        enc: String,
    },
    /// `azure_kv`.
    AzureKeyVault {
        /// URL of the vault.
        vault_url: String,
        /// Name of the key.
        name: String,
        /// Version of the key; may be empty.
        version: String,
        /// URL-safe base64 without padding.
        enc: String,
    },
    /// `hc_vault`: transit of HashiCorp Vault or OpenBao.
    VaultTransit {
        /// Address, as the file says it.
        address: String,
        /// Mount of the transit engine.
        engine_path: String,
        /// Name of the key.
        key_name: String,
        /// `vault:v1:…`.
        enc: String,
    },
    /// `hckms`: HuaweiCloud KMS.
    HuaweiKms {
        /// `region:uuid`.
        key_id: String,
        /// Opaque ciphertext.
        enc: String,
    },
}

impl SealedKey {
    /// All kinds.
    pub const KINDS: [&str; 7] = ["age", "azure_kv", "gcp_kms", "hc_vault", "hckms", "kms", "pgp"];

    /// The kind, as sops spells it in a file's metadata.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Age { .. } => "age",
            Self::Pgp { .. } => "pgp",
            Self::Kms { .. } => "kms",
            Self::GcpKms { .. } => "gcp_kms",
            Self::AzureKeyVault { .. } => "azure_kv",
            Self::VaultTransit { .. } => "hc_vault",
            Self::HuaweiKms { .. } => "hckms",
        }
    }

    /// Which master key it is sealed to, as the policy and every message name it.
    pub fn id(&self) -> String {
        match self {
            Self::Age { recipient, .. } => recipient.trim().to_owned(),
            Self::Pgp { fingerprint, .. } => pgp::normalise(fingerprint),
            Self::Kms { arn, .. } => arn.clone(),
            Self::GcpKms { resource_id, .. } => resource_id.clone(),
            Self::AzureKeyVault { vault_url, name, version, .. } => {
                format!("{}/keys/{name}/{version}", vault_url.trim_end_matches('/'))
            }
            Self::VaultTransit { address, engine_path, key_name, .. } => {
                format!("{}/v1/{engine_path}/keys/{key_name}", address.trim_end_matches('/'))
            }
            Self::HuaweiKms { key_id, .. } => key_id.clone(),
        }
    }

    /// The same master key, with a data key that is sealed to it.
    #[must_use]
    pub fn sealing(&self, sealed: String) -> Self {
        let mut key = self.clone();
        match &mut key {
            Self::Age { enc, .. }
            | Self::Pgp { enc, .. }
            | Self::Kms { enc, .. }
            | Self::GcpKms { enc, .. }
            | Self::AzureKeyVault { enc, .. }
            | Self::VaultTransit { enc, .. }
            | Self::HuaweiKms { enc, .. } => *enc = sealed,
        }
        key
    }

    /// The address that it names, of those kinds that name one.
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::AzureKeyVault { vault_url: address, .. } | Self::VaultTransit { address, .. } => {
                Some(address)
            }
            _ => None,
        }
    }

    fn full_name(&self) -> String {
        format!("{} {}", self.kind(), self.id())
    }

    /// Opened in this process, without asking a service.
    const fn is_local(&self) -> bool {
        matches!(self, Self::Age { .. } | Self::Pgp { .. })
    }

    /// What is said when no holder has the key.
    const fn without_holder(&self) -> &'static str {
        match self {
            Self::Age { .. } => "no age identity for it is loaded",
            Self::Pgp { .. } => "no OpenPGP secret key for it is loaded",
            Self::Kms { .. } => "AWS KMS is not set up",
            Self::GcpKms { .. } => "Google KMS is not set up",
            Self::AzureKeyVault { .. } => "Azure Key Vault is not set up",
            Self::VaultTransit { .. } => "Vault is not set up",
            Self::HuaweiKms { .. } => "HuaweiCloud KMS is not set up",
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = KeyDigest(Sha256::new());
        self.hash(&mut digest);
        digest.0.finalize().into()
    }
}

/// Only the key that opened a file is told, or all that did not.
fn audit(scope: &Scope, key: &SealedKey, outcome: Result<(), Class>) {
    scope.audit(Access::Key { file: scope.file.as_deref(), kind: key.kind(), id: &key.id() }, outcome);
}

/// SHA-256 in the place of a 64-bit hash, because its value stands for the whole sealed key.
struct KeyDigest(Sha256);

impl Hasher for KeyDigest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is taken whole")
    }
}

/// One holder of master keys of one kind.
pub trait KeyUnwrap: fmt::Debug + Send + Sync {
    /// `None`: not a key of mine. `Some(Err)`: mine, and it failed. `Some(Ok)`: opened.
    ///
    /// Only the master key that `key` names may be used, whatever else would open it.
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>>;
}

/// Why one master key did not open a data key.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct UnwrapError {
    /// What kind of failure.
    pub class: Class,
    /// The reason, without any key material.
    pub reason: String,
}

impl UnwrapError {
    /// An error of `class`; `reason` holds no key material.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    /// This one with the reason of the one before it in front.
    fn after(self, first: Option<Self>) -> Self {
        let Some(first) = first else { return self };
        Self::new(self.class, format!("{}; {}", first.reason, self.reason))
    }
}

impl Fault for UnwrapError {
    fn class(&self) -> Class {
        self.class
    }
}

impl From<Denied> for UnwrapError {
    fn from(denied: Denied) -> Self {
        Self::new(Class::Denied, denied.to_string())
    }
}

/// Everything that can open a data key, with what was opened kept for the life of the process.
pub struct Keyring {
    policy: Arc<dyn Authorise>,
    holders: Vec<Arc<dyn KeyUnwrap>>,
    notes: Vec<String>,
    opened: Mutex<HashMap<[u8; 32], Arc<OnceCell<DataKey>>>>,
    down: Mutex<HashMap<String, Down>>,
}

/// Since when a service is not available, and what it said.
type Down = (Instant, UnwrapError);

impl Keyring {
    /// `holders` are asked in order; `policy` is asked before any of them.
    pub fn new(policy: Arc<dyn Authorise>, holders: Vec<Arc<dyn KeyUnwrap>>) -> Self {
        Self {
            policy,
            holders,
            notes: Vec::new(),
            opened: Mutex::new(HashMap::new()),
            down: Mutex::new(HashMap::new()),
        }
    }

    /// What was loaded from where, and which files were not keys: told to whoever lacks a key.
    #[must_use]
    pub fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
        self
    }

    /// The data key of a file that lists `groups` of sealed keys, of which each opens one part.
    ///
    /// With one group its part is the data key; with several, `threshold` parts are combined (all that can be
    /// had where the file does not say). Keys of this process are tried before keys behind a service.
    pub async fn data_key(
        &self,
        scope: &Scope,
        groups: &[Vec<SealedKey>],
        threshold: Option<usize>,
    ) -> Result<DataKey, KeyringError> {
        match groups {
            [] => Err(self.error(Vec::new(), None)),
            [group] => {
                let outcome = self.part(scope, 0, group, DATA_KEY_LENGTH).await;
                outcome.map_err(|tried| self.error(tried, None))
            }
            _ => self.combined(scope, groups, threshold).await,
        }
    }

    async fn combined(
        &self,
        scope: &Scope,
        groups: &[Vec<SealedKey>],
        threshold: Option<usize>,
    ) -> Result<DataKey, KeyringError> {
        let wanted = threshold.filter(|wanted| *wanted > 0).unwrap_or(groups.len());
        let needed = threshold.unwrap_or(0).max(2);
        let (mut parts, mut tried) = (Vec::new(), Vec::new());
        let mut asked: FuturesUnordered<_> =
            groups.iter().enumerate().map(|(at, group)| self.part(scope, at, group, SHARE_LENGTH)).collect();
        while parts.len() < wanted
            && let Some(outcome) = asked.next().await
        {
            match outcome {
                Ok(part) => parts.push(part),
                Err(failed) => tried.extend(failed),
            }
        }
        if parts.len() < needed {
            return Err(self.error(tried, Some((parts.len(), needed))));
        }
        shamir::combine(&parts).map_err(|error| KeyringError::bad_parts(&error.to_string()))
    }

    /// The part of one group, or every key of it with why it failed.
    async fn part(
        &self,
        scope: &Scope,
        at: usize,
        group: &[SealedKey],
        length: usize,
    ) -> Result<DataKey, Vec<Tried>> {
        let mut tried = Vec::new();
        let (mut local, remote): (Vec<_>, Vec<_>) =
            group.iter().enumerate().partition(|(_, key)| key.is_local());
        local.sort_by_key(|(_, key)| key.kind());
        let failed = |n: usize, key: &SealedKey, error| Tried { at: (at, n), key: name(key), error };
        let opened = |key: &SealedKey, part| {
            audit(scope, key, Ok(()));
            Ok(part)
        };
        for (n, key) in local {
            match self.open(scope, key, length).await {
                Ok(part) => return opened(key, part),
                Err(error) => tried.push(failed(n, key, error)),
            }
        }
        let mut asked: FuturesUnordered<_> =
            remote.into_iter().map(async |(n, key)| (n, key, self.open(scope, key, length).await)).collect();
        while let Some((n, key, outcome)) = asked.next().await {
            match outcome {
                Ok(part) => return opened(key, part),
                Err(error) => tried.push(failed(n, key, error)),
            }
        }
        for Tried { at: (_, n), error, .. } in &tried {
            audit(scope, &group[*n], Err(error.class));
        }
        Err(tried)
    }

    /// One sealed key: allowed, then from what is kept, else opened, once for all who ask at the same time.
    async fn open(&self, scope: &Scope, key: &SealedKey, length: usize) -> Result<DataKey, UnwrapError> {
        self.policy.authorise(&scope.who, What::Key { kind: key.kind(), id: &key.id() })?;
        let cell = self.cell(key);
        let meters = &scope.observer.meters;
        meters.looked_up("data_key", cell.initialized());
        let opened = cell.get_or_try_init(|| self.unwrap_once(key, meters));
        let data_key = within(scope.deadline, opened).await?;
        if data_key.expose().len() == length {
            return Ok(data_key.clone());
        }
        let whole = if length == DATA_KEY_LENGTH { "a data key" } else { "a part of a data key" };
        let reason = format!("it holds {} bytes, not the {length} of {whole}", data_key.expose().len());
        Err(UnwrapError::new(Class::Invalid, reason))
    }

    fn cell(&self, key: &SealedKey) -> Arc<OnceCell<DataKey>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = key.digest();
        if opened.len() >= OPENED_KEPT && !opened.contains_key(&digest) {
            opened.clear();
        }
        Arc::clone(opened.entry(digest).or_default())
    }

    async fn unwrap_once(&self, key: &SealedKey, meters: &Meters) -> Result<DataKey, UnwrapError> {
        if let Some(error) = self.known_down(key) {
            return Err(error);
        }
        let outcome = self.ask_holders(key).await;
        meters.decrypted(key.kind(), outcome.as_ref().map(drop).map_err(|error| error.class));
        match &outcome {
            Ok(_) => tracing::debug!(kind = key.kind(), key = name(key), "data key opened"),
            Err(error) => {
                tracing::debug!(
                    kind = key.kind(),
                    key = name(key),
                    reason = error.reason,
                    "data key not opened"
                );
                self.remember_down(key, error);
            }
        }
        outcome
    }

    async fn ask_holders(&self, key: &SealedKey) -> Result<DataKey, UnwrapError> {
        let mut failure: Option<UnwrapError> = None;
        for holder in &self.holders {
            match holder.unwrap_key(key).await {
                None => {}
                Some(Ok(data_key)) => return check_length(data_key),
                Some(Err(error)) => failure = Some(error.after(failure)),
            }
        }
        Err(failure.unwrap_or_else(|| UnwrapError::new(Class::Denied, key.without_holder())))
    }

    fn known_down(&self, key: &SealedKey) -> Option<UnwrapError> {
        if key.is_local() {
            return None;
        }
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, error) = down.get(&key.full_name())?;
        (since.elapsed() < DOWN_FOR).then(|| error.clone())
    }

    fn remember_down(&self, key: &SealedKey, error: &UnwrapError) {
        if key.is_local() || !matches!(error.class, Class::Unavailable | Class::Timeout) {
            return;
        }
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.retain(|_, (since, _)| since.elapsed() < DOWN_FOR);
        down.insert(key.full_name(), (Instant::now(), error.clone()));
    }

    fn error(&self, mut tried: Vec<Tried>, parts: Option<(usize, usize)>) -> KeyringError {
        tried.sort_by_key(|tried| tried.at);
        KeyringError { tried, parts, notes: self.notes.clone(), bad_parts: None }
    }
}

impl Default for Keyring {
    /// Holds nothing, so it opens nothing.
    fn default() -> Self {
        Self::new(Arc::new(Anyone), Vec::new())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("holders", &self.holders).finish_non_exhaustive()
    }
}

/// The policy of a keyring that opens nothing.
struct Anyone;

impl Authorise for Anyone {
    fn authorise(&self, _: &Who, _: What<'_>) -> Result<(), Denied> {
        Ok(())
    }
}

/// Bounds one wait by the render's deadline. The flight itself goes on for whoever else waits for it.
async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = Result<T, UnwrapError>>,
) -> Result<T, UnwrapError> {
    let Some(deadline) = deadline else { return future.await };
    match tokio::time::timeout_at(deadline.into(), future).await {
        Ok(outcome) => outcome,
        Err(_) => Err(UnwrapError::new(Class::Timeout, TOO_LATE)),
    }
}

fn check_length(data_key: DataKey) -> Result<DataKey, UnwrapError> {
    match data_key.expose().len() {
        DATA_KEY_LENGTH | SHARE_LENGTH => Ok(data_key),
        other => {
            let reason = format!("it holds {other} bytes, not the {DATA_KEY_LENGTH} of a data key");
            Err(UnwrapError::new(Class::Invalid, reason))
        }
    }
}

/// Kind and id in one bounded line; the id comes from the file.
fn name(key: &SealedKey) -> String {
    let full = key.full_name();
    let mut name: String = full.chars().filter(|c| !c.is_control()).take(NAME_LIMIT).collect();
    if full.chars().count() > NAME_LIMIT {
        name.push('…');
    }
    name
}

/// A key that was tried, and why it did not open.
#[derive(Clone, Debug)]
struct Tried {
    at: (usize, usize),
    key: String,
    error: UnwrapError,
}

/// No key opened the data key. The message lists every key that was tried and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct KeyringError {
    tried: Vec<Tried>,
    /// Parts had, parts needed.
    parts: Option<(usize, usize)>,
    notes: Vec<String>,
    bad_parts: Option<String>,
}

impl KeyringError {
    fn bad_parts(reason: &str) -> Self {
        Self { tried: Vec::new(), parts: None, notes: Vec::new(), bad_parts: Some(reason.to_string()) }
    }

    fn text(&self) -> String {
        if let Some(reason) = &self.bad_parts {
            return format!("combine the parts of the data key: {reason}");
        }
        let mut lines = vec![self.headline()];
        let mut help = Vec::new();
        for Tried { at: (group, _), key, error } in &self.tried {
            let (advice, reason): (Vec<_>, Vec<_>) =
                error.reason.lines().partition(|line| line.starts_with("help: "));
            let place = if self.parts.is_some() { format!("group {}: ", group + 1) } else { String::new() };
            lines.push(format!("  {place}{key}: {}", reason.join(" ")));
            help.extend(
                advice.into_iter().map(str::to_owned).filter(|line| !help.contains(line)).collect::<Vec<_>>(),
            );
        }
        lines.append(&mut help);
        lines.extend(self.notes.iter().map(|note| format!("help: {note}")));
        lines.join("\n")
    }

    fn headline(&self) -> String {
        match self.parts {
            Some((had, needed)) => format!("only {had} of the {needed} needed key groups could be opened"),
            None if self.tried.is_empty() => "the file lists no master key".to_owned(),
            None => "none of the file's keys could be used".to_owned(),
        }
    }
}

impl Fault for KeyringError {
    /// What may pass by itself comes first; then what the operator must allow; else the file is at fault.
    fn class(&self) -> Class {
        [Class::Unavailable, Class::Timeout, Class::Denied, Class::Internal]
            .into_iter()
            .find(|class| self.tried.iter().any(|tried| tried.error.class == *class))
            .unwrap_or(Class::Invalid)
    }
}

#[cfg(test)]
mod testing {
    //! Keys and sealed data keys made by `e2e/fixtures/make-key-vectors.sh` with the real tools.

    use std::fs;
    use std::path::Path;

    pub(super) const DATA_KEY: &str = "STRONGROOM-MARKER-0123456789abcd";

    pub(super) fn fixture(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures/keys").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::fault::report;

    /// Answers by the sealed text, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct Scripted {
        asked: AtomicUsize,
        opened: AtomicUsize,
    }

    impl KeyUnwrap for Scripted {
        fn unwrap_key<'a>(
            &'a self,
            key: &'a SealedKey,
        ) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
            let enc = match key {
                SealedKey::Age { enc, .. } | SealedKey::Kms { enc, .. } => enc.as_str(),
                _ => return Box::pin(async { None }),
            };
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                match enc {
                    "opens" => {
                        self.opened.fetch_add(1, Ordering::Relaxed);
                        Some(Ok(Secret::new(testing::DATA_KEY.into())))
                    }
                    "part 1" => Some(Ok(part(1))),
                    "part 2" => Some(Ok(part(2))),
                    "short" => Some(Ok(Secret::new(b"STRONGROOM-MARKER".to_vec()))),
                    "down" => Some(Err(UnwrapError::new(Class::Unavailable, "no answer\nhelp: look at it"))),
                    "denied" => Some(Err(UnwrapError::new(Class::Denied, "not allowed"))),
                    "hangs" => std::future::pending().await,
                    _ => None,
                }
            })
        }
    }

    /// A share of a secret whose polynomial is `secret + 1 * x`, for small `x`.
    fn part(x: u8) -> DataKey {
        let mut share: Vec<u8> = testing::DATA_KEY.bytes().map(|byte| byte ^ x).collect();
        share.push(x);
        Secret::new(share)
    }

    fn age(recipient: &str, enc: &str) -> SealedKey {
        SealedKey::Age { recipient: recipient.into(), enc: enc.into() }
    }

    fn kms(arn: &str, enc: &str) -> SealedKey {
        SealedKey::Kms { arn: arn.into(), role: None, context: Vec::new(), profile: None, enc: enc.into() }
    }

    fn keyring() -> (Keyring, Arc<Scripted>) {
        let holder = Arc::new(Scripted::default());
        let keyring = Keyring::new(Arc::new(Anyone), vec![Arc::clone(&holder) as Arc<dyn KeyUnwrap>]);
        (keyring.with_notes(vec!["keys folder /keys: no keys".into()]), holder)
    }

    async fn told(keyring: &Keyring, groups: &[Vec<SealedKey>]) -> (Class, String) {
        let error = keyring.data_key(&Scope::default(), groups, None).await.unwrap_err();
        (error.class(), report(&error))
    }

    #[tokio::test]
    async fn keys_of_this_process_are_tried_before_services() {
        let (keyring, holder) = keyring();
        let group = vec![kms("arn:a", "opens"), age("age1b", "other"), age("age1c", "opens")];
        let data_key = keyring.data_key(&Scope::default(), &[group], None).await.unwrap();
        assert_eq!(data_key.expose(), testing::DATA_KEY.as_bytes());
        assert_eq!(holder.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_data_key_is_opened_once_for_all_who_ask() {
        let (keyring, holder) = keyring();
        let (scope, groups) = (Scope::default(), [vec![kms("arn:a", "opens")]]);
        let all = futures::future::join_all((0..20).map(|_| keyring.data_key(&scope, &groups, None))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(holder.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_data_key_is_opened_once_for_all_threads_and_renders() {
        let (keyring, holder) = keyring();
        let keyring = Arc::new(keyring);
        for _ in 0..3 {
            let renders = (0..20).map(|number| {
                let keyring = Arc::clone(&keyring);
                tokio::spawn(async move {
                    // Every render has its own scope, and two files of one data key beside one of another.
                    let scope = Scope::default();
                    let own = [vec![age("age1a", "other"), kms("arn:a", "opens")]];
                    let other = [vec![kms(if number % 2 == 0 { "arn:b" } else { "arn:c" }, "opens")]];
                    for groups in [&own, &other, &own] {
                        keyring.data_key(&scope, groups, None).await.unwrap();
                    }
                })
            });
            for render in futures::future::join_all(renders).await {
                render.unwrap();
            }
        }
        assert_eq!(holder.opened.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn when_none_opens_every_key_is_listed_with_its_reason() {
        let (keyring, _) = keyring();
        let group = vec![
            kms("arn:b", "denied"),
            kms("arn:a", "down"),
            age("age1x", "short"),
            age("age1y\u{1b}[31m", "other"),
            SealedKey::GcpKms { resource_id: "projects/p".into(), enc: "STRONGROOM-MARKER".into() },
        ];
        let expected = "none of the file's keys could be used\
            \n  kms arn:b: not allowed\
            \n  kms arn:a: no answer\
            \n  age age1x: it holds 17 bytes, not the 32 of a data key\
            \n  age age1y[31m: no age identity for it is loaded\
            \n  gcp_kms projects/p: Google KMS is not set up\
            \nhelp: look at it\
            \nhelp: keys folder /keys: no keys";
        assert_eq!(told(&keyring, &[group]).await, (Class::Unavailable, expected.to_owned()));
    }

    #[tokio::test]
    async fn the_parts_of_several_groups_are_combined() {
        let (keyring, _) = keyring();
        let groups = [
            vec![kms("arn:a", "down"), age("age1x", "part 1")],
            vec![kms("arn:b", "denied")],
            vec![kms("arn:c", "part 2")],
        ];
        for threshold in [Some(2), None] {
            let data_key = keyring.data_key(&Scope::default(), &groups, threshold).await.unwrap();
            assert_eq!(data_key.expose(), testing::DATA_KEY.as_bytes());
        }
        let error = keyring.data_key(&Scope::default(), &groups, Some(3)).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied);
        assert_eq!(
            report(&error),
            "only 2 of the 3 needed key groups could be opened\n  group 2: kms arn:b: not allowed\
             \nhelp: keys folder /keys: no keys"
        );
    }

    #[tokio::test]
    async fn a_part_alone_is_no_data_key_and_a_data_key_no_part() {
        let (keyring, _) = keyring();
        let (class, message) = told(&keyring, &[vec![age("age1x", "part 1")]]).await;
        assert_eq!(class, Class::Invalid);
        assert!(message.contains("it holds 33 bytes, not the 32 of a data key"), "{message}");
        let (class, message) =
            told(&keyring, &[vec![age("age1x", "opens")], vec![age("age1y", "opens")]]).await;
        assert_eq!(class, Class::Invalid);
        assert!(message.contains("it holds 32 bytes, not the 33 of a part of a data key"), "{message}");
    }

    #[tokio::test]
    async fn a_file_without_keys_says_so() {
        let (keyring, _) = keyring();
        for groups in [vec![], vec![vec![]]] {
            let (class, message) = told(&keyring, &groups).await;
            assert_eq!(class, Class::Invalid);
            assert!(message.starts_with("the file lists no master key"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_down_is_not_asked_for_every_file() {
        let (keyring, holder) = keyring();
        for _ in 0..5 {
            let (class, _) = told(&keyring, &[vec![kms("arn:a", "down")]]).await;
            assert_eq!(class, Class::Unavailable);
        }
        assert_eq!(holder.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_deadline_ends_a_wait_and_only_that_wait() {
        let (keyring, holder) = keyring();
        let scope = Scope { deadline: Some(Instant::now()), ..Scope::default() };
        let groups = [vec![kms("arn:a", "hangs")]];
        let error = keyring.data_key(&scope, &groups, None).await.unwrap_err();
        assert_eq!(error.class(), Class::Timeout);
        assert!(error.to_string().contains("kms arn:a: no answer before the render's deadline"), "{error}");
        let error = keyring.data_key(&scope, &groups, None).await.unwrap_err();
        assert_eq!(error.class(), Class::Timeout);
        assert_eq!(holder.asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn sealed_keys_that_differ_anywhere_are_kept_apart() {
        let all = [
            age("a", "bc"),
            age("ab", "c"),
            kms("a", "bc"),
            SealedKey::Kms {
                arn: "a".into(),
                role: None,
                context: vec![("k".into(), "v".into())],
                profile: None,
                enc: "bc".into(),
            },
        ];
        let mut digests: Vec<_> = all.iter().map(SealedKey::digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), all.len());
    }
}
