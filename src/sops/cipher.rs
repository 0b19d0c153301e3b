//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`, AES-256-GCM with the path as associated data.
//!
//! sops takes a nonce of 32 bytes; 12 and 16 are accepted as sops accepts them. What a value decrypts to is
//! typed here and nowhere else.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use aes_gcm::aead::consts::{U12, U16, U32};
use aes_gcm::aead::generic_array::{ArrayLength, GenericArray};
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Tag};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::keys::DataKey;
use crate::document::scalar::{self, Scalar};
use crate::secret::Secret;

const PREFIX: &str = "ENC[AES256_GCM,";

/// Go ignores what stands in the unused bits of the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Whether `text` begins as an encrypted value does. Whether it is one, [`Cipher::open`] finds out.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Whether `text` is what is left of an encrypted value that was cut off behind its `ENC[`.
pub fn is_cut_off(text: &str) -> bool {
    text.starts_with("ENC[") && PREFIX.starts_with(text)
}

/// Whether `text` is a whole encrypted value of the type `comment`.
pub fn is_sealed_comment(text: &str) -> bool {
    Sealed::parse(text).is_some_and(|sealed| sealed.kind == "comment")
}

/// What an encrypted value holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// `str`, and `bytes`; not always UTF-8.
    Text(Secret<Vec<u8>>),
    /// `int`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `bool`.
    Bool(bool),
    /// `time`, as RFC 3339.
    Time(String),
    /// `comment`: without its `#`.
    Comment(Secret<String>),
}

impl Opened {
    /// The bytes that the MAC is made of. A comment has none.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(bytes) => Cow::Borrowed(bytes.expose()),
            Self::Int(value) => Cow::Owned(value.to_string().into_bytes()),
            Self::Float(value) => Cow::Owned(scalar::fixed(*value).into_bytes()),
            Self::Bool(value) => Cow::Borrowed(if *value { b"True" } else { b"False" }),
            Self::Time(value) => Cow::Borrowed(value.as_bytes()),
            Self::Comment(_) => Cow::Borrowed(&[]),
        }
    }

    /// The type, as sops spells it.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "str",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Time(_) => "time",
            Self::Comment(_) => "comment",
        }
    }

    /// The bytes that are encrypted.
    fn content(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Comment(text) => Cow::Borrowed(text.expose().as_bytes()),
            _ => self.bytes(),
        }
    }
}

/// Opens and seals the values of one file.
pub struct Cipher {
    aes: Aes256,
    /// Ciphertexts of what was opened, by a digest of path and plaintext, in the order of the file.
    known: Option<Mutex<HashMap<[u8; 32], VecDeque<String>>>>,
}

impl Cipher {
    /// With the data key of the file, which has 32 bytes.
    pub fn new(key: &DataKey) -> Result<Self, CipherError> {
        let aes = Aes256::new_from_slice(key.expose()).map_err(|_| CipherError::Key)?;
        Ok(Self { aes, known: None })
    }

    /// As [`Self::new`], and what it opens it later seals to the same text, where the same stands at the same path.
    pub fn with_memory(key: &DataKey) -> Result<Self, CipherError> {
        Ok(Self { known: Some(Mutex::default()), ..Self::new(key)? })
    }

    /// Opens `value`, which stands at `path`: the keys that lead to it, each with a `:` behind it.
    pub fn open(&self, value: &str, path: &str) -> Result<Opened, CipherError> {
        if value.is_empty() {
            return Ok(Opened::Text(Secret::default()));
        }
        let sealed = Sealed::parse(value).ok_or(CipherError::Grammar)?;
        let data = self.decrypt(&sealed, path.as_bytes())?;
        let opened = typed(data, sealed.kind)?;
        if let Some(known) = &self.known {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(digest(&opened, path)).or_default().push_back(value.to_owned());
        }
        Ok(opened)
    }

    /// Seals `plaintext`, to stand at `path`.
    pub fn seal(&self, plaintext: &Opened, path: &str) -> Result<String, CipherError> {
        if let Some(known) = self.known(plaintext, path) {
            return Ok(known);
        }
        let mut nonce = GenericArray::<u8, U32>::default();
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| CipherError::Random)?;
        let mut data = Secret::new(plaintext.content().into_owned());
        let tag = AesGcm::<Aes256, U32>::from(self.aes.clone())
            .encrypt_in_place_detached(&nonce, path.as_bytes(), data.expose_mut())
            .map_err(|_| CipherError::Large)?;
        let [data, nonce, tag] = [data.expose(), &nonce[..], &tag].map(|bytes| BASE64_STANDARD.encode(bytes));
        Ok(format!("{PREFIX}data:{data},iv:{nonce},tag:{tag},type:{}]", plaintext.kind()))
    }

    /// The ciphertext of the same plaintext at the same path. Items of a list have one path, so their turn comes by order.
    fn known(&self, plaintext: &Opened, path: &str) -> Option<String> {
        let mut known = self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = known.get_mut(&digest(plaintext, path))?;
        sealed.rotate_left(1);
        sealed.back().cloned()
    }

    fn decrypt(&self, sealed: &Sealed<'_>, path: &[u8]) -> Result<Secret<Vec<u8>>, CipherError> {
        let (data, nonce, tag) = (decode(sealed.data)?, decode(sealed.nonce)?, decode(sealed.tag)?);
        let data = Secret::new(data);
        if tag.len() != 16 {
            return Err(CipherError::Grammar);
        }
        match nonce.len() {
            32 => self.decrypt_in_place::<U32>(&nonce, path, data, &tag),
            12 => self.decrypt_in_place::<U12>(&nonce, path, data, &tag),
            16 => self.decrypt_in_place::<U16>(&nonce, path, data, &tag),
            length => Err(CipherError::Nonce { length }),
        }
    }

    fn decrypt_in_place<N: ArrayLength<u8>>(
        &self,
        nonce: &[u8],
        path: &[u8],
        mut data: Secret<Vec<u8>>,
        tag: &[u8],
    ) -> Result<Secret<Vec<u8>>, CipherError> {
        AesGcm::<Aes256, N>::from(self.aes.clone())
            .decrypt_in_place_detached(
                GenericArray::from_slice(nonce),
                path,
                data.expose_mut(),
                Tag::from_slice(tag),
            )
            .map_err(|_| CipherError::Tag)?;
        Ok(data)
    }
}

/// Of a plaintext and where it stands. A number is the same, be it an integer or not, as in the MAC.
fn digest(plaintext: &Opened, path: &str) -> [u8; 32] {
    let kind = match plaintext {
        Opened::Float(_) => Opened::Int(0).kind(),
        other => other.kind(),
    };
    let mut digest = Sha256::new();
    for part in [path.as_bytes(), kind.as_bytes()] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.update(plaintext.content());
    digest.finalize().into()
}

struct Sealed<'v> {
    data: &'v str,
    nonce: &'v str,
    tag: &'v str,
    kind: &'v str,
}

impl<'v> Sealed<'v> {
    /// What stands behind the closing bracket is ignored, as sops ignores it.
    fn parse(value: &'v str) -> Option<Self> {
        let rest = value.strip_prefix(PREFIX)?.strip_prefix("data:")?;
        let (data, rest) = rest.split_once(",iv:")?;
        let (nonce, rest) = rest.split_once(",tag:")?;
        let (tag, rest) = rest.split_once(",type:")?;
        let (kind, _) = rest.split_once(']')?;
        let whole = ![data, nonce, tag, kind].contains(&"");
        whole.then_some(Self { data, nonce, tag, kind })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, CipherError> {
    let decoded = if text.contains(['\r', '\n']) {
        BASE64.decode(text.replace(['\r', '\n'], ""))
    } else {
        BASE64.decode(text)
    };
    decoded.map_err(|_| CipherError::Grammar)
}

fn typed(data: Secret<Vec<u8>>, kind: &str) -> Result<Opened, CipherError> {
    if matches!(kind, "str" | "bytes") {
        return Ok(Opened::Text(data));
    }
    let misfit = || CipherError::Misfit { kind: known(kind) };
    let text = std::str::from_utf8(data.expose()).map_err(|_| misfit())?;
    let opened = match kind {
        "int" => text.parse().ok().map(Opened::Int),
        "float" => float(text).map(Opened::Float),
        "bool" => boolean(text).map(Opened::Bool),
        "time" => match scalar::plain(text) {
            Scalar::Time(time) => Some(Opened::Time(time)),
            _ => None,
        },
        "comment" => Some(Opened::Comment(Secret::new(text.to_owned()))),
        _ => return Err(CipherError::Kind),
    };
    opened.ok_or_else(misfit)
}

/// Go's `ParseFloat` of what sops writes.
fn float(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

/// Go's `ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn known(kind: &str) -> &'static str {
    ["int", "float", "bool", "time", "comment"].into_iter().find(|known| *known == kind).unwrap_or("value")
}

/// An encrypted value cannot be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CipherError {
    /// The data key has not 32 bytes.
    #[error("the data key has not 32 bytes")]
    Key,
    /// Not `ENC[AES256_GCM,…]`, or cut off.
    #[error("not a whole encrypted value (`ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`)")]
    Grammar,
    /// A nonce that nobody writes.
    #[error("its nonce has {length} bytes")]
    Nonce {
        /// In bytes.
        length: usize,
    },
    /// The tag does not fit.
    #[error("it was changed, moved to another key or encrypted with another data key")]
    Tag,
    /// More than AES-GCM takes.
    #[error("it is too large to be encrypted")]
    Large,
    /// The system gives no random bytes.
    #[error("the system has no random bytes")]
    Random,
    /// A type that is not known.
    #[error("its type is not one that sops writes")]
    Kind,
    /// It decrypts, but not to what its type says.
    #[error("it does not hold the {kind} that its type says")]
    Misfit {
        /// The type.
        kind: &'static str,
    },
}

#[cfg(test)]
pub(super) mod tests {
    use aes_gcm::aead::AeadCore;

    use super::*;

    pub(in super::super) fn key() -> DataKey {
        Secret::new(b"STRONGROOM-MARKER-0123456789abcd".to_vec())
    }

    /// Seals as sops does, but always with the same nonce.
    pub(in super::super) fn seal(text: &str, path: &str, kind: &str) -> String {
        seal_with::<U32>(text.as_bytes(), path, kind)
    }

    pub(in super::super) fn seal_with<N: ArrayLength<u8>>(data: &[u8], path: &str, kind: &str) -> String
    where
        AesGcm<Aes256, N>: AeadCore<NonceSize = N>,
    {
        let nonce = GenericArray::<u8, N>::default();
        let mut data = data.to_vec();
        let aes = AesGcm::<Aes256, N>::new_from_slice(key().expose()).unwrap();
        let tag = aes.encrypt_in_place_detached(&nonce, path.as_bytes(), &mut data).unwrap();
        let [data, nonce, tag] = [&data[..], &nonce, &tag].map(|bytes| BASE64_STANDARD.encode(bytes));
        format!("{PREFIX}data:{data},iv:{nonce},tag:{tag},type:{kind}]")
    }

    fn open(value: &str, path: &str) -> Result<Opened, CipherError> {
        Cipher::new(&key()).unwrap().open(value, path)
    }

    #[test]
    fn every_type_is_opened_and_hashed_as_sops_does() {
        let table = [
            ("5", "int", Opened::Int(5), "5"),
            ("-7", "int", Opened::Int(-7), "-7"),
            ("1.50", "float", Opened::Float(1.5), "1.5"),
            ("10000000000", "float", Opened::Float(1e10), "10000000000"),
            ("-Inf", "float", Opened::Float(f64::NEG_INFINITY), "-Inf"),
            ("True", "bool", Opened::Bool(true), "True"),
            ("f", "bool", Opened::Bool(false), "False"),
            (
                "2020-01-02T00:00:00Z",
                "time",
                Opened::Time("2020-01-02T00:00:00Z".to_owned()),
                "2020-01-02T00:00:00Z",
            ),
            ("x", "bytes", Opened::Text(Secret::new(b"x".to_vec())), "x"),
            (" c", "comment", Opened::Comment(Secret::new(" c".to_owned())), ""),
        ];
        for (text, kind, expected, hashed) in table {
            let opened = open(&seal(text, "a:", kind), "a:").unwrap();
            assert_eq!(opened, expected);
            assert_eq!(&*opened.bytes(), hashed.as_bytes());
        }
        assert_eq!(open("", "a:").unwrap(), Opened::Text(Secret::default()));
    }

    #[test]
    fn what_is_sealed_opens_where_it_was_sealed_and_no_two_are_alike() {
        let cipher = Cipher::new(&key()).unwrap();
        for plaintext in [
            Opened::Text(Secret::new(b"STRONGROOM-MARKER".to_vec())),
            Opened::Int(-5),
            Opened::Float(1e21),
            Opened::Bool(true),
            Opened::Time("2020-01-02T00:00:00Z".to_owned()),
            Opened::Comment(Secret::new(" c".to_owned())),
        ] {
            let sealed = cipher.seal(&plaintext, "a:").unwrap();
            assert_eq!(open(&sealed, "a:").unwrap(), plaintext);
            assert_eq!(open(&sealed, "b:").unwrap_err(), CipherError::Tag);
            assert_ne!(cipher.seal(&plaintext, "a:").unwrap(), sealed);
        }
    }

    #[test]
    fn what_was_opened_is_sealed_to_the_same_text_at_its_path_only() {
        let text = |text: &str| Opened::Text(Secret::new(text.as_bytes().to_vec()));
        let fresh = Cipher::new(&key()).unwrap();
        let sealed: Vec<_> = ["x", "x", "y"].map(|value| fresh.seal(&text(value), "a:").unwrap()).into();
        let cipher = Cipher::with_memory(&key()).unwrap();
        for value in &sealed {
            cipher.open(value, "a:").unwrap();
        }
        let again: Vec<_> = ["x", "x", "y"].map(|value| cipher.seal(&text(value), "a:").unwrap()).into();
        assert_eq!(again, sealed);
        assert!(!sealed.contains(&cipher.seal(&text("x"), "b:").unwrap()));
        assert!(!sealed.contains(&cipher.seal(&Opened::Comment(Secret::new("x".to_owned())), "a:").unwrap()));
        let float = seal("1", "a:", "float");
        cipher.open(&float, "a:").unwrap();
        assert_eq!(cipher.seal(&Opened::Int(1), "a:").unwrap(), float);
        assert_ne!(cipher.seal(&text("1"), "a:").unwrap(), float);
    }

    #[test]
    fn other_nonces_and_what_stands_behind_are_taken() {
        let expected = Opened::Text(Secret::new(b"x".to_vec()));
        assert_eq!(open(&seal_with::<U12>(b"x", "a:", "str"), "a:").unwrap(), expected);
        assert_eq!(open(&seal_with::<U16>(b"x", "a:", "str"), "a:").unwrap(), expected);
        assert_eq!(open(&(seal("x", "a:", "str") + " behind"), "a:").unwrap(), expected);
    }

    #[test]
    fn a_value_that_is_broken_or_moved_stays_closed() {
        let value = seal("STRONGROOM-MARKER", "a:", "str");
        let table = [
            (value.clone(), "b:", CipherError::Tag),
            (value.replacen("data:", "data:AAAA", 1), "a:", CipherError::Tag),
            (value.replace("type:str", "type:strange"), "a:", CipherError::Kind),
            (value.replace("type:str", "type:int"), "a:", CipherError::Misfit { kind: "int" }),
            (value.replace("type:str", "type:bool"), "a:", CipherError::Misfit { kind: "bool" }),
            (value.replace("type:str", "type:time"), "a:", CipherError::Misfit { kind: "time" }),
            (value[..value.len() - 1].to_owned(), "a:", CipherError::Grammar),
            (value[..60].to_owned(), "a:", CipherError::Grammar),
            (value.replacen("data:", "data:?", 1), "a:", CipherError::Grammar),
            (value.replace("tag:", "tag:AAAA"), "a:", CipherError::Grammar),
            (value.replace("iv:AAAA", "iv:"), "a:", CipherError::Nonce { length: 29 }),
            ("x".to_owned(), "a:", CipherError::Grammar),
        ];
        for (value, path, expected) in table {
            let error = open(&value, path).unwrap_err();
            assert_eq!(error, expected, "{value}");
            assert!(!error.to_string().contains("MARKER"));
        }
        assert!(matches!(Cipher::new(&Secret::new(vec![0; 16])), Err(CipherError::Key)));
    }
}
