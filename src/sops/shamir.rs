//! Shamir's secret sharing as sops does it, after HashiCorp Vault: a share is one byte of `y` for every byte of
//! the secret and, last, one byte of `x`, in GF(2^8) modulo 0x11B.

use super::keys::DataKey;
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// Puts the shares of a data key together. More than the threshold do no harm; fewer give a wrong key, which
/// the first value that is opened with it shows.
pub fn combine(shares: &[DataKey]) -> Result<DataKey, ShamirError> {
    let length = shares.first().map_or(0, |share| share.expose().len());
    if shares.len() < 2 {
        return Err(ShamirError::TooFew);
    }
    if length < 2 || shares.iter().any(|share| share.expose().len() != length) {
        return Err(ShamirError::Lengths);
    }
    let xs: Vec<u8> = shares.iter().map(|share| share.expose()[length - 1]).collect();
    if xs.iter().enumerate().any(|(index, x)| *x == 0 || xs[..index].contains(x)) {
        return Err(ShamirError::Repeated);
    }
    let mut secret = Secret::new(vec![0; length - 1]);
    for (share, x) in shares.iter().zip(&xs) {
        let weight = weight(*x, &xs);
        for (byte, y) in secret.expose_mut().iter_mut().zip(share.expose()) {
            *byte ^= multiply(*y, weight);
        }
    }
    Ok(secret)
}

/// Makes `shares` shares of which any `threshold` give the secret. Both are 2 to 255.
pub fn split(secret: &DataKey, shares: usize, threshold: usize) -> Result<Vec<DataKey>, ShamirError> {
    let count = u8::try_from(shares).map_err(|_| ShamirError::TooMany)?;
    if threshold < 2 || threshold > shares {
        return Err(ShamirError::Threshold);
    }
    // For every byte a polynomial: the byte itself, and random coefficients.
    let mut coefficients = Secret::new(vec![0; secret.expose().len() * (threshold - 1)]);
    aws_lc_rs::rand::fill(coefficients.expose_mut()).map_err(|_| ShamirError::Random)?;
    let share = |x: u8| {
        let bytes = secret.expose().iter().zip(coefficients.expose().chunks(threshold - 1));
        let ys = bytes.map(|(byte, above)| above.iter().fold(0, |y, a| multiply(y ^ a, x)) ^ byte);
        Secret::new(ys.chain([x]).collect())
    };
    Ok((1..=count).map(share).collect())
}

/// The Lagrange coefficient of `x` at 0.
fn weight(x: u8, xs: &[u8]) -> u8 {
    let others = xs.iter().filter(|other| **other != x);
    others.fold(1, |weight, other| multiply(weight, multiply(*other, inverse(*other ^ x))))
}

fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut a) = (0, a);
    for bit in 0..8 {
        // Without a branch on the secret.
        product ^= a & (b >> bit & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
    }
    product
}

/// `a` to the power of 254.
fn inverse(a: u8) -> u8 {
    (0..6).fold(multiply(a, a), |power, _| multiply(multiply(power, a), multiply(power, a)))
}

/// Shares do not belong together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ShamirError {
    /// One share is never a secret.
    #[error("less than two shares of the data key")]
    TooFew,
    /// Or too short to be shares.
    #[error("shares of the data key differ in length")]
    Lengths,
    /// `x` is one byte.
    #[error("a data key has no more than 255 shares")]
    TooMany,
    /// One share would be the secret, or no number of them.
    #[error("the threshold must be 2 at least and no more than there are key groups")]
    Threshold,
    /// The system gives no random bytes.
    #[error("the system has no random bytes")]
    Random,
    /// The same share twice, or one that cannot be.
    #[error("a share of the data key is repeated or broken")]
    Repeated,
}

impl Fault for ShamirError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Shares that sops 3.11.0 made of one data key, two of three needed.
    const SHARES: [&str; 3] = [
        "6da00a59927fb6a6b02ab7475519725b6d9ec0841f657e69d82341ea4ce2482c01",
        "89b2eaf66c6b306dfe212d87f7ef80e22168f289b661da0e28a8295c828b04e202",
        "d5bc4393cf67bbddc4d15bc760bd277cec3a157bd1944fda78d1f8c731acc95103",
    ];

    pub(in super::super) fn unhex(hex: &str) -> DataKey {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Secret::new((0..hex.len()).step_by(2).map(byte).collect())
    }

    fn shares(which: &[usize]) -> Vec<DataKey> {
        which.iter().map(|index| unhex(SHARES[*index])).collect()
    }

    #[test]
    fn any_two_shares_of_sops_give_the_data_key() {
        let all = combine(&shares(&[0, 1, 2])).unwrap();
        assert_eq!(all.expose().len(), 32);
        for pair in [[0, 1], [1, 2], [2, 0]] {
            assert_eq!(combine(&shares(&pair)).unwrap(), all);
        }
        // The file they were taken from; AES-GCM proves the key.
        let value = "ENC[AES256_GCM,data:9fPX3D4lrEA18j25OWCO15M=,iv:6CzfTFT8EbVlfnReTrIH0ybZNYYGfWE+xt+d2Psndd0=,tag:BZLB+ecorxy5zroKaijN/w==,type:str]";
        let cipher = super::super::cipher::Cipher::new(&all).unwrap();
        let opened = cipher.open(value, "a:").unwrap();
        assert_eq!(&*opened.bytes(), b"STRONGROOM-MARKER");
    }

    #[test]
    fn shares_that_do_not_belong_together_are_refused() {
        let short = unhex("0102");
        let table = [
            (shares(&[]), ShamirError::TooFew),
            (shares(&[0]), ShamirError::TooFew),
            (shares(&[0, 0]), ShamirError::Repeated),
            (vec![unhex(SHARES[0]), short], ShamirError::Lengths),
            (vec![unhex("0100"), unhex("0101")], ShamirError::Repeated),
        ];
        for (shares, expected) in table {
            assert_eq!(combine(&shares), Err(expected));
        }
    }

    #[test]
    fn any_threshold_of_the_shares_gives_the_secret_and_fewer_do_not() {
        let secret = Secret::new(b"STRONGROOM-MARKER-0123456789abcd".to_vec());
        let shares = split(&secret, 4, 3).unwrap();
        assert_eq!(shares.len(), 4);
        for left_out in 0..4 {
            let mut some = shares.clone();
            some.remove(left_out);
            assert_eq!(combine(&some).unwrap(), secret);
            some.pop();
            assert_ne!(combine(&some).unwrap(), secret);
        }
        for (count, threshold, expected) in
            [(2, 1, ShamirError::Threshold), (2, 3, ShamirError::Threshold), (256, 2, ShamirError::TooMany)]
        {
            assert_eq!(split(&secret, count, threshold), Err(expected));
        }
    }

    #[test]
    fn every_number_times_its_inverse_is_one() {
        assert!((1..=255).all(|a| multiply(a, inverse(a)) == 1));
    }
}
