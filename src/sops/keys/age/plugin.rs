//! Plugins of age: programs `age-plugin-NAME` that hold keys in hardware or elsewhere. For terminals only.
//!
//! A plugin is a program, and which one is said by a recipient inside a file. So nobody has plugins unless [`Plugins`] is
//! handed over, and a render for Argo CD never does. As Go's age, a plugin that `PATH` finds in the current folder is not
//! run. What it says and asks goes to the terminal of the process, never through stdin or stdout.

use std::path::PathBuf;

use ::age::plugin::{Identity, IdentityPluginV1, Recipient, RecipientPluginV1};
use ::age::{DecryptError, EncryptError};

use crate::environment::Environment;
use crate::fault::Class;
use crate::sops::keys::age::person::Person;
use crate::sops::keys::{DataKey, UnwrapError};

/// Of what a plugin says, in characters.
const SAID_LIMIT: usize = 200;
/// Recipients of age itself that look as if a plugin called so sealed to them, and that plugins have the identities of.
const NO_PLUGINS: [&str; 3] = ["pq", "tag", "tagpq"];

/// That plugins may be run, and where they are.
#[derive(Clone, Debug)]
pub struct Plugins {
    folders: Vec<PathBuf>,
}

impl Plugins {
    /// Those in `PATH`.
    pub fn of(environment: &Environment) -> Self {
        let folders = environment.get("PATH").map(std::env::split_paths).into_iter().flatten();
        Self { folders: folders.collect() }
    }

    /// Opens `enc` with those `identities` that are of the plugin `name`.
    ///
    /// Blocks for as long as the plugin and the person take.
    pub(super) fn open(
        &self,
        name: &str,
        identities: &[Identity],
        enc: &str,
    ) -> Result<DataKey, UnwrapError> {
        self.program(name)?;
        let plugin =
            IdentityPluginV1::new(name, identities, Person::of(name)).map_err(|_| not_found(name))?;
        super::decrypt(&plugin, enc, |error| match error {
            DecryptError::NoMatchingKeys => {
                UnwrapError::new(Class::Denied, format!("age-plugin-{name} has no key that opens it"))
            }
            DecryptError::Plugin(errors) => said(name, errors),
            DecryptError::Io(_) => ended(name),
            error => super::told(error),
        })
    }

    /// The recipient `text`, which the plugin `name` seals to.
    pub(super) fn recipient(&self, name: &str, text: &str) -> Result<RecipientPluginV1<Person>, UnwrapError> {
        self.program(name)?;
        let recipients: Vec<Recipient> = text.parse().into_iter().collect();
        RecipientPluginV1::new(name, &recipients, &[], Person::of(name)).map_err(|_| not_found(name))
    }

    fn program(&self, name: &str) -> Result<(), UnwrapError> {
        let program = format!("age-plugin-{name}");
        let found = self.folders.iter().find(|folder| folder.join(&program).is_file());
        match found {
            None => Err(not_found(name)),
            Some(folder) if folder.is_absolute() => Ok(()),
            Some(_) => Err(UnwrapError::new(
                Class::Denied,
                format!("{program} is found in the current folder, where it is not run"),
            )),
        }
    }
}

/// The plugin that a recipient is of, where it is of one.
pub(super) fn name_of(recipient: &str) -> Option<String> {
    let recipient: Recipient = recipient.parse().ok()?;
    let name = recipient.plugin();
    (!NO_PLUGINS.contains(&name)).then(|| name.to_owned())
}

/// Why a plugin did not seal.
pub(super) fn not_sealed(name: &str, error: &EncryptError) -> UnwrapError {
    match error {
        EncryptError::Plugin(errors) => said(name, errors),
        _ => ended(name),
    }
}

fn not_found(name: &str) -> UnwrapError {
    UnwrapError::new(Class::NotFound, format!("the plugin age-plugin-{name} is not in PATH"))
}

fn ended(name: &str) -> UnwrapError {
    UnwrapError::new(Class::Unavailable, format!("age-plugin-{name} ended before it answered"))
}

fn said(name: &str, errors: &[impl ToString]) -> UnwrapError {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    UnwrapError::new(Class::Denied, format!("age-plugin-{name} failed: {}", shown(&errors.join("; "))))
}

/// What a plugin says, as it may be printed.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_in_the_current_folder_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("age-plugin-x"), "").unwrap();
        let plugins = |path: &str| Plugins::of(&[("PATH", path)].into_iter().collect());
        let reason = |path: &str| plugins(path).program("x").unwrap_err().reason;
        assert_eq!(reason("/nonexistent"), "the plugin age-plugin-x is not in PATH");
        let absolute = folder.path().to_str().unwrap();
        assert!(plugins(absolute).program("x").is_ok());
        let here = std::env::current_dir().unwrap();
        let up = "../".repeat(here.components().count() - 1);
        let relative = format!("{up}{}:{absolute}", absolute.trim_start_matches('/'));
        assert_eq!(reason(&relative), "age-plugin-x is found in the current folder, where it is not run");
    }

    #[test]
    fn only_recipients_of_plugins_name_one() {
        let recipient = |prefix| {
            let prefix = bech32::Hrp::parse_unchecked(prefix);
            age_core::primitives::bech32_encode(prefix, b"x")
        };
        assert_eq!(name_of(&recipient("age1yubikey")), Some("yubikey".to_owned()));
        for prefix in ["age", "age1pq", "age1tag", "age1tagpq"] {
            assert_eq!(name_of(&recipient(prefix)), None, "{prefix}");
        }
        assert_eq!(name_of("ssh-ed25519 AAAA"), None);
    }

    #[test]
    fn what_a_plugin_says_is_shown_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shown(&"a".repeat(1000)).len(), SAID_LIMIT);
    }
}
