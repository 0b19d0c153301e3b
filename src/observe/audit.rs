//! The audit trail: one line for each secret that an app opened, was denied, or could not open.
//!
//! A line says who, what and with which result, under the log target [`TARGET`]. It never holds a value: a reference
//! is told in the spelling that the policy saw, a SOPS file by its path and the master key that opened it.

use crate::fault::Class;
use crate::policy::Who;

/// The log target of audit lines.
pub const TARGET: &str = "strongroom::audit";

/// What was to be opened.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// A reference.
    Reference(&'a str),
    /// The data key of a SOPS file.
    Key {
        /// The file, where it is one.
        file: Option<&'a str>,
        /// Kind of the master key.
        kind: &'a str,
        /// Recipient, fingerprint or ARN.
        id: &'a str,
    },
}

/// One access, as it stays after the render.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Entry {
    /// The reference, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The file that a key was to open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Kind of the master key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_type: Option<String>,
    /// Recipient, fingerprint or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// `opened`, `denied` or `failed`.
    pub result: &'static str,
}

impl Entry {
    /// What is known of an access.
    pub fn of(access: Access<'_>, outcome: Result<(), Class>) -> Self {
        let (result, _) = told(outcome);
        let (reference, file, key_type, key_id) = match access {
            Access::Reference(reference) => (Some(reference), None, None, None),
            Access::Key { file, kind, id } => (None, file, Some(kind), Some(id)),
        };
        let [reference, file, key_type, key_id] =
            [reference, file, key_type, key_id].map(|text| text.map(str::to_owned));
        Self { reference, file, key_type, key_id, result }
    }
}

fn told(outcome: Result<(), Class>) -> (&'static str, Option<&'static str>) {
    match outcome {
        Ok(()) => ("opened", None),
        Err(Class::Denied) => ("denied", Some(Class::Denied.label())),
        Err(class) => ("failed", Some(class.label())),
    }
}

/// Tells that `who` opened something, or why not.
pub fn tell(who: &Who, request: Option<&str>, access: Access<'_>, outcome: Result<(), Class>) {
    let (result, class) = told(outcome);
    let Entry { reference, file, key_type, key_id, .. } = Entry::of(access, outcome);
    let repository = who.repository.as_deref().map(without_credentials);
    tracing::info!(
        target: TARGET,
        request,
        app = who.app,
        project = who.project,
        repository,
        revision = who.revision,
        reference,
        file,
        key_type,
        key_id,
        result,
        class,
    );
}

/// A URL as it is, but for what stands before an `@` of its host.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_repository_s_url_are_left_out() {
        for (url, expected) in [
            ("https://git:STRONGROOM-MARKER@git.example/a/b@c.git", "https://git.example/a/b@c.git"),
            ("https://git.example/a", "https://git.example/a"),
            ("ssh://git@git.example:22/a", "ssh://git.example:22/a"),
            ("git@git.example:a/b.git", "git@git.example:a/b.git"),
        ] {
            assert_eq!(without_credentials(url), expected);
        }
    }
}
