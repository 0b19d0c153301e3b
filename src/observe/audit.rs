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

/// Tells that `who` opened something, or why not.
pub fn tell(who: &Who, request: Option<&str>, access: Access<'_>, outcome: Result<(), Class>) {
    let (result, class) = match outcome {
        Ok(()) => ("opened", None),
        Err(Class::Denied) => ("denied", Some(Class::Denied.label())),
        Err(class) => ("failed", Some(class.label())),
    };
    let (reference, file, key_type, key_id) = match access {
        Access::Reference(reference) => (Some(reference), None, None, None),
        Access::Key { file, kind, id } => (None, file, Some(kind), Some(id)),
    };
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
