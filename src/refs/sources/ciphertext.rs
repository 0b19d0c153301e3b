//! Paths that are a ciphertext, in URL-safe base64 with or without its `=`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::fault::Class;
use crate::refs::source::{FetchError, Params};
use crate::scope::Scope;

/// The `=` at the end say nothing, so they are left out.
pub(super) fn normalise(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    let path = path.trim_end_matches('=');
    decode(path).map(|_| path.to_owned())
}

pub(super) fn decode(path: &str) -> Result<Vec<u8>, FetchError> {
    let bytes = URL_SAFE_NO_PAD.decode(path).ok().filter(|bytes| !bytes.is_empty());
    let invalid = "the path is not a ciphertext in URL-safe base64";
    bytes.ok_or_else(|| FetchError::new(Class::Invalid, invalid))
}

/// What a key service says of a key: one that is gone is an error that nothing forgives, for the ciphertext is there.
pub(super) fn unforgiven(mut failure: FetchError) -> FetchError {
    if failure.class == Class::NotFound {
        failure.class = Class::Invalid;
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_has_one_spelling() {
        for (path, expected) in [
            ("Z29vZA==", Some("Z29vZA")),
            ("Z29vZA", Some("Z29vZA")),
            ("-_-_", Some("-_-_")),
            ("+/+/", None),
            ("a/../b", None),
            ("", None),
        ] {
            let normalised = normalise(&Scope::default(), path, &Params::new());
            assert_eq!(normalised.ok().as_deref(), expected, "{path}");
        }
    }
}
