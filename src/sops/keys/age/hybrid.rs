//! Post-quantum age keys: `age1pq1…` recipients and `AGE-SECRET-KEY-PQ-1…` identities, stanza `mlkem768x25519`.
//!
//! The file key is sealed by HPKE (RFC 9180) with ML-KEM-768 and X25519 together, as draft-ietf-hpke-pq defines it
//! (KEM 0x647a, X-Wing), HKDF-SHA256 and ChaCha20-Poly1305. The age crate has HPKE, and not this KEM; what is here puts
//! the two key agreements together and nothing more. A public key that is not in its one canonical form is refused.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use ::age::secrecy::ExposeSecret;
use ::age::{DecryptError, EncryptError};
use aes_gcm::aead::OsRng;
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::{bech32_decode, bech32_encode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bech32::Hrp;
use hpke::aead::ChaCha20Poly1305;
use hpke::generic_array::typenum::{Sum, U32, Unsigned};
use hpke::kdf::HkdfSha256;
use hpke::kem::SharedSecret;
use hpke::rand_core::{CryptoRng, RngCore};
use hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal,
};
use ml_kem::kem::{Decapsulate, DecapsulationKey, Encapsulate, EncapsulationKey};
use ml_kem::{EncodedSizeUser, KemCore, MlKem768, MlKem768Params};
use sha3::digest::{ExtendableOutput, Update, XofReader};
use sha3::{Digest, Sha3_256, Shake256};
use x25519_dalek::{EphemeralSecret, PublicKey, SharedSecret as Agreed, StaticSecret};

use crate::secret::Secret;

const STANZA: &str = "mlkem768x25519";
/// HPKE's `info`.
const INFO: &[u8] = b"age-encryption.org/mlkem768x25519";
const RECIPIENT: Hrp = Hrp::parse_unchecked("age1pq");
const IDENTITY: Hrp = Hrp::parse_unchecked("age-secret-key-pq-");
/// age's label of recipients that only go together with their like.
const LABEL: &str = "postquantum";
const TAG_BYTES: usize = 16;

const KEM_ID: u16 = 0x647a;
const KEM_LABEL: &[u8] = br"\.//^\";
const CURVE_BYTES: usize = 32;
type PqPublic = <EncapsulationKey<MlKem768Params> as EncodedSizeUser>::EncodedSize;
type PqSealed = <MlKem768 as KemCore>::CiphertextSize;
type PublicSize = Sum<PqPublic, U32>;
type SealedSize = Sum<PqSealed, U32>;

/// `age1pq1…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Recipient(Public);

impl FromStr for Recipient {
    type Err = NotHybrid;

    fn from_str(text: &str) -> Result<Self, NotHybrid> {
        let public = decoded::<{ PublicSize::USIZE }>(text, RECIPIENT)?;
        Public::from_bytes(public.expose()).map(Self).map_err(|_| NotHybrid)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32_encode(RECIPIENT, &self.0.0))
    }
}

impl ::age::Recipient for Recipient {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let (sealed, body) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, MlKem768X25519, _>(
            &OpModeS::Base,
            &self.0,
            INFO,
            file_key.expose_secret(),
            &[],
            &mut OsRng,
        )
        .map_err(|_| io::Error::other("the recipient is not one that anything can be sealed to"))?;
        let stanza =
            Stanza { tag: STANZA.to_owned(), args: vec![BASE64_STANDARD_NO_PAD.encode(sealed.0)], body };
        Ok((vec![stanza], HashSet::from([LABEL.to_owned()])))
    }
}

/// `AGE-SECRET-KEY-PQ-1…`: a seed that both keys come from.
#[derive(Clone, Debug)]
pub(super) struct Identity(Seed);

impl Identity {
    /// The recipient that it opens for.
    pub(super) fn recipient(&self) -> Recipient {
        Recipient(MlKem768X25519::sk_to_pk(&self.0))
    }
}

impl FromStr for Identity {
    type Err = NotHybrid;

    fn from_str(text: &str) -> Result<Self, NotHybrid> {
        decoded(text, IDENTITY).map(|seed| Self(Seed(seed)))
    }
}

impl ::age::Identity for Identity {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        if stanza.tag != STANZA {
            return None;
        }
        let [sealed] = &stanza.args[..] else { return Some(Err(DecryptError::InvalidHeader)) };
        let sealed =
            BASE64_STANDARD_NO_PAD.decode(sealed).ok().and_then(|bytes| Sealed::from_bytes(&bytes).ok());
        let Some(sealed) = sealed.filter(|_| stanza.body.len() == FILE_KEY_BYTES + TAG_BYTES) else {
            return Some(Err(DecryptError::InvalidHeader));
        };
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, MlKem768X25519>(
            &OpModeR::Base,
            &self.0,
            &sealed,
            INFO,
            &stanza.body,
            &[],
        );
        match opened.map(Secret::new) {
            Ok(key) => Some(FileKey::try_init_with_mut(|file_key| {
                let key = key.expose().as_slice().try_into();
                *file_key = key.map_err(|_| DecryptError::DecryptionFailed)?;
                Ok(())
            })),
            Err(HpkeError::OpenError) => None,
            Err(_) => Some(Err(DecryptError::InvalidHeader)),
        }
    }
}

/// The text is no key of this kind, or is damaged.
#[derive(Debug)]
pub(super) struct NotHybrid;

fn decoded<const N: usize>(text: &str, prefix: Hrp) -> Result<Secret<[u8; N]>, NotHybrid> {
    let of_prefix = |found: Hrp| if found == prefix { Ok(()) } else { Err(NotHybrid) };
    bech32_decode(
        text,
        |_| NotHybrid,
        of_prefix,
        |_, mut bytes| {
            let mut decoded = Secret::new([0; N]);
            for place in decoded.expose_mut() {
                *place = bytes.next().ok_or(NotHybrid)?;
            }
            if bytes.next().is_none() { Ok(decoded) } else { Err(NotHybrid) }
        },
    )
}

/// The KEM, for HPKE.
struct MlKem768X25519;

/// ML-KEM's encapsulation key, and X25519's public key behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Public([u8; PublicSize::USIZE]);

/// What the private keys are made of.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seed(Secret<[u8; 32]>);

/// ML-KEM's ciphertext, and X25519's ephemeral public key behind it.
#[derive(Clone)]
struct Sealed([u8; SealedSize::USIZE]);

impl Public {
    fn of(pq: &EncapsulationKey<MlKem768Params>, curve: &PublicKey) -> Self {
        let mut bytes = [0; PublicSize::USIZE];
        bytes[..PqPublic::USIZE].copy_from_slice(&pq.as_bytes());
        bytes[PqPublic::USIZE..].copy_from_slice(curve.as_bytes());
        Self(bytes)
    }

    fn parts(&self) -> Result<(EncapsulationKey<MlKem768Params>, PublicKey), HpkeError> {
        let (pq, curve) = self.0.split_at(PqPublic::USIZE);
        let invalid = |_| HpkeError::ValidationError;
        let pq = EncapsulationKey::from_bytes(pq.try_into().map_err(invalid)?);
        Ok((pq, PublicKey::from(<[u8; CURVE_BYTES]>::try_from(curve).map_err(invalid)?)))
    }
}

impl Seed {
    /// Both private keys.
    fn expanded(&self) -> (DecapsulationKey<MlKem768Params>, StaticSecret) {
        let mut stream = Shake256::default().chain(self.0.expose()).finalize_xof();
        let [mut d, mut z, mut curve] = [(); 3].map(|()| Secret::new([0; 32]));
        for part in [&mut d, &mut z, &mut curve] {
            stream.read(part.expose_mut());
        }
        let (pq, _) = MlKem768::generate_deterministic(d.expose().into(), z.expose().into());
        (pq, StaticSecret::from(*curve.expose()))
    }
}

impl Serializable for Public {
    type OutputSize = PublicSize;

    fn write_exact(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl Deserializable for Public {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        let public = Self(sized(encoded)?);
        let (pq, curve) = public.parts()?;
        // FIPS 203 wants the check: coefficients that are not reduced come back reduced.
        if Self::of(&pq, &curve) == public { Ok(public) } else { Err(HpkeError::ValidationError) }
    }
}

impl Serializable for Seed {
    type OutputSize = U32;

    fn write_exact(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(self.0.expose());
    }
}

impl Deserializable for Seed {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        sized(encoded).map(|seed| Self(Secret::new(seed)))
    }
}

impl Serializable for Sealed {
    type OutputSize = SealedSize;

    fn write_exact(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl Deserializable for Sealed {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        sized(encoded).map(Self)
    }
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], HpkeError> {
    bytes.try_into().map_err(|_| HpkeError::IncorrectInputLength(N, bytes.len()))
}

impl Kem for MlKem768X25519 {
    type PublicKey = Public;
    type PrivateKey = Seed;
    type EncappedKey = Sealed;
    type NSecret = U32;
    const KEM_ID: u16 = KEM_ID;

    fn sk_to_pk(seed: &Seed) -> Public {
        let (pq, curve) = seed.expanded();
        Public::of(pq.encapsulation_key(), &PublicKey::from(&curve))
    }

    fn derive_keypair(material: &[u8]) -> (Seed, Public) {
        const NAME: &[u8] = b"DeriveKeyPair";
        let mut stream = Shake256::default()
            .chain(material)
            .chain(b"HPKE-v1KEM")
            .chain(KEM_ID.to_be_bytes())
            .chain([0, 13])
            .chain(NAME)
            .chain([0, 32])
            .finalize_xof();
        let mut seed = Seed(Secret::new([0; 32]));
        stream.read(seed.0.expose_mut());
        let public = Self::sk_to_pk(&seed);
        (seed, public)
    }

    fn decap(seed: &Seed, sender: Option<&Public>, sealed: &Sealed) -> Result<SharedSecret<Self>, HpkeError> {
        let (sealed, theirs) = sealed.0.split_at(PqSealed::USIZE);
        let theirs = PublicKey::from(sized::<CURVE_BYTES>(theirs)?);
        let (pq, curve) = seed.expanded();
        let sealed = sealed.try_into().map_err(|_| HpkeError::DecapError)?;
        let first = pq.decapsulate(sealed).map_err(|()| HpkeError::DecapError)?;
        let second = curve.diffie_hellman(&theirs);
        if sender.is_some() || !second.was_contributory() {
            return Err(HpkeError::DecapError);
        }
        Ok(combined(&first, &second, &theirs, &PublicKey::from(&curve)))
    }

    fn encap<R: CryptoRng + RngCore>(
        public: &Public,
        sender: Option<(&Seed, &Public)>,
        random: &mut R,
    ) -> Result<(SharedSecret<Self>, Sealed), HpkeError> {
        let (pq, theirs) = public.parts()?;
        let (sealed, first) = pq.encapsulate(random).map_err(|()| HpkeError::EncapError)?;
        let own = EphemeralSecret::random_from_rng(random);
        let own_public = PublicKey::from(&own);
        let second = own.diffie_hellman(&theirs);
        if sender.is_some() || !second.was_contributory() {
            return Err(HpkeError::EncapError);
        }
        let mut both = [0; SealedSize::USIZE];
        both[..PqSealed::USIZE].copy_from_slice(&sealed);
        both[PqSealed::USIZE..].copy_from_slice(own_public.as_bytes());
        Ok((combined(&first, &second, &own_public, &theirs), Sealed(both)))
    }
}

fn combined(
    first: &[u8],
    second: &Agreed,
    ephemeral: &PublicKey,
    public: &PublicKey,
) -> SharedSecret<MlKem768X25519> {
    let mut hash = Sha3_256::new();
    for part in [first, second.as_bytes(), ephemeral.as_bytes(), public.as_bytes(), KEM_LABEL] {
        Digest::update(&mut hash, part);
    }
    SharedSecret(hash.finalize())
}

#[cfg(test)]
mod tests {
    use ::age::{Encryptor, Identity as _, Recipient as _};

    use super::*;
    use crate::sops::keys::testing::fixture;

    fn file_key() -> FileKey {
        FileKey::new(Box::new(*b"STRONGROOM-MARKE"))
    }

    fn identity(seed: u8) -> Identity {
        Identity(Seed(Secret::new([seed; 32])))
    }

    #[test]
    fn a_key_of_age_reads_and_prints_as_age_prints_it() {
        let text = fixture("age-pq-identity.txt");
        let word = text.lines().find(|line| line.starts_with("AGE-")).unwrap();
        let recipient = word.parse::<Identity>().unwrap().recipient();
        let printed = fixture("age-pq.recipient");
        assert_eq!(recipient.to_string(), printed.trim());
        assert_eq!(printed.trim().parse::<Recipient>().unwrap(), recipient);
    }

    #[test]
    fn what_is_sealed_opens_only_for_its_own_identity() {
        let (one, other) = (identity(1), identity(2));
        let (stanzas, _) = one.recipient().wrap_file_key(&file_key()).unwrap();
        let opened = one.unwrap_stanzas(&stanzas).unwrap().unwrap();
        assert_eq!(opened.expose_secret(), file_key().expose_secret());
        assert!(other.unwrap_stanzas(&stanzas).is_none());
    }

    #[test]
    fn a_key_that_hpke_derives_opens_too() {
        let (seed, public) = MlKem768X25519::gen_keypair(&mut OsRng);
        let (stanzas, _) = Recipient(public).wrap_file_key(&file_key()).unwrap();
        assert!(Identity(seed).unwrap_stanzas(&stanzas).unwrap().is_ok());
    }

    #[test]
    fn a_stanza_that_was_changed_anywhere_does_not_open() {
        let identity = identity(1);
        let (stanzas, _) = identity.recipient().wrap_file_key(&file_key()).unwrap();
        let changed = |sealed: &[u8], body: &[u8]| {
            let args = vec![BASE64_STANDARD_NO_PAD.encode(sealed)];
            identity.unwrap_stanza(&Stanza { tag: STANZA.to_owned(), args, body: body.to_owned() })
        };
        let sealed = BASE64_STANDARD_NO_PAD.decode(&stanzas[0].args[0]).unwrap();
        let body = &stanzas[0].body;
        for at in [0, 500, PqSealed::USIZE - 1, PqSealed::USIZE, SealedSize::USIZE - 2] {
            let mut sealed = sealed.clone();
            sealed[at] ^= 1;
            assert!(!matches!(changed(&sealed, body), Some(Ok(_))), "byte {at}");
        }
        for at in 0..body.len() {
            let mut body = body.clone();
            body[at] ^= 1;
            assert!(changed(&sealed, &body).is_none(), "byte {at}");
        }
        let mut without_curve = sealed.clone();
        without_curve[PqSealed::USIZE..].fill(0);
        for (sealed, body) in [
            (&sealed[1..], &body[..]),
            (&sealed[..], &body[1..]),
            (&[sealed.clone(), vec![0]].concat(), &body[..]),
            (&without_curve[..], &body[..]),
        ] {
            assert!(matches!(changed(sealed, body), Some(Err(DecryptError::InvalidHeader))));
        }
        for args in [vec![], vec!["!".to_owned()], vec![stanzas[0].args[0].clone(), "A".to_owned()]] {
            let stanza = Stanza { tag: STANZA.to_owned(), args, body: body.clone() };
            assert!(matches!(identity.unwrap_stanza(&stanza), Some(Err(DecryptError::InvalidHeader))));
        }
        let other = Stanza { tag: "X25519".to_owned(), args: stanzas[0].args.clone(), body: body.clone() };
        assert!(identity.unwrap_stanza(&other).is_none());
    }

    #[test]
    fn it_is_refused_beside_a_recipient_that_is_not_post_quantum() {
        let own = identity(1).recipient();
        let classic = ::age::x25519::Identity::generate().to_public();
        let (own, classic): (&dyn ::age::Recipient, &dyn ::age::Recipient) = (&own, &classic);
        let mixed = |recipients: Vec<&dyn ::age::Recipient>| {
            Encryptor::with_recipients(recipients.into_iter()).map(drop)
        };
        for recipients in [vec![own, classic], vec![classic, own]] {
            assert!(matches!(mixed(recipients), Err(EncryptError::IncompatibleRecipients { .. })));
        }
        assert!(mixed(vec![own, own]).is_ok());
    }

    #[test]
    fn what_is_no_key_of_this_kind_is_refused() {
        let (seed, public) = ([1; 32], identity(1).recipient().0.0);
        let mut unreduced = public;
        unreduced[..3].fill(0xff);
        let recipient = |bytes: &[u8]| bech32_encode(RECIPIENT, bytes);
        for text in [
            "",
            "age1pq1",
            "age1pq1x",
            &recipient(&public[1..]),
            &recipient(&[&public[..], &[0]].concat()),
            &recipient(&unreduced),
            &bech32_encode(Hrp::parse_unchecked("age"), &public),
            &recipient(&public).replacen("age1pq1", "age1pq1q", 1),
        ] {
            assert!(text.parse::<Recipient>().is_err(), "{text}");
        }
        let mut curveless = public;
        curveless[PqPublic::USIZE..].fill(0);
        let curveless = recipient(&curveless).parse::<Recipient>().unwrap();
        assert!(curveless.wrap_file_key(&file_key()).is_err());
        for text in [
            bech32_encode(IDENTITY, &seed[1..]),
            bech32_encode(IDENTITY, &[1; 33]),
            bech32_encode(Hrp::parse_unchecked("age-secret-key-"), &seed),
        ] {
            assert!(text.to_uppercase().parse::<Identity>().is_err(), "{text}");
        }
        let whole = bech32_encode(IDENTITY, &seed).to_uppercase();
        assert_eq!(whole.parse::<Identity>().unwrap().recipient(), identity(1).recipient());
        assert_eq!(format!("{:?}", identity(1)), "Identity(Seed(<redacted>))");
    }
}
