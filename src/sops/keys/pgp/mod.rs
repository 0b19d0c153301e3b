//! OpenPGP: secret keys parsed and messages opened by sequoia, the RSA private operation done by aws-lc.
//!
//! A data key is opened with whatever key it was sealed to: expired, revoked and old keys count, because nothing is
//! being signed or trusted here. The message's integrity is checked always: packets without it (RFC 9580 calls them
//! SED) are refused. Of `rsa`, the only crate at hand that can complete a private key, nothing but that is used:
//! its private operation can be timed (RUSTSEC-2023-0071), aws-lc's cannot.

mod loose;
pub mod seal;

use std::fmt;
use std::io::Read;
use std::sync::OnceLock;

use aws_lc_rs::rsa::{Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use futures::future::{BoxFuture, FutureExt};
use rsa::pkcs8::EncodePrivateKey;
use rsa::{BigUint, RsaPrivateKey};
use sequoia_openpgp::crypto::mpi::{self, Ciphertext};
use sequoia_openpgp::crypto::{Decryptor, Password, SessionKey};
use sequoia_openpgp::packet::Tag;
use sequoia_openpgp::packet::key::{PublicParts, SecretKeyMaterial, SecretParts, UnspecifiedRole};
use sequoia_openpgp::packet::{Key, PKESK, SKESK};
use sequoia_openpgp::parse::stream::{
    DecryptionHelper, DecryptorBuilder, MessageStructure, VerificationHelper,
};
use sequoia_openpgp::parse::{PacketParser, PacketParserResult, Parse};
use sequoia_openpgp::policy::Policy;
use sequoia_openpgp::types::{AEADAlgorithm, SymmetricAlgorithm};
use sequoia_openpgp::{Cert, KeyHandle, Packet};

use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// A sealed data key is under 2 KB even for RSA-4096.
const ENC_LIMIT: usize = 256 * 1024;
/// Session keys of one message that are tried; sops seals to one key at a time.
const SESSION_KEYS_LIMIT: usize = 16;
/// More than any data key; what is longer is cut and then refused for its length.
const READ_LIMIT: usize = 64;

/// The OpenPGP secret keys of this process.
#[derive(Default)]
pub struct PgpKeys {
    keys: Vec<HeldKey>,
    passphrase: Option<Password>,
}

/// A primary key or subkey.
struct HeldKey {
    /// Fingerprint of the primary key, by which people call it.
    primary: String,
    fingerprint: String,
    key: Key<SecretParts, UnspecifiedRole>,
    /// Completed at the first use, because that costs more than a decryption.
    rsa: OnceLock<Option<Pkcs1PrivateDecryptingKey>>,
}

impl PgpKeys {
    /// Keys that are protected by a passphrase are unlocked with this one.
    #[must_use]
    pub fn with_passphrase(passphrase: Option<&Secret<String>>) -> Self {
        Self { keys: Vec::new(), passphrase: passphrase.map(|text| Password::from(text.expose().as_str())) }
    }

    /// Number of certificates whose secret keys are held; their subkeys are not counted.
    pub fn len(&self) -> usize {
        let mut primaries: Vec<_> = self.keys.iter().map(|held| &held.primary).collect();
        primaries.sort();
        primaries.dedup();
        primaries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds every secret key of one armored block, or of binary packets.
    pub fn add(&mut self, packets: &[u8]) -> Result<(), String> {
        let damaged = |_| "the OpenPGP key is damaged".to_owned();
        let mut primary = String::new();
        let mut found = false;
        let mut unknown = None;
        let mut parser = PacketParser::from_bytes(packets).map_err(damaged)?;
        while let PacketParserResult::Some(mut here) = parser {
            if matches!(&here.packet, Packet::Unknown(packet) if packet.tag() == Tag::SecretKey) {
                unknown = here.buffer_unread_content().map_err(damaged)?.first().copied();
            }
            let (packet, next) = here.next().map_err(damaged)?;
            parser = next;
            let key = match packet {
                Packet::SecretKey(key) => {
                    primary = key.fingerprint().to_hex();
                    key.role_into_unspecified()
                }
                Packet::SecretSubkey(key) => key.role_into_unspecified(),
                _ => continue,
            };
            found = true;
            self.add_key(&primary, key)?;
        }
        match unknown {
            _ if found => Ok(()),
            Some(version) => {
                Err(format!("it holds an OpenPGP key of version {version}, which is not supported"))
            }
            None => Err("it holds no OpenPGP secret key".to_owned()),
        }
    }

    fn add_key(&mut self, primary: &str, key: Key<SecretParts, UnspecifiedRole>) -> Result<(), String> {
        let fingerprint = key.fingerprint().to_hex();
        let known = self.keys.iter().any(|held| held.fingerprint == fingerprint);
        if known || !key.pk_algo().for_encryption() {
            return Ok(());
        }
        let key = match &self.passphrase {
            Some(passphrase) if !key.has_unencrypted_secret() => key
                .decrypt_secret(passphrase)
                .map_err(|_| format!("the passphrase does not unlock OpenPGP key {fingerprint}"))?,
            _ => key,
        };
        self.keys.push(HeldKey { primary: primary.to_owned(), fingerprint, key, rsa: OnceLock::new() });
        Ok(())
    }

    fn open(&self, fingerprint: &str, enc: &str) -> Option<Result<DataKey, UnwrapError>> {
        let id = normalise(fingerprint);
        let named: Vec<_> = self.keys.iter().filter(|held| held.is_called(&id)).collect();
        if named.is_empty() {
            return None;
        }
        Some(decrypt(&named, enc))
    }
}

impl KeyUnwrap for PgpKeys {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            match key {
                SealedKey::Pgp { fingerprint, enc } => self.open(fingerprint, enc),
                _ => None,
            }
        }
        .boxed()
    }
}

impl fmt::Debug for PgpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|held| &held.fingerprint)).finish()
    }
}

/// A fingerprint or key id without `0x`, spaces and gpg's `!`, in upper case; anything else as it is.
pub(crate) fn normalise(fingerprint: &str) -> String {
    let hex: String = fingerprint.split_whitespace().collect();
    let hex = hex.strip_suffix('!').unwrap_or(&hex);
    let hex = hex.strip_prefix("0x").unwrap_or(hex);
    if is_hex(hex) { hex.to_ascii_uppercase() } else { fingerprint.trim().to_owned() }
}

fn is_hex(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl HeldKey {
    /// Whether `id` is the fingerprint or key id of this key or of its primary key.
    ///
    /// sops lets a file call a key by something that only gpg understands, such as an address. What that means
    /// is not known here, so every key is called by it; the policy was asked about that very name.
    fn is_called(&self, id: &str) -> bool {
        !is_hex(id) || self.fingerprint.ends_with(id) || self.primary.ends_with(id)
    }

    fn is_recipient_of(&self, message: &PKESK) -> bool {
        let own = KeyHandle::from(self.key.fingerprint());
        message.recipient().is_none_or(|recipient| recipient.aliases(&own))
    }

    fn session_key(
        &self,
        message: &PKESK,
        cipher: Option<SymmetricAlgorithm>,
    ) -> Option<(Option<SymmetricAlgorithm>, SessionKey)> {
        if let Some(key) = self.rsa() {
            let mut rsa = RsaDecryptor { public: self.key.parts_as_public(), key };
            return message.decrypt(&mut rsa, cipher);
        }
        let mut pair = self.key.clone().into_keypair().ok()?;
        message.decrypt(&mut pair, cipher)
    }

    /// What it is, where nobody here can use it.
    fn unsupported(&self) -> Option<String> {
        let algorithm = self.key.pk_algo();
        match self.key.mpis() {
            mpi::PublicKey::ECDH { curve, .. } => {
                (!curve.is_supported()).then(|| format!("{algorithm}, curve {curve}"))
            }
            _ => (!algorithm.is_supported()).then(|| algorithm.to_string()),
        }
    }

    fn rsa(&self) -> Option<&Pkcs1PrivateDecryptingKey> {
        self.rsa.get_or_init(|| complete_rsa(&self.key)).as_ref()
    }
}

/// The key in the form that aws-lc takes, with the parts that OpenPGP does not store computed.
///
/// `None` for keys that are not RSA, and for RSA keys under 2048 bits, which aws-lc does not take; those are so
/// weak that the time their use takes gives nothing away that factoring would not.
fn complete_rsa(key: &Key<SecretParts, UnspecifiedRole>) -> Option<Pkcs1PrivateDecryptingKey> {
    let mpi::PublicKey::RSA { e, n } = key.mpis() else { return None };
    let SecretKeyMaterial::Unencrypted(secret) = key.secret() else { return None };
    let number = |mpi: &[u8]| BigUint::from_bytes_be(mpi);
    let private = secret.map(|secret| match secret {
        mpi::SecretKeyMaterial::RSA { d, p, q, .. } => RsaPrivateKey::from_components(
            number(n.value()),
            number(e.value()),
            number(d.value()),
            vec![number(p.value()), number(q.value())],
        )
        .ok(),
        _ => None,
    })?;
    let document = private.to_pkcs8_der().ok()?;
    let key = PrivateDecryptingKey::from_pkcs8(document.as_bytes()).ok()?;
    Pkcs1PrivateDecryptingKey::new(key).ok()
}

/// Every failure looks the same from outside, so that nobody learns about the padding.
struct RsaDecryptor<'a> {
    public: &'a Key<PublicParts, UnspecifiedRole>,
    key: &'a Pkcs1PrivateDecryptingKey,
}

impl Decryptor for RsaDecryptor<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.public
    }

    fn decrypt(
        &mut self,
        ciphertext: &Ciphertext,
        _plaintext_len: Option<usize>,
    ) -> sequoia_openpgp::Result<SessionKey> {
        let failed = || sequoia_openpgp::Error::InvalidSessionKey("RSA decryption failed".into());
        let Ciphertext::RSA { c } = ciphertext else { return Err(failed().into()) };
        let padded = c.value_padded(self.key.key_size_bytes()).map_err(|_| failed())?;
        let mut plaintext = Secret::new(vec![0; self.key.min_output_size()]);
        let session_key = self.key.decrypt(&padded, plaintext.expose_mut()).map_err(|_| failed())?;
        Ok(SessionKey::from(&*session_key))
    }
}

/// Accepts old ciphers: what they sealed is sealed already. Only integrity protection is insisted on.
#[derive(Debug)]
struct AnyCipher;

impl Policy for AnyCipher {
    fn symmetric_algorithm(&self, _: SymmetricAlgorithm) -> sequoia_openpgp::Result<()> {
        Ok(())
    }

    fn aead_algorithm(&self, _: AEADAlgorithm) -> sequoia_openpgp::Result<()> {
        Ok(())
    }

    fn packet(&self, packet: &Packet) -> sequoia_openpgp::Result<()> {
        match packet.tag() {
            Tag::SED => Err(sequoia_openpgp::Error::ManipulatedMessage.into()),
            _ => Ok(()),
        }
    }
}

fn decrypt(keys: &[&HeldKey], enc: &str) -> Result<DataKey, UnwrapError> {
    if enc.len() > ENC_LIMIT {
        return Err(UnwrapError::new(Class::Invalid, "the sealed key is too large"));
    }
    decrypt_bytes(keys, enc.as_bytes())
}

fn decrypt_bytes(keys: &[&HeldKey], message: &[u8]) -> Result<DataKey, UnwrapError> {
    let error = match decrypt_strictly(keys, message) {
        Err(error) if error.class == Class::Invalid => error,
        outcome => return outcome,
    };
    let session_key = |message: &PKESK| {
        let mut recipients = keys.iter().filter(|held| held.is_recipient_of(message));
        let (cipher, key) = recipients.find_map(|held| held.session_key(message, None))?;
        Some((cipher?, key))
    };
    loose::decrypt(message, session_key).ok_or(error)
}

fn decrypt_strictly(keys: &[&HeldKey], message: &[u8]) -> Result<DataKey, UnwrapError> {
    let mut session = Session { keys, failure: None };
    let mut data_key = Secret::new(Vec::with_capacity(READ_LIMIT));
    let read = DecryptorBuilder::from_bytes(message)
        .and_then(|builder| builder.with_policy(&AnyCipher, None, &mut session))
        .and_then(|message| Ok(message.take(READ_LIMIT as u64).read_to_end(data_key.expose_mut())?));
    match (read, session.failure) {
        (Ok(_), _) => Ok(data_key),
        (Err(_), Some(failure)) => Err(failure),
        (Err(_), None) => Err(UnwrapError::new(Class::Invalid, "the sealed key is damaged")),
    }
}

/// The keys that may open one message, and why none did.
struct Session<'a> {
    keys: &'a [&'a HeldKey],
    failure: Option<UnwrapError>,
}

impl Session<'_> {
    fn explain(&self, messages: &[PKESK]) -> UnwrapError {
        let recipients =
            || self.keys.iter().filter(|held| messages.iter().any(|pkesk| held.is_recipient_of(pkesk)));
        if messages.is_empty() {
            return UnwrapError::new(Class::Invalid, "it is sealed with a passphrase, not to a key");
        }
        if let Some(locked) = recipients().find(|held| !held.key.has_unencrypted_secret()) {
            let reason = format!(
                "OpenPGP key {} is protected by a passphrase\nhelp: export the key without one, or name a file that holds it in STRONGROOM_PASSPHRASE_FILE",
                locked.fingerprint
            );
            return UnwrapError::new(Class::Denied, reason);
        }
        match recipients().next() {
            Some(held) if let Some(kind) = held.unsupported() => {
                let reason = format!(
                    "OpenPGP key {} is of a kind that is not supported: {kind}\nhelp: RSA, Curve25519 and the NIST curves are",
                    held.fingerprint
                );
                UnwrapError::new(Class::Invalid, reason)
            }
            Some(held) => {
                let reason = format!("OpenPGP key {} does not open it", held.fingerprint);
                UnwrapError::new(Class::Invalid, reason)
            }
            None => sealed_to_another(messages),
        }
    }
}

fn sealed_to_another(messages: &[PKESK]) -> UnwrapError {
    let ids: Vec<_> = messages.iter().filter_map(PKESK::recipient).take(4).map(|id| id.to_string()).collect();
    let reason = format!("it is sealed to OpenPGP key {}, whose secret half is not loaded", ids.join(", "));
    UnwrapError::new(Class::Denied, reason)
}

impl VerificationHelper for &mut Session<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(Vec::new())
    }

    /// sops does not sign; who sealed a data key is known from the file's MAC.
    fn check(&mut self, _structure: MessageStructure<'_>) -> sequoia_openpgp::Result<()> {
        Ok(())
    }
}

impl DecryptionHelper for &mut Session<'_> {
    fn decrypt(
        &mut self,
        messages: &[PKESK],
        _passphrases: &[SKESK],
        cipher: Option<SymmetricAlgorithm>,
        decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &SessionKey) -> bool,
    ) -> sequoia_openpgp::Result<Option<Cert>> {
        let messages = &messages[..messages.len().min(SESSION_KEYS_LIMIT)];
        for message in messages {
            for held in self.keys.iter().filter(|held| held.is_recipient_of(message)) {
                if let Some((cipher, session_key)) = held.session_key(message, cipher)
                    && decrypt(cipher, &session_key)
                {
                    return Ok(None);
                }
            }
        }
        let failure = self.explain(messages);
        let message = failure.reason.clone();
        self.failure = Some(failure);
        Err(sequoia_openpgp::Error::MissingSessionKey(message).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sops::keys::testing::{DATA_KEY, fixture};

    fn keys(names: &[&str]) -> PgpKeys {
        let mut keys = PgpKeys::default();
        for name in names {
            keys.add(fixture(&format!("pgp-{name}.key.asc")).as_bytes()).unwrap();
        }
        keys
    }

    fn opened(keys: &PgpKeys, fingerprint: &str, sealed: &str) -> Option<Result<String, UnwrapError>> {
        let outcome = keys.open(fingerprint, &fixture(sealed))?;
        Some(outcome.map(|data_key| String::from_utf8(data_key.expose().clone()).unwrap()))
    }

    fn fingerprint(name: &str) -> String {
        fixture(&format!("pgp-{name}.fingerprint"))
    }

    #[test]
    fn keys_open_what_gpg_sealed_to_them() {
        let keys = keys(&["curve25519", "rsa2048", "expired"]);
        for name in ["rsa2048", "curve25519", "expired"] {
            let outcome = opened(&keys, &fingerprint(name), &format!("pgp-{name}.sealed.asc"));
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY, "{name}");
        }
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn messages_of_old_sops_and_of_new_gpg_open() {
        let keys = keys(&["rsa2048"]);
        for way in ["old", "aead"] {
            let outcome = opened(&keys, &fingerprint("rsa2048"), &format!("pgp-{way}.sealed.asc"));
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY, "{way}");
        }
    }

    #[test]
    fn an_older_subkey_opens_by_its_own_name_and_by_its_primary_keys() {
        let keys = keys(&["curve25519"]);
        let older = fixture("pgp-curve25519.older-subkey");
        for id in [older.clone(), format!("{}!", older.trim()), fingerprint("curve25519")] {
            let outcome = opened(&keys, &id, "pgp-curve25519-older.sealed.asc");
            assert_eq!(outcome.unwrap().unwrap(), DATA_KEY, "{id}");
        }
    }

    #[test]
    fn a_hidden_recipient_is_tried_with_every_key_of_that_name() {
        let outcome =
            opened(&keys(&["rsa2048", "curve25519"]), &fingerprint("curve25519"), "pgp-hidden.sealed.asc");
        assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
    }

    #[test]
    fn rsa_keys_are_completed_for_aws_lc() {
        let keys = keys(&["rsa2048", "curve25519"]);
        let completed: Vec<_> = keys.keys.iter().map(|held| held.rsa().is_some()).collect();
        assert_eq!(completed, [true, false, false]);
    }

    #[test]
    fn a_key_never_opens_what_is_said_to_be_anothers() {
        let keys = keys(&["rsa2048", "curve25519"]);
        let error = opened(&keys, &fingerprint("curve25519"), "pgp-rsa2048.sealed.asc").unwrap().unwrap_err();
        assert_eq!(error.class, Class::Denied);
        assert!(error.reason.starts_with("it is sealed to OpenPGP key "), "{}", error.reason);
        assert!(opened(&keys, &"A".repeat(40), "pgp-rsa2048.sealed.asc").is_none());
    }

    #[test]
    fn a_name_that_only_gpg_understands_stands_for_every_key() {
        let outcome = opened(&keys(&["rsa2048"]), "me@example.com", "pgp-rsa2048.sealed.asc");
        assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);
    }

    #[test]
    fn a_locked_key_is_named_and_a_passphrase_unlocks_it() {
        let error =
            opened(&keys(&["locked"]), &fingerprint("locked"), "pgp-locked.sealed.asc").unwrap().unwrap_err();
        assert_eq!(error.class, Class::Denied);
        assert!(error.reason.contains("is protected by a passphrase\nhelp: "), "{}", error.reason);

        let right = Secret::new("STRONGROOM-MARKER-passphrase".to_owned());
        let mut keys = PgpKeys::with_passphrase(Some(&right));
        keys.add(fixture("pgp-locked.key.asc").as_bytes()).unwrap();
        let outcome = opened(&keys, &fingerprint("locked"), "pgp-locked.sealed.asc");
        assert_eq!(outcome.unwrap().unwrap(), DATA_KEY);

        let wrong = Secret::new("STRONGROOM-MARKER-wrong".to_owned());
        let problem =
            PgpKeys::with_passphrase(Some(&wrong)).add(fixture("pgp-locked.key.asc").as_bytes()).unwrap_err();
        assert!(problem.starts_with("the passphrase does not unlock OpenPGP key "), "{problem}");
        assert!(!problem.contains("MARKER"));
    }

    #[test]
    fn a_message_without_a_session_key_for_a_key_is_refused() {
        let error = opened(&keys(&["rsa2048"]), &fingerprint("rsa2048"), "pgp-passphrase.sealed.asc")
            .unwrap()
            .unwrap_err();
        assert_eq!(error.reason, "it is sealed with a passphrase, not to a key");
    }

    fn packets(sealed: &str) -> Vec<u8> {
        let (armored, mut packets) = (fixture(sealed), Vec::new());
        sequoia_openpgp::armor::Reader::from_bytes(armored.as_bytes(), None)
            .read_to_end(&mut packets)
            .unwrap();
        packets
    }

    /// The bytes of `message` that can be changed without an error.
    fn malleable(keys: &PgpKeys, message: &[u8]) -> Vec<usize> {
        let named: Vec<_> = keys.keys.iter().collect();
        assert_eq!(decrypt_bytes(&named, message).unwrap().expose(), DATA_KEY.as_bytes());
        let opens_changed = |at: &usize| {
            let mut changed = message.to_vec();
            changed[*at] ^= 1;
            decrypt_bytes(&named, &changed).is_ok_and(|opened| {
                assert_eq!(opened.expose(), DATA_KEY.as_bytes(), "byte {at}");
                true
            })
        };
        (0..message.len()).filter(opens_changed).collect()
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let none: [usize; 0] = [];
        assert_eq!(malleable(&keys(&["curve25519"]), &packets("pgp-curve25519.sealed.asc")), none);
    }

    #[test]
    fn of_old_and_new_messages_only_what_rsas_number_says_about_its_length_can_be_changed() {
        for sealed in ["pgp-old.sealed.asc", "pgp-aead.sealed.asc"] {
            assert_eq!(malleable(&keys(&["rsa2048"]), &packets(sealed)), [13, 14], "{sealed}");
        }
    }

    #[test]
    fn a_message_without_integrity_protection_is_refused() {
        let mut message = packets("pgp-old.sealed.asc");
        let at = message.iter().rposition(|byte| *byte == 0xD2).unwrap();
        message[at] = 0xC9;
        let keys = keys(&["rsa2048"]);
        let named: Vec<_> = keys.keys.iter().collect();
        assert_eq!(decrypt_bytes(&named, &message).unwrap_err().class, Class::Invalid);
    }

    #[test]
    fn what_is_no_message_is_damaged() {
        let keys = keys(&["curve25519"]);
        for enc in ["", "STRONGROOM-MARKER", "-----BEGIN PGP MESSAGE-----\n"] {
            let error = keys.open(&fingerprint("curve25519"), enc).unwrap().unwrap_err();
            assert_eq!((error.class, error.reason.as_str()), (Class::Invalid, "the sealed key is damaged"));
        }
    }

    #[test]
    fn fingerprints_are_compared_in_one_spelling() {
        assert_eq!(
            normalise(" fbc7 b9e2 a4f9 289a c0c1  d484 3d16 cee4 a27381b4! "),
            "FBC7B9E2A4F9289AC0C1D4843D16CEE4A27381B4"
        );
        assert_eq!(normalise("0x3d16cee4a27381b4"), "3D16CEE4A27381B4");
        assert_eq!(normalise("Me <me@example.com>"), "Me <me@example.com>");
    }

    #[test]
    fn a_key_of_a_version_that_is_not_supported_is_named() {
        let mut key = packets("pgp-rsa2048.key.asc");
        // Behind the tag and two octets of length.
        assert_eq!((key[0], key[3]), (0x95, 4));
        key[3] = 5;
        let problem = PgpKeys::default().add(&key).unwrap_err();
        assert_eq!(problem, "it holds an OpenPGP key of version 5, which is not supported");
    }

    #[test]
    fn a_public_key_holds_no_secret() {
        let problem = PgpKeys::default().add(fixture("pgp-public.asc").as_bytes()).unwrap_err();
        assert_eq!(problem, "it holds no OpenPGP secret key");
    }
}
