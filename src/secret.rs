//! The type of every value that must not be seen.
//!
//! A [`Secret`] is zeroized when dropped, prints as `<redacted>`, and has no `Display`, no `Serialize` and no
//! `Deref`: the only way in is [`Secret::expose`], so that a reader can grep for every use.

use std::fmt;

use zeroize::Zeroize;

/// A value that is wiped on drop and never printed.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` in; the caller's copy, if it made one, is the caller's to wipe.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. What is done with it must stay in memory.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself, to be built up in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Zeroize + PartialEq> PartialEq for Secret<T> {
    /// Plain comparison, for deduplication and tests; never used to check what a caller presents.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Zeroize + Eq> Eq for Secret<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        let secret = Secret::new("STRONGROOM-MARKER".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "<redacted> Some(<redacted>)");
    }
}
