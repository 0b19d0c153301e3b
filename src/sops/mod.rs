//! SOPS files: metadata, tree walk, MAC, and the keys that open them.

pub mod keys;
