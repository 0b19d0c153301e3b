//! age: X25519 identities and SSH private keys, opened by the `age` crate.
//!
//! An identity opens only what is sealed to its own recipient. Identities that need a passphrase, a plugin or a
//! post-quantum key are refused with a reason when they are loaded.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use ::age::armor::ArmoredReader;
use ::age::{DecryptError, Decryptor, Identity, ssh, x25519};
use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// A sealed data key is under 1 KB; a file that says more is not one of sops.
const ENC_LIMIT: usize = 256 * 1024;
/// More than any data key; what is longer is cut and then refused for its length.
const READ_LIMIT: usize = 64;

/// The age identities of this process.
#[derive(Default)]
pub struct AgeKeys(Vec<HeldIdentity>);

struct HeldIdentity {
    /// `age1…`, or type and key of an SSH public key.
    recipient: String,
    identity: Box<dyn Identity + Send + Sync>,
}

impl AgeKeys {
    /// Number of identities.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
                match x25519::Identity::from_str(word) {
                    Ok(identity) => self.add(&identity.to_public().to_string(), Box::new(identity)),
                    Err(_) => problems.push(format!("line {}: {}", line + 1, refusal(word))),
                }
            }
        }
        problems
    }

    /// Adds one SSH private key, in OpenSSH's format or PEM.
    pub fn add_ssh_key(&mut self, pem: &str) -> Result<(), String> {
        let identity = ssh::Identity::from_buffer(pem.as_bytes(), None)
            .map_err(|_| "not an SSH private key that age can use (ed25519 or rsa)".to_owned())?;
        match &identity {
            ssh::Identity::Unencrypted(_) => {}
            ssh::Identity::Encrypted(_) => return Err("the SSH key is protected by a passphrase".to_owned()),
            ssh::Identity::Unsupported(_) => {
                return Err("this type or format of SSH key is not supported by age".to_owned());
            }
        }
        let recipient = ssh::Recipient::try_from(identity.clone())
            .map_err(|_| "the SSH key has no public half that age knows".to_owned())?;
        self.add(&recipient.to_string(), Box::new(identity));
        Ok(())
    }

    fn add(&mut self, recipient: &str, identity: Box<dyn Identity + Send + Sync>) {
        let recipient = normalise(recipient);
        if self.0.iter().all(|held| held.recipient != recipient) {
            self.0.push(HeldIdentity { recipient, identity });
        }
    }

    fn open(&self, recipient: &str, enc: &str) -> Option<Result<DataKey, UnwrapError>> {
        let recipient = normalise(recipient);
        let held = self.0.iter().find(|held| held.recipient == recipient)?;
        Some(decrypt(held.identity.as_ref(), enc))
    }
}

impl KeyUnwrap for AgeKeys {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Age { recipient, enc } => self.open(recipient, enc),
                _ => None,
            }
        }
        .boxed()
    }
}

impl fmt::Debug for AgeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|held| &held.recipient)).finish()
    }
}

/// A recipient without the comment that an SSH public key may carry.
fn normalise(recipient: &str) -> String {
    let words: Vec<_> = recipient.split_whitespace().take(2).collect();
    words.join(" ")
}

/// Why a word of an identities file is not used. It never quotes the word.
fn refusal(word: &str) -> &'static str {
    let word = word.to_ascii_uppercase();
    if word.starts_with("AGE-SECRET-KEY-PQ-") {
        "post-quantum age identities (AGE-SECRET-KEY-PQ-1…) are not supported yet"
    } else if word.starts_with("AGE-PLUGIN-") {
        "age plugins are not supported"
    } else if word.starts_with("AGE-SECRET-KEY-") {
        "the age identity is damaged"
    } else {
        "not an age identity"
    }
}

fn decrypt(identity: &(dyn Identity + Send + Sync), enc: &str) -> Result<DataKey, UnwrapError> {
    if enc.len() > ENC_LIMIT {
        return Err(UnwrapError::new(Class::Invalid, "the sealed key is too large"));
    }
    let decryptor = Decryptor::new(ArmoredReader::new(enc.as_bytes())).map_err(|error| told(&error))?;
    if decryptor.is_scrypt() {
        return Err(UnwrapError::new(Class::Invalid, "it is sealed with a passphrase, not to a key"));
    }
    let reader =
        decryptor.decrypt(std::iter::once(identity as &dyn Identity)).map_err(|error| told(&error))?;
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
        assert_eq!(keys.add_identities(&fixture("age-identities.txt")), Vec::<String>::new());
        keys
    }

    fn opened(keys: &AgeKeys, recipient: &str, sealed: &str) -> Option<Result<String, UnwrapError>> {
        let outcome = keys.open(&fixture(recipient), &fixture(sealed))?;
        Some(outcome.map(|data_key| String::from_utf8(data_key.expose().clone()).unwrap()))
    }

    #[test]
    fn every_identity_of_a_file_opens_what_age_sealed_to_it() {
        for name in ["one", "two"] {
            let outcome =
                opened(&keys(), &format!("age-{name}.recipient"), &format!("age-{name}.sealed.txt"));
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
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
                "line 2: post-quantum age identities (AGE-SECRET-KEY-PQ-1…) are not supported yet",
                "line 4: age plugins are not supported",
                "line 5: the age identity is damaged",
                "line 6: not an age identity",
            ]
        );
        assert!(keys.is_empty());
    }

    #[test]
    fn an_ssh_key_with_a_passphrase_is_refused() {
        let error = AgeKeys::default().add_ssh_key(&fixture("ssh-locked.key")).unwrap_err();
        assert_eq!(error, "the SSH key is protected by a passphrase");
    }
}
