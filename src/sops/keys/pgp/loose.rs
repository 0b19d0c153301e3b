//! Messages that gpg opens and sequoia does not.
//!
//! Two kinds are in use. Up to version 3.7.3 sops sealed with Go's first OpenPGP library, which rounds the length
//! of numbers up and cuts bodies into chunks that RFC 9580 (4.2.1.4) calls too short. And gpg since 2.3 seals with
//! OCB in a packet of its own, number 20, that no RFC has (draft-ietf-openpgp-rfc4880bis-10, 5.16).
//!
//! Only the framing is read loosely. Nothing is given out before its SHA-1 (packet 18) or its OCB tags (packet 20)
//! are verified; a message without either is not opened.

use std::io::Read;

use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::iv::FixedLength;
use ocb3::aead::consts::{U15, U16};
use ocb3::aead::{AeadInPlace, KeyInit};
use ocb3::{Nonce, Ocb3, Tag};
use sequoia_openpgp::crypto::SessionKey;
use sequoia_openpgp::crypto::mpi::{Ciphertext, MPI};
use sequoia_openpgp::packet::PKESK;
use sequoia_openpgp::packet::pkesk::PKESK3;
use sequoia_openpgp::parse::{PacketParser, PacketParserResult, Parse};
use sequoia_openpgp::types::{PublicKeyAlgorithm, SymmetricAlgorithm};
use sequoia_openpgp::{KeyID, Packet, armor};

use super::{ENC_LIMIT, READ_LIMIT, SESSION_KEYS_LIMIT};
use crate::secret::Secret;
use crate::sops::keys::DataKey;

const SESSION_KEY: u8 = 1;
const PROTECTED_BY_SHA1: u8 = 18;
const PROTECTED_BY_OCB: u8 = 20;
const BLOCK: usize = 16;
const TAG: usize = 16;
const SHA1: usize = 20;
const OCB: u8 = 2;
const OCB_IV: usize = 15;

/// What the message holds, if a session key that `open` finds in it decrypts it and it is whole.
pub(super) fn decrypt(
    message: &[u8],
    open: impl Fn(&PKESK) -> Option<(SymmetricAlgorithm, SessionKey)>,
) -> Option<DataKey> {
    let frames = frames(&unarmored(message)?)?;
    let sealed = frames.iter().find(|frame| [PROTECTED_BY_SHA1, PROTECTED_BY_OCB].contains(&frame.tag))?;
    let session_keys = frames.iter().filter(|frame| frame.tag == SESSION_KEY).take(SESSION_KEYS_LIMIT);
    session_keys.filter_map(session_key_packet).find_map(|packet| {
        let (cipher, key) = open(&packet)?;
        let content = match sealed.tag {
            PROTECTED_BY_SHA1 => open_sha1(sealed.body.expose(), cipher, &key)?,
            _ => open_ocb(sealed.body.expose(), cipher, &key)?,
        };
        literal(&content)
    })
}

fn unarmored(message: &[u8]) -> Option<Vec<u8>> {
    if message.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Some(message.to_vec());
    }
    let mut packets = Vec::new();
    let reader = armor::Reader::from_bytes(message, None);
    reader.take(ENC_LIMIT as u64).read_to_end(&mut packets).ok()?;
    Some(packets)
}

/// One packet, its body in one piece.
struct Frame {
    tag: u8,
    body: Secret<Vec<u8>>,
}

impl Frame {
    /// The packet with a length that every parser takes.
    fn reframed(&self) -> Secret<Vec<u8>> {
        let body = self.body.expose();
        let mut packet = Secret::new(Vec::with_capacity(body.len() + 6));
        let length = u32::try_from(body.len()).expect("messages are shorter than ENC_LIMIT").to_be_bytes();
        packet.expose_mut().extend([0xC0 | self.tag, 0xFF]);
        packet.expose_mut().extend(length);
        packet.expose_mut().extend(body);
        packet
    }
}

fn frames(mut bytes: &[u8]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first() {
        let (tag, body, rest) = match head {
            0xC0.. => new_frame(head & 0x3F, rest)?,
            0x80.. => old_frame(*head, rest)?,
            _ => return None,
        };
        frames.push(Frame { tag, body });
        bytes = rest;
    }
    Some(frames)
}

type Split<'a> = (u8, Secret<Vec<u8>>, &'a [u8]);

/// RFC 9580, 4.2.1, but chunks may be as short as they like.
fn new_frame(tag: u8, mut bytes: &[u8]) -> Option<Split<'_>> {
    let mut body = Secret::new(Vec::with_capacity(bytes.len()));
    loop {
        let (first, rest) = bytes.split_first()?;
        let (length, rest, last) = match first {
            0..192 => (usize::from(*first), rest, true),
            192..224 => {
                let (second, rest) = rest.split_first()?;
                (((usize::from(*first) - 192) << 8) + usize::from(*second) + 192, rest, true)
            }
            224..255 => (1 << (first & 0x1F), rest, false),
            255 => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                (usize::try_from(u32::from_be_bytes(*length)).ok()?, rest, true)
            }
        };
        let (chunk, rest) = rest.split_at_checked(length)?;
        body.expose_mut().extend(chunk);
        if last {
            return Some((tag, body, rest));
        }
        bytes = rest;
    }
}

/// RFC 9580, 4.2.2.
fn old_frame(head: u8, bytes: &[u8]) -> Option<Split<'_>> {
    let octets = match head & 3 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => 0,
    };
    let (length, rest) = bytes.split_at_checked(octets)?;
    let length = match octets {
        0 => rest.len(),
        _ => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    let (body, rest) = rest.split_at_checked(length)?;
    Some(((head >> 2) & 0xF, Secret::new(body.to_vec()), rest))
}

/// RFC 9580, 5.1.1; the number of an RSA session key by its bytes, whatever its length in bits is said to be.
fn session_key_packet(frame: &Frame) -> Option<PKESK> {
    match frame.body.expose().as_slice() {
        [3, id @ .., _, _] if id.len() > 9 && matches!(id[8], 1 | 2) => {
            let body = frame.body.expose();
            let (id, number) = (KeyID::from_bytes(&body[1..9]), &body[12..]);
            let ciphertext = Ciphertext::RSA { c: MPI::new(number) };
            PKESK3::new(Some(id), PublicKeyAlgorithm::from(body[9]), ciphertext).ok().map(PKESK::from)
        }
        _ => match Packet::from_bytes(frame.reframed().expose()).ok()? {
            Packet::PKESK(packet) => Some(packet),
            _ => None,
        },
    }
}

/// RFC 9580, 5.13.1: version, then AES-CFB over a random block, two bytes of it again, content, and its SHA-1.
fn open_sha1(body: &[u8], cipher: SymmetricAlgorithm, key: &[u8]) -> Option<Secret<Vec<u8>>> {
    let (1, sealed) = body.split_first()? else { return None };
    let algorithm = match cipher {
        SymmetricAlgorithm::AES128 => &AES_128,
        SymmetricAlgorithm::AES192 => &AES_192,
        SymmetricAlgorithm::AES256 => &AES_256,
        _ => return None,
    };
    let key = DecryptingKey::cfb128(UnboundCipherKey::new(algorithm, key).ok()?).ok()?;
    let mut plain = Secret::new(sealed.to_vec());
    let zeros = DecryptionContext::Iv128(FixedLength::from([0; BLOCK]));
    key.decrypt(plain.expose_mut(), zeros).ok()?;
    let (hashed, sum) = plain.expose().split_at_checked(sealed.len().checked_sub(SHA1)?)?;
    verify_slices_are_equal(digest(&SHA1_FOR_LEGACY_USE_ONLY, hashed).as_ref(), sum).ok()?;
    let content = hashed.get(BLOCK + 2..)?.strip_suffix(&[0xD3, 0x14])?;
    Some(Secret::new(content.to_vec()))
}

/// Version 1, cipher, OCB, size of chunks, IV; then chunks, each with its tag, and a tag over the whole length.
fn open_ocb(body: &[u8], cipher: SymmetricAlgorithm, key: &[u8]) -> Option<Secret<Vec<u8>>> {
    let (&[version, named, mode, chunk_bits], rest) = body.split_first_chunk::<4>()?;
    let (iv, sealed) = rest.split_first_chunk::<OCB_IV>()?;
    if version != 1 || mode != OCB || SymmetricAlgorithm::from(named) != cipher {
        return None;
    }
    let header = [0xC0 | PROTECTED_BY_OCB, version, named, mode, chunk_bits];
    match cipher {
        SymmetricAlgorithm::AES128 => open_chunks::<Ocb3<aes::Aes128, U15>>(header, iv, sealed, key),
        SymmetricAlgorithm::AES192 => open_chunks::<Ocb3<aes::Aes192, U15>>(header, iv, sealed, key),
        SymmetricAlgorithm::AES256 => open_chunks::<Ocb3<aes::Aes256, U15>>(header, iv, sealed, key),
        _ => None,
    }
}

fn open_chunks<C: AeadInPlace<NonceSize = U15, TagSize = U16> + KeyInit>(
    header: [u8; 5],
    iv: &[u8; OCB_IV],
    sealed: &[u8],
    key: &[u8],
) -> Option<Secret<Vec<u8>>> {
    let cipher = C::new_from_slice(key).ok()?;
    let chunk_size = 1_usize.checked_shl(u32::from(header[4]) + 6)?;
    let (chunks, last_tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
    let mut content = Secret::new(Vec::with_capacity(chunks.len()));
    let mut index = 0_u64;
    for chunk in chunks.chunks(chunk_size.saturating_add(TAG)) {
        let (text, tag) = chunk.split_at_checked(chunk.len().checked_sub(TAG)?)?;
        let start = content.expose().len();
        content.expose_mut().extend(text);
        let data = [&header[..], &index.to_be_bytes()].concat();
        let text = &mut content.expose_mut()[start..];
        cipher.decrypt_in_place_detached(&nonce(iv, index), &data, text, Tag::from_slice(tag)).ok()?;
        index += 1;
    }
    let length = u64::try_from(content.expose().len()).ok()?;
    let data = [&header[..], &index.to_be_bytes(), &length.to_be_bytes()].concat();
    cipher.decrypt_in_place_detached(&nonce(iv, index), &data, &mut [], Tag::from_slice(last_tag)).ok()?;
    Some(content)
}

/// The IV, its last eight bytes combined with the index of the chunk.
fn nonce(iv: &[u8; OCB_IV], index: u64) -> Nonce<U15> {
    let mut nonce = *iv;
    for (byte, index) in nonce[OCB_IV - 8..].iter_mut().zip(index.to_be_bytes()) {
        *byte ^= index;
    }
    Nonce::from(nonce)
}

/// The data of the literal packet in `content`, which may be compressed.
fn literal(content: &Secret<Vec<u8>>) -> Option<DataKey> {
    let mut packets = Secret::new(Vec::with_capacity(content.expose().len() + 64));
    for frame in frames(content.expose())? {
        packets.expose_mut().extend(frame.reframed().expose());
    }
    let mut parser = PacketParser::from_bytes(packets.expose()).ok()?;
    while let PacketParserResult::Some(mut packet) = parser {
        if let Packet::Literal(_) = packet.packet {
            let mut data_key = Secret::new(Vec::with_capacity(READ_LIMIT));
            packet.by_ref().take(READ_LIMIT as u64).read_to_end(data_key.expose_mut()).ok()?;
            return Some(data_key);
        }
        parser = packet.recurse().ok()?.1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type TagsAndLengths = Option<Vec<(u8, usize)>>;

    fn tags_and_lengths(bytes: &[u8]) -> TagsAndLengths {
        Some(frames(bytes)?.iter().map(|frame| (frame.tag, frame.body.expose().len())).collect())
    }

    #[test]
    fn every_way_to_say_a_length_is_read() {
        let two = [&[0xD2, 0xC0, 0x08][..], &[0; 200]].concat();
        let table: [(&[u8], TagsAndLengths); 10] = [
            (&[0xD2, 2, 7, 7], Some(vec![(18, 2)])),
            (&two, Some(vec![(18, 200)])),
            (&[0xD2, 0xFF, 0, 0, 0, 1, 7], Some(vec![(18, 1)])),
            (&[0xD2, 0xE0, 1, 0xE1, 2, 3, 2, 4, 5, 0xC1, 0], Some(vec![(18, 5), (1, 0)])),
            (&[0x84, 1, 7], Some(vec![(1, 1)])),
            (&[0x85, 0, 1, 7], Some(vec![(1, 1)])),
            (&[0xA3, 7, 7, 7], Some(vec![(8, 3)])),
            (&[0xD2, 2, 7], None),
            (&[0xD2, 0xE0, 1], None),
            (&[0x12, 0], None),
        ];
        for (bytes, expected) in table {
            assert_eq!(tags_and_lengths(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_ocb_packet_that_ends_early_is_refused() {
        for length in 0..40 {
            let mut body = vec![1, 9, OCB, 0];
            body.resize(length, 0);
            assert!(open_ocb(&body, SymmetricAlgorithm::AES256, &[0; 32]).is_none());
            assert!(open_sha1(&body, SymmetricAlgorithm::AES256, &[0; 32]).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(message in proptest::collection::vec(any::<u8>(), 0..200), tag in 0_u8..64) {
            let key = || Some((SymmetricAlgorithm::AES256, SessionKey::from(vec![0; 32])));
            let framed = [&[0xC1, 12, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &[0xC0 | tag], &message].concat();
            prop_assert!(decrypt(&framed, |_| key()).is_none());
            prop_assert!(decrypt(&message, |_| key()).is_none());
            let _ = literal(&Secret::new(message));
        }
    }
}
