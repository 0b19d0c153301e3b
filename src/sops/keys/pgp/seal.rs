//! Sealing to OpenPGP keys: public keys of the keys folder, else those that the user's gpg has.

use std::io::Write;

use futures::future::{BoxFuture, FutureExt};
use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Armorer, Encryptor, LiteralWriter, Message, Recipient};

use super::{is_hex, normalise};
use crate::fault::Class;
use crate::sops::keys::gpg::Gpg;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, SealedKey, UnwrapError};

/// Public keys.
#[derive(Debug, Default)]
pub struct PgpRecipients {
    certs: Vec<Cert>,
    gpg: Option<Gpg>,
}

impl PgpRecipients {
    /// `gpg` is asked for keys that are not added.
    pub fn new(gpg: Option<Gpg>) -> Self {
        Self { certs: Vec::new(), gpg }
    }

    /// Adds the public halves of all keys in one armored block, or in binary packets. What is no key is passed over.
    pub fn add(&mut self, packets: &[u8]) {
        let certs = CertParser::from_bytes(packets).into_iter().flatten();
        self.certs.extend(certs.filter_map(Result::ok).map(Cert::strip_secret_key_material));
    }

    async fn seal(&self, fingerprint: &str, data_key: &DataKey) -> Result<String, UnwrapError> {
        let id = normalise(fingerprint);
        if let Some(cert) = self.certs.iter().find(|cert| is_called(cert, &id)) {
            return encrypt(cert, fingerprint, data_key);
        }
        let exported = match &self.gpg {
            Some(gpg) => gpg.export(fingerprint.trim_end_matches('!')).await?,
            None => Vec::new(),
        };
        let cert = CertParser::from_bytes(&exported).ok().and_then(|mut certs| certs.find_map(Result::ok));
        let cert = cert.ok_or_else(|| {
            let reason = "no public key of it is in the keys folder or known to gpg\nhelp: put `gpg --armor --export FINGERPRINT` into the keys folder";
            UnwrapError::new(Class::NotFound, reason)
        })?;
        encrypt(&cert, fingerprint, data_key)
    }
}

impl KeyWrap for PgpRecipients {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Pgp { fingerprint, .. } => Some(self.seal(fingerprint, data_key).await),
                _ => None,
            }
        }
        .boxed()
    }
}

/// Whether `id` is the fingerprint or key id of one of its keys. Addresses are left to gpg.
fn is_called(cert: &Cert, id: &str) -> bool {
    is_hex(id) && cert.keys().any(|key| key.key().fingerprint().to_hex().ends_with(id))
}

/// Seals to the newest key for encryption, or to the very subkey whose name ends in `!`.
fn encrypt(cert: &Cert, fingerprint: &str, data_key: &DataKey) -> Result<String, UnwrapError> {
    let policy = StandardPolicy::new();
    let only = fingerprint.trim().ends_with('!').then(|| normalise(fingerprint));
    let usable = cert.keys().with_policy(&policy, None).supported().alive().revoked(false);
    let usable = usable.for_transport_encryption().for_storage_encryption();
    let mut keys: Vec<_> = usable
        .filter(|key| only.as_ref().is_none_or(|id| key.key().fingerprint().to_hex().ends_with(id)))
        .collect();
    keys.sort_by_key(|key| key.key().creation_time());
    let newest = keys.pop().ok_or_else(|| {
        let reason = "the OpenPGP key has no usable key for encryption: it is expired, revoked, too weak, or of a kind that is not supported";
        UnwrapError::new(Class::Invalid, reason)
    })?;
    write(Recipient::from(newest), data_key)
        .map_err(|_| UnwrapError::new(Class::Internal, "OpenPGP does not seal to it"))
}

fn write(recipient: Recipient<'_>, data_key: &DataKey) -> sequoia_openpgp::Result<String> {
    let mut armored = Vec::new();
    let message = Armorer::new(Message::new(&mut armored)).build()?;
    let message = Encryptor::for_recipients(message, [recipient]).build()?;
    let mut message = LiteralWriter::new(message).build()?;
    message.write_all(data_key.expose())?;
    message.finalize()?;
    Ok(String::from_utf8(armored)?)
}

#[cfg(test)]
mod tests {
    use super::super::PgpKeys;
    use super::*;
    use crate::secret::Secret;
    use crate::sops::keys::testing::{DATA_KEY, fixture};

    fn seal(fingerprint: &str, known: &[&str]) -> Result<String, UnwrapError> {
        let mut recipients = PgpRecipients::default();
        for name in known {
            recipients.add(fixture(name).as_bytes());
        }
        let data_key = Secret::new(DATA_KEY.as_bytes().to_vec());
        futures::executor::block_on(recipients.seal(fingerprint, &data_key))
    }

    #[test]
    fn what_is_sealed_to_a_public_key_its_secret_key_opens() {
        for name in ["rsa2048", "curve25519"] {
            let (key, fingerprint) =
                (format!("pgp-{name}.key.asc"), fixture(&format!("pgp-{name}.fingerprint")));
            let sealed = seal(fingerprint.trim(), &["pgp-expired.key.asc", &key]).unwrap();
            let mut keys = PgpKeys::default();
            keys.add(fixture(&key).as_bytes()).unwrap();
            assert_eq!(keys.open(&fingerprint, &sealed).unwrap().unwrap().expose(), DATA_KEY.as_bytes());
        }
    }

    #[test]
    fn an_older_subkey_is_taken_where_it_is_named() {
        let older = fixture("pgp-curve25519.older-subkey");
        let sealed = seal(&format!("{}!", older.trim()), &["pgp-curve25519.key.asc"]).unwrap();
        let mut keys = PgpKeys::default();
        keys.add(fixture("pgp-curve25519.key.asc").as_bytes()).unwrap();
        assert!(keys.open(&older, &sealed).unwrap().is_ok());
    }

    #[test]
    fn an_expired_or_unknown_key_is_refused() {
        let expired = fixture("pgp-expired.fingerprint");
        let error = seal(expired.trim(), &["pgp-expired.key.asc"]).unwrap_err();
        assert!(error.reason.starts_with("the OpenPGP key has no usable key"), "{}", error.reason);
        let error = seal(expired.trim(), &["pgp-rsa2048.key.asc"]).unwrap_err();
        assert_eq!(error.class, Class::NotFound);
    }
}
