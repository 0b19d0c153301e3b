//! age: X25519 and post-quantum identities and SSH private keys, opened by the `age` crate.
//!
//! An identity opens only what is sealed to its own recipient. What is protected by a passphrase is unlocked with the
//! operator's when it is loaded; identities of a plugin are refused with a reason, but for a person at a terminal.

mod hybrid;
mod person;
pub mod plugin;

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use ::age::armor::{ArmoredReader, ArmoredWriter, Format};
use ::age::secrecy::SecretString;
use ::age::{DecryptError, Decryptor, EncryptError, Encryptor, Identity, Recipient, scrypt, ssh, x25519};
use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::age::plugin::Plugins;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// A sealed data key is under 1 KB; a file that says more is not one of sops.
const ENC_LIMIT: usize = 256 * 1024;
/// More than any data key; what is longer is cut and then refused for its length.
const READ_LIMIT: usize = 64;
/// Work of a passphrase, as a power of two: 1 GiB of memory for some seconds. `age` writes 18.
const WORK_LIMIT: u8 = 20;

const PLUGINS_DENIED: &str = "age plugins are programs, which run for commands of a terminal only";

/// The age identities of this process.
#[derive(Default)]
pub struct AgeKeys {
    held: Vec<HeldIdentity>,
    passphrase: Option<SecretString>,
    plugins: Option<Plugins>,
    handles: Vec<::age::plugin::Identity>,
}

struct HeldIdentity {
    /// `age1…`, or type and key of an SSH public key.
    recipient: String,
    identity: Box<dyn Identity + Send + Sync>,
}

impl AgeKeys {
    /// Identities and SSH keys that are protected by a passphrase are unlocked with this one.
    #[must_use]
    pub fn with_passphrase(passphrase: Option<&Secret<String>>) -> Self {
        let passphrase = passphrase.map(|text| SecretString::from(text.expose().as_str()));
        Self { passphrase, ..Self::default() }
    }

    /// Identities that need a plugin are used, where there are `plugins`, and refused otherwise.
    #[must_use]
    pub fn with_plugins(self, plugins: Option<Plugins>) -> Self {
        Self { plugins, ..self }
    }

    /// Number of identities.
    pub fn len(&self) -> usize {
        self.held.len() + self.handles.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds every identity of `text`: one a word, lines that start with `#` are comments.
    ///
    /// Returns a problem for each word that is not a usable identity, by line; the others are added all the same.
    pub fn add_identities(&mut self, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (line, words) in text.lines().enumerate() {
            if words.trim_start().starts_with('#') {
                continue;
            }
            for word in words.split_whitespace() {
                if let Ok(identity) = x25519::Identity::from_str(word) {
                    self.add(&identity.to_public().to_string(), Box::new(identity));
                } else if let Ok(identity) = hybrid::Identity::from_str(word) {
                    self.add(&identity.recipient().to_string(), Box::new(identity));
                } else if let (Some(_), Ok(identity)) = (&self.plugins, word.parse()) {
                    self.handles.push(identity);
                } else {
                    problems.push(format!("line {}: {}", line + 1, refusal(word)));
                }
            }
        }
        problems
    }

    /// Adds every identity of an identities file that `age --passphrase` protected, armored or binary.
    ///
    /// The problems are those of [`Self::add_identities`], or the one of the whole file.
    pub fn add_locked_identities(&mut self, file: &[u8]) -> Result<Vec<String>, String> {
        let Some(passphrase) = &self.passphrase else { return Err(locked("age identity")) };
        let text = unlock(file, passphrase.clone())?;
        let text = std::str::from_utf8(text.expose()).map_err(|_| "it holds no age identities".to_owned())?;
        Ok(self.add_identities(text))
    }

    /// Adds one SSH private key, in OpenSSH's format or PEM.
    pub fn add_ssh_key(&mut self, pem: &str) -> Result<(), String> {
        let identity = ssh::Identity::from_buffer(pem.as_bytes(), None)
            .map_err(|_| "not an SSH private key that age can use (ed25519 or rsa)".to_owned())?;
        let identity = match identity {
            ssh::Identity::Unencrypted(_) => identity,
            ssh::Identity::Encrypted(key) => self.unlock_ssh_key(&key)?,
            ssh::Identity::Unsupported(_) => {
                return Err("this type or format of SSH key is not supported by age".to_owned());
            }
        };
        let recipient = ssh::Recipient::try_from(identity.clone())
            .map_err(|_| "the SSH key has no public half that age knows".to_owned())?;
        self.add(&recipient.to_string(), Box::new(identity));
        Ok(())
    }

    fn unlock_ssh_key(&self, key: &ssh::EncryptedKey) -> Result<ssh::Identity, String> {
        let passphrase = self.passphrase.clone().ok_or_else(|| locked("SSH key"))?;
        let key =
            key.decrypt(passphrase).map_err(|_| "the passphrase does not unlock the SSH key".to_owned())?;
        Ok(ssh::Identity::from(key))
    }

    fn add(&mut self, recipient: &str, identity: Box<dyn Identity + Send + Sync>) {
        let recipient = normalise(recipient);
        if self.held.iter().all(|held| held.recipient != recipient) {
            self.held.push(HeldIdentity { recipient, identity });
        }
    }

    fn open(&self, recipient: &str, enc: &str) -> Option<Result<DataKey, UnwrapError>> {
        let recipient = normalise(recipient);
        let held = self.held.iter().find(|held| held.recipient == recipient)?;
        Some(decrypt(held.identity.as_ref(), enc, told))
    }

    /// Asks the plugin that the recipient is of; all, where none is or its identity is not here, as for a key of
    /// SSH that a plugin holds.
    async fn open_by_plugin(&self, recipient: &str, enc: &str) -> Option<Result<DataKey, UnwrapError>> {
        let plugins = self.plugins.as_ref()?;
        let mut names: Vec<_> = self.handles.iter().map(|handle| handle.plugin().to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(own) = plugin::name_of(recipient.trim()).filter(|own| names.contains(own)) {
            names = vec![own];
        }
        let mut failures: Vec<UnwrapError> = Vec::new();
        for name in names {
            let (plugins, handles, enc) = (plugins.clone(), self.handles.clone(), enc.to_owned());
            match aside(move || plugins.open(&name, &handles, &enc)).await {
                Ok(data_key) => return Some(Ok(data_key)),
                Err(error) => failures.push(error),
            }
        }
        let reasons: Vec<_> = failures.iter().map(|error| error.reason.as_str()).collect();
        Some(Err(UnwrapError::new(failures.first()?.class, reasons.join("; "))))
    }
}

/// Awaits work that blocks. One that never ends does not keep the process from ending.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UnwrapError> + Send + 'static,
) -> Result<T, UnwrapError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    let lost = |_| UnwrapError::new(Class::Internal, "the plugin's thread ended");
    outcome.await.map_err(lost).flatten()
}

impl KeyUnwrap for AgeKeys {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Age { recipient, enc } => match self.open(recipient, enc) {
                    None => self.open_by_plugin(recipient, enc).await,
                    outcome => outcome,
                },
                _ => None,
            }
        }
        .boxed()
    }
}

impl fmt::Debug for AgeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugins = self.handles.iter().map(::age::plugin::Identity::plugin);
        f.debug_list().entries(self.held.iter().map(|held| &held.recipient)).entries(plugins).finish()
    }
}

/// Seals to any age recipient, which needs no secret; to one of a plugin where there are plugins.
#[derive(Debug, Default)]
pub struct AgeRecipients {
    /// Where they are.
    pub plugins: Option<Plugins>,
}

impl KeyWrap for AgeRecipients {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Age { recipient, .. } => Some(self.wrap(recipient.trim(), data_key).await),
                _ => None,
            }
        }
        .boxed()
    }
}

impl AgeRecipients {
    async fn wrap(&self, recipient: &str, data_key: &DataKey) -> Result<String, UnwrapError> {
        let Some(name) = plugin::name_of(recipient) else { return encrypt(recipient, data_key) };
        let Some(plugins) = self.plugins.clone() else {
            return Err(UnwrapError::new(Class::Denied, PLUGINS_DENIED));
        };
        let (recipient, data_key) = (recipient.to_owned(), data_key.clone());
        aside(move || {
            let recipient = plugins.recipient(&name, &recipient)?;
            encrypt_to(&recipient, &data_key, |error| plugin::not_sealed(&name, error))
        })
        .await
    }
}

fn encrypt(recipient: &str, data_key: &DataKey) -> Result<String, UnwrapError> {
    let refused = |_: &EncryptError| UnwrapError::new(Class::Invalid, "age does not seal to it");
    encrypt_to(&*recipient_of(recipient.trim())?, data_key, refused)
}

fn encrypt_to(
    recipient: &dyn Recipient,
    data_key: &DataKey,
    told: impl Fn(&EncryptError) -> UnwrapError,
) -> Result<String, UnwrapError> {
    let failed = |_| UnwrapError::new(Class::Internal, "age does not seal to it");
    let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).map_err(|error| told(&error))?;
    let mut armored = Vec::new();
    let armor = ArmoredWriter::wrap_output(&mut armored, Format::AsciiArmor).map_err(failed)?;
    let mut writer = encryptor.wrap_output(armor).map_err(failed)?;
    writer.write_all(data_key.expose()).map_err(failed)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(failed)?;
    String::from_utf8(armored).map_err(|_| UnwrapError::new(Class::Internal, "age's armor is not text"))
}

fn recipient_of(text: &str) -> Result<Box<dyn Recipient>, UnwrapError> {
    if text.starts_with("ssh-") {
        let parsed = text.parse::<ssh::Recipient>().ok().map(|key| Box::new(key) as Box<dyn Recipient>);
        return parsed
            .ok_or_else(|| UnwrapError::new(Class::Invalid, "not an SSH public key that age can use"));
    }
    if let Ok(key) = text.parse::<x25519::Recipient>() {
        return Ok(Box::new(key));
    }
    if let Ok(key) = text.parse::<hybrid::Recipient>() {
        return Ok(Box::new(key));
    }
    let reason = if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        "it is a secret key\nhelp: encrypt to the recipient of it (age-keygen -y)"
    } else {
        "not an age recipient"
    };
    Err(UnwrapError::new(Class::Invalid, reason))
}

/// A recipient without the comment that an SSH public key may carry.
fn normalise(recipient: &str) -> String {
    let words: Vec<_> = recipient.split_whitespace().take(2).collect();
    words.join(" ")
}

/// Why a word of an identities file is not used. It never quotes the word.
fn refusal(word: &str) -> &'static str {
    let word = word.to_ascii_uppercase();
    if word.starts_with("AGE-PLUGIN-") {
        PLUGINS_DENIED
    } else if word.starts_with("AGE-SECRET-KEY-") {
        "the age identity is damaged"
    } else {
        "not an age identity"
    }
}

/// Why a key is not used that no passphrase is known for.
fn locked(what: &str) -> String {
    format!(
        "the {what} is protected by a passphrase; name the file that holds it in STRONGROOM_PASSPHRASE_FILE"
    )
}

/// The content of a file that is sealed with a passphrase.
fn unlock(file: &[u8], passphrase: SecretString) -> Result<Secret<Vec<u8>>, String> {
    let damaged = "the locked age identity is damaged";
    let decryptor = Decryptor::new(ArmoredReader::new(file)).map_err(|_| damaged.to_owned())?;
    if !decryptor.is_scrypt() {
        return Err("the age identity is sealed to another key, not with a passphrase".to_owned());
    }
    let mut identity = scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(WORK_LIMIT);
    let outcome = decryptor.decrypt(std::iter::once(&identity as &dyn Identity));
    let mut reader = outcome.map_err(|error| refused(&error).unwrap_or(damaged).to_owned())?;
    // What is sealed is longer than its content: growing would leave copies behind.
    let mut content = Secret::new(Vec::with_capacity(file.len()));
    reader.read_to_end(content.expose_mut()).map_err(|_| damaged.to_owned())?;
    Ok(content)
}

fn refused(error: &DecryptError) -> Option<&'static str> {
    match error {
        DecryptError::ExcessiveWork { .. } => {
            Some("its passphrase takes more work than is allowed here (2^20)")
        }
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            Some("the passphrase does not unlock the age identity")
        }
        _ => None,
    }
}

fn decrypt(
    identity: &dyn Identity,
    enc: &str,
    told: impl Fn(&DecryptError) -> UnwrapError,
) -> Result<DataKey, UnwrapError> {
    if enc.len() > ENC_LIMIT {
        return Err(UnwrapError::new(Class::Invalid, "the sealed key is too large"));
    }
    let decryptor = Decryptor::new(ArmoredReader::new(enc.as_bytes())).map_err(|error| told(&error))?;
    if decryptor.is_scrypt() {
        return Err(UnwrapError::new(Class::Invalid, "it is sealed with a passphrase, not to a key"));
    }
    let reader = decryptor.decrypt(std::iter::once(identity)).map_err(|error| told(&error))?;
    let mut data_key = Secret::new(Vec::with_capacity(READ_LIMIT));
    reader
        .take(READ_LIMIT as u64)
        .read_to_end(data_key.expose_mut())
        .map_err(|_| UnwrapError::new(Class::Invalid, "the sealed key is damaged"))?;
    Ok(data_key)
}

fn told(error: &DecryptError) -> UnwrapError {
    let reason = match error {
        DecryptError::NoMatchingKeys => "it is sealed to another age recipient than the file says",
        DecryptError::UnknownFormat => "the sealed key has an unknown age format",
        _ => "the sealed key is damaged",
    };
    UnwrapError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sops::keys::testing::{DATA_KEY, fixture};

    fn keys() -> AgeKeys {
        let mut keys = AgeKeys::default();
        for name in ["age-identities.txt", "age-pq-identity.txt"] {
            assert_eq!(keys.add_identities(&fixture(name)), Vec::<String>::new());
        }
        keys
    }

    fn opened(keys: &AgeKeys, recipient: &str, sealed: &str) -> Option<Result<String, UnwrapError>> {
        let outcome = keys.open(&fixture(recipient), &fixture(sealed))?;
        Some(outcome.map(|data_key| String::from_utf8(data_key.expose().clone()).unwrap()))
    }

    #[test]
    fn every_identity_of_a_file_opens_what_age_sealed_to_it() {
        for name in ["one", "two", "pq"] {
            let outcome =
                opened(&keys(), &format!("age-{name}.recipient"), &format!("age-{name}.sealed.txt"));
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
        }
    }

    #[test]
    fn what_is_sealed_to_a_recipient_its_identity_opens() {
        let data_key = Secret::new(DATA_KEY.as_bytes().to_vec());
        let mut keys = keys();
        keys.add_ssh_key(&fixture("ssh-ed25519.key")).unwrap();
        keys.add_ssh_key(&fixture("ssh-rsa.key")).unwrap();
        for name in ["age-one.recipient", "age-pq.recipient", "ssh-ed25519.key.pub", "ssh-rsa.key.pub"] {
            let recipient = fixture(name);
            let sealed = encrypt(&recipient, &data_key).unwrap();
            assert_eq!(keys.open(&recipient, &sealed).unwrap().unwrap(), data_key);
        }
    }

    #[test]
    fn what_is_no_recipient_is_refused_without_showing_it() {
        for (recipient, reason) in [
            ("age1STRONGROOM-MARKER", "not an age recipient"),
            ("age1pq1x", "not an age recipient"),
            ("AGE-SECRET-KEY-1STRONGROOM-MARKER", "it is a secret key"),
            ("ssh-dss STRONGROOM-MARKER", "not an SSH public key that age can use"),
        ] {
            let error = encrypt(recipient, &Secret::default()).unwrap_err();
            assert!(error.reason.starts_with(reason) && !error.reason.contains("MARKER"), "{}", error.reason);
        }
    }

    #[test]
    fn ssh_keys_open_what_age_sealed_to_them() {
        for name in ["ed25519", "rsa"] {
            let mut keys = AgeKeys::default();
            keys.add_ssh_key(&fixture(&format!("ssh-{name}.key"))).unwrap();
            let outcome = opened(&keys, &format!("ssh-{name}.key.pub"), &format!("ssh-{name}.sealed.txt"));
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY, "{name}");
        }
    }

    #[test]
    fn an_identity_never_opens_what_is_said_to_be_anothers() {
        let error = opened(&keys(), "age-one.recipient", "age-two.sealed.txt").unwrap().unwrap_err();
        assert_eq!(error.class, Class::Invalid);
        assert_eq!(error.reason, "it is sealed to another age recipient than the file says");
        assert!(opened(&keys(), "ssh-ed25519.key.pub", "age-one.sealed.txt").is_none());
    }

    #[test]
    fn a_damaged_sealed_key_says_so() {
        let recipient = fixture("age-one.recipient");
        let whole = fixture("age-one.sealed.txt");
        let short = &whole[..whole.len() / 2];
        for enc in ["", "STRONGROOM-MARKER", short, &whole.replace('a', "b")] {
            let error = keys().open(&recipient, enc).unwrap().unwrap_err();
            assert_eq!(error.class, Class::Invalid);
            assert!(!error.reason.contains("MARKER"), "{}", error.reason);
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_by_line_and_never_quoted() {
        let text = "# a comment\nAGE-SECRET-KEY-PQ-1STRONGROOM-MARKER\n\nAGE-PLUGIN-X-1STRONGROOM-MARKER\n\
                    AGE-SECRET-KEY-1STRONGROOM-MARKER\nSTRONGROOM-MARKER\n";
        let mut keys = AgeKeys::default();
        assert_eq!(
            keys.add_identities(text),
            [
                "line 2: the age identity is damaged",
                "line 4: age plugins are programs, which run for commands of a terminal only",
                "line 5: the age identity is damaged",
                "line 6: not an age identity",
            ]
        );
        assert!(keys.is_empty());
    }

    fn unlocking(passphrase: &str) -> AgeKeys {
        AgeKeys::with_passphrase(Some(&Secret::new(passphrase.to_owned())))
    }

    #[test]
    fn an_ssh_key_is_unlocked_with_the_passphrase() {
        let mut keys = unlocking("STRONGROOM-MARKER");
        keys.add_ssh_key(&fixture("ssh-locked.key")).unwrap();
        let outcome = opened(&keys, "ssh-locked.key.pub", "ssh-locked.sealed.txt");
        assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
    }

    #[test]
    fn an_identities_file_is_unlocked_with_the_passphrase() {
        let mut keys = unlocking("STRONGROOM-MARKER");
        let problems = keys.add_locked_identities(fixture("age-locked.txt").as_bytes()).unwrap();
        assert_eq!((problems, keys.len()), (Vec::new(), 2));
        let outcome = opened(&keys, "age-one.recipient", "age-one.sealed.txt");
        assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
    }

    #[test]
    fn what_the_passphrase_does_not_unlock_says_why() {
        let ssh = |mut keys: AgeKeys| keys.add_ssh_key(&fixture("ssh-locked.key")).unwrap_err();
        let age = |mut keys: AgeKeys, name| keys.add_locked_identities(fixture(name).as_bytes()).unwrap_err();
        let ask = "protected by a passphrase; name the file that holds it in STRONGROOM_PASSPHRASE_FILE";
        let wrong = || unlocking("another STRONGROOM-MARKER");
        let table = [
            (ssh(AgeKeys::default()), format!("the SSH key is {ask}")),
            (ssh(wrong()), "the passphrase does not unlock the SSH key".to_owned()),
            (age(AgeKeys::default(), "age-locked.txt"), format!("the age identity is {ask}")),
            (age(wrong(), "age-locked.txt"), "the passphrase does not unlock the age identity".to_owned()),
            (
                age(wrong(), "age-one.sealed.txt"),
                "the age identity is sealed to another key, not with a passphrase".to_owned(),
            ),
            (age(wrong(), "age-one.recipient"), "the locked age identity is damaged".to_owned()),
        ];
        for (told, expected) in table {
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_passphrase_that_takes_too_much_work_is_not_tried() {
        let salt = "AAAAAAAAAAAAAAAAAAAAAA";
        let body = "A".repeat(43);
        let mac = "A".repeat(43);
        let file = |work: u8| {
            format!("age-encryption.org/v1\n-> scrypt {salt} {work}\n{body}\n--- {mac}\n0123456789abcdef")
        };
        let error = unlocking("STRONGROOM-MARKER").add_locked_identities(file(21).as_bytes()).unwrap_err();
        assert_eq!(error, "its passphrase takes more work than is allowed here (2^20)");
    }
}
