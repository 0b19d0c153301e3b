//! Who may open what: the one seam that every key and every reference passes before it is opened.
//!
//! [`Who`] comes from what Argo CD sets, never from what a repository can set. [`AllowList`] applies the
//! operator's list; a policy file per project will implement [`Authorise`] later.
//!
//! # The operator's lists
//!
//! `STRONGROOM_ALLOW_REFS` lists, separated by commas, schemes (`sops`: every reference of that scheme) and
//! prefixes of references (`awssecrets://team-a/`), or `*`. A prefix is compared with the normalised reference and
//! ends where a path segment ends: `awssecrets://team-a` allows `team-a` and what is below it, never `team-ab`;
//! with a `/` at its end only what is below. Files of the repository begin with `/`, its root: `sops:///apps/`.
//! A prefix does not let a repository choose the identity: options that do (`role_arn`, `profile`, …) must be in the
//! prefix with the same value, or with `*`: `awssecrets://team-a/?role_arn=*`. Only `region` is free. Commas,
//! question marks and percent signs of a path are percent-encoded.
//!
//! `STRONGROOM_ALLOW_KEYS` lists kinds of SOPS keys (`age`) and prefixes of their ids
//! (`kms:arn:aws:kms:eu-west-1:123456789012:`), which end at a `:` or `/`.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::fault::{Class, Fault};

/// On whose behalf a render runs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Who {
    /// Name of the Application, as Argo CD says it (`ns_app` for apps outside its own namespace).
    pub app: String,
    /// The Application's project, where Argo CD tells it.
    pub project: Option<String>,
    /// The repository the source comes from.
    pub repository: Option<String>,
    /// The resolved revision of the source.
    pub revision: Option<String>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {:?}", self.app)?;
        if let Some(project) = &self.project {
            write!(f, " of project {project:?}")?;
        }
        Ok(())
    }
}

/// What is about to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What<'a> {
    /// A reference, normalised: scheme in lower case, percent-encoding undone, no `..`.
    Reference {
        /// Scheme, such as `awssecrets`.
        scheme: &'a str,
        /// What stands behind `scheme://`, without query and fragment, exactly as the backend is asked for it.
        path: &'a str,
        /// Options that choose the backend or the identity it is asked with, such as `role_arn`.
        connection: &'a BTreeMap<String, String>,
    },
    /// A SOPS master key.
    Key {
        /// Kind of the key, such as `age` or `kms`.
        kind: &'a str,
        /// Recipient, fingerprint or ARN.
        id: &'a str,
    },
}

/// Decides whether [`Who`] may open [`What`].
pub trait Authorise: Send + Sync {
    /// `Ok` lets it pass.
    fn authorise(&self, who: &Who, what: What<'_>) -> Result<(), Denied>;
}

/// The operator's policy does not allow it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{who} may not open {what}\nhelp: {help}")]
pub struct Denied {
    who: String,
    what: String,
    help: String,
}

impl Denied {
    /// `help` tells the operator what to set.
    pub fn new(who: &Who, what: What<'_>, help: impl Into<String>) -> Self {
        Self { who: who.to_string(), what: what.to_string(), help: help.into() }
    }
}

impl Fault for Denied {
    fn class(&self) -> Class {
        Class::Denied
    }
}

/// What is longer is cut when it is printed, in characters.
const MAX_SHOWN: usize = 300;
/// Choosing it opens nothing that the same identity could not open anyway.
const FREE_OPTION: &str = "region";
/// Schemes whose backend takes a leading `/` to mean nothing; their references are normalised without it.
const WITHOUT_ROOT: [&str; 1] = ["awsssm"];

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference { scheme, path, connection } => {
                write!(f, "ref+{scheme}://{}", cut(path))?;
                let names: Vec<_> = connection.keys().map(String::as_str).collect();
                if names.is_empty() { Ok(()) } else { write!(f, " with {}", names.join(", ")) }
            }
            Self::Key { kind, id } => write!(f, "SOPS key {kind} {}", cut(id)),
        }
    }
}

fn cut(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    if shown.len() < text.len() { shown + "…" } else { shown }
}

/// The operator's lists of references and keys; see the module's documentation for their grammar.
#[derive(Clone, Debug)]
pub struct AllowList {
    references: Vec<Pattern>,
    keys: Option<Vec<KeyPattern>>,
}

/// An entry of the list of references.
#[derive(Clone, Debug)]
enum Pattern {
    Everything,
    Scheme(String),
    Prefix { scheme: String, path: String, connection: BTreeMap<String, String> },
}

/// An entry of the list of keys; an empty `id` is every key of the kind.
#[derive(Clone, Debug)]
struct KeyPattern {
    kind: String,
    id: String,
}

impl Default for AllowList {
    /// What the sidecar allows unless told otherwise: nothing outside the repository, and all keys.
    fn default() -> Self {
        let references =
            ["echo", "file", "sops", "tfstate"].map(|scheme| Pattern::Scheme(scheme.to_owned())).into();
        Self { references, keys: None }
    }
}

impl AllowList {
    /// Every reference and every key: a person's own terminal.
    pub fn everything() -> Self {
        Self { references: vec![Pattern::Everything], keys: None }
    }

    /// Allows the references that `list` names, and no other.
    pub fn with_references(self, list: &str) -> Result<Self, AllowListError> {
        let references = entries(list).map(Pattern::parse).collect::<Result<_, _>>()?;
        Ok(Self { references, ..self })
    }

    /// Allows the keys that `list` names, and no other.
    pub fn with_keys(self, list: &str) -> Result<Self, AllowListError> {
        let keys = entries(list).map(KeyPattern::parse).collect::<Result<_, _>>()?;
        Ok(Self { keys: Some(keys), ..self })
    }
}

impl AllowList {
    /// The schemes that the list of references names, each with the options that a prefix of it chooses.
    pub fn schemes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.references.iter().filter_map(|pattern| {
            let (scheme, connection) = match pattern {
                Pattern::Everything => return None,
                Pattern::Scheme(scheme) => (scheme, None),
                Pattern::Prefix { scheme, connection, .. } => (scheme, Some(connection)),
            };
            Some((scheme.as_str(), connection.into_iter().flat_map(BTreeMap::keys).map(String::as_str)))
        })
    }

    /// The kinds of keys that the list of keys names.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().flatten().map(|pattern| pattern.kind.as_str())
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// An entry of a list is not well formed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("entry {entry:?} is not well formed: {reason}")]
pub struct AllowListError {
    /// As the operator wrote it.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Fault for AllowListError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, AllowListError> {
        let wrong = |reason| AllowListError { entry: entry.to_owned(), reason };
        if entry == "*" {
            return Ok(Self::Everything);
        }
        let entry = entry.strip_prefix("ref+").unwrap_or(entry);
        let (scheme, rest) = entry.split_once("://").map_or((entry, ""), |(scheme, rest)| (scheme, rest));
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong("a scheme is letters and digits"));
        }
        let scheme = scheme.to_ascii_lowercase();
        if rest.is_empty() {
            return Ok(Self::Scheme(scheme));
        }
        if rest.contains('#') {
            return Err(wrong("a prefix has no fragment"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path).ok_or(wrong("it is not UTF-8"))?;
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(wrong("a prefix has no . or .. segment"));
        }
        let path = if WITHOUT_ROOT.contains(&scheme.as_str()) { path.trim_start_matches('/') } else { &path };
        let connection = query.split('&').filter(|option| !option.is_empty()).map(|option| {
            let (name, value) = option.split_once('=').ok_or(wrong("an option has no value"))?;
            Ok((name.to_owned(), decode(value).ok_or(wrong("it is not UTF-8"))?))
        });
        let connection = connection.collect::<Result<_, _>>()?;
        Ok(Self::Prefix { scheme, path: path.to_owned(), connection })
    }

    fn allows(&self, scheme: &str, path: &str, connection: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Everything => true,
            Self::Scheme(allowed) => allowed == scheme,
            Self::Prefix { scheme: allowed, path: prefix, connection: chosen } => {
                let may_choose = |(name, value): (&String, &String)| {
                    name == FREE_OPTION && !chosen.contains_key(name)
                        || chosen.get(name).is_some_and(|allowed| allowed == "*" || allowed == value)
                };
                allowed == scheme && is_below(path, prefix, &['/']) && connection.iter().all(may_choose)
            }
        }
    }
}

impl KeyPattern {
    fn parse(entry: &str) -> Result<Self, AllowListError> {
        let (kind, id) = entry.split_once(':').unwrap_or((entry, ""));
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let reason = "a kind of key is letters, digits and _";
            return Err(AllowListError { entry: entry.to_owned(), reason });
        }
        Ok(Self { kind: kind.to_owned(), id: id.to_owned() })
    }

    fn allows(&self, kind: &str, id: &str) -> bool {
        self.kind == kind && (self.id.is_empty() || is_below(id, &self.id, &['/', ':']))
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(String::from)
}

/// Whether `prefix` is all of `text`, or ends where one of its segments ends.
fn is_below(text: &str, prefix: &str, separators: &[char]) -> bool {
    let Some(rest) = text.strip_prefix(prefix) else { return false };
    if prefix.ends_with(['/', ':']) {
        !rest.is_empty()
    } else {
        rest.is_empty() || rest.starts_with(separators)
    }
}

impl Authorise for AllowList {
    fn authorise(&self, who: &Who, what: What<'_>) -> Result<(), Denied> {
        let (allowed, help) = match what {
            What::Reference { scheme, path, connection } => {
                let allowed = self.references.iter().any(|entry| entry.allows(scheme, path, connection));
                (allowed, "the operator allows references with STRONGROOM_ALLOW_REFS")
            }
            What::Key { kind, id } => {
                let allowed =
                    self.keys.as_ref().is_none_or(|keys| keys.iter().any(|entry| entry.allows(kind, id)));
                (allowed, "the operator allows keys with STRONGROOM_ALLOW_KEYS")
            }
        };
        if allowed { Ok(()) } else { Err(Denied::new(who, what, help)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(list: &AllowList, reference: &str) -> bool {
        let (scheme, rest) = reference.split_once("://").unwrap();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options = query.split('&').filter_map(|option| option.split_once('='));
        let connection = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        list.authorise(&Who::default(), What::Reference { scheme, path, connection: &connection }).is_ok()
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let list = "sops, awssecrets://team-a/ ,awssecrets://shared,AWSSSM:///app/,\
                    awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:team-a/,awssecrets://comma%2Cpath/";
        let list = AllowList::default().with_references(list).unwrap();
        for (reference, expected) in [
            ("sops://x/../y", true),
            ("echo://a", false),
            ("sopsx://a", false),
            ("awssecrets://team-a/x", true),
            ("awssecrets://team-a/x/y", true),
            ("awssecrets://team-a/x?region=eu-west-1", true),
            ("awssecrets://team-a", false),
            ("awssecrets://team-a/", false),
            ("awssecrets://team-ab/x", false),
            ("awssecrets://Team-A/x", false),
            ("awssecrets:///team-a/x", false),
            ("awssecrets://x/team-a/x", false),
            ("awssecrets://shared", true),
            ("awssecrets://shared/x", true),
            ("awssecrets://sharedx", false),
            ("awssecrets://shared:x", false),
            ("awssecrets://team-a/x?role_arn=arn:aws:iam::2:role/admin", false),
            ("awssecrets://team-a/x?profile=admin", false),
            ("awssecrets://comma,path/x", true),
            ("awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:team-a/x-AbCdEf", true),
            ("awssecrets://arn:aws:secretsmanager:eu-west-1:2:secret:team-a/x-AbCdEf", false),
            ("awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:team-ab/x-AbCdEf", false),
            ("awsssm://app/x", true),
            ("awsssm://application/x", false),
        ] {
            assert_eq!(may(&list, reference), expected, "{reference}");
        }
    }

    #[test]
    fn a_prefix_says_which_identities_may_be_chosen() {
        let list = "a://x/?role_arn=arn:aws:iam::1:role/r&region=eu-west-1,a://y?role_arn=*";
        let list = AllowList::default().with_references(list).unwrap();
        for (reference, expected) in [
            ("a://x/1", true),
            ("a://x/1?role_arn=arn:aws:iam::1:role/r", true),
            ("a://x/1?role_arn=arn:aws:iam::1:role/rr", false),
            ("a://x/1?role_arn=arn:aws:iam::1:role/r&profile=p", false),
            ("a://x/1?region=eu-west-1", true),
            ("a://x/1?region=us-east-1", false),
            ("a://y/1?role_arn=any", true),
            ("a://y/1?role_arn=any&profile=p", false),
        ] {
            assert_eq!(may(&list, reference), expected, "{reference}");
        }
    }

    #[test]
    fn the_sidecar_allows_its_repository_and_a_terminal_everything() {
        for (reference, sidecar) in [
            ("echo://a", true),
            ("file:///a", true),
            ("sops://a", true),
            ("tfstate:///a/output.b", true),
            ("tfstates3://a/b/output.c", false),
            ("envsubst://$A", false),
            ("awssecrets://a", false),
        ] {
            assert_eq!(may(&AllowList::default(), reference), sidecar, "{reference}");
            assert!(may(&AllowList::everything(), reference));
            assert!(may(&AllowList::default().with_references("*").unwrap(), reference));
            assert!(!may(&AllowList::everything().with_references("").unwrap(), reference), "an empty list");
        }
    }

    #[test]
    fn keys_are_allowed_by_kind_and_by_prefix_of_their_id() {
        let some = AllowList::default().with_keys("age,kms:arn:aws:kms:eu-west-1:1:,pgp:ABCD").unwrap();
        for (kind, id, expected) in [
            ("age", "age1x", true),
            ("agex", "age1x", false),
            ("kms", "arn:aws:kms:eu-west-1:1:key/a", true),
            ("kms", "arn:aws:kms:eu-west-1:12:key/a", false),
            ("pgp", "ABCD", true),
            ("pgp", "ABCDEF", false),
            ("hc_vault", "x", false),
        ] {
            let what = What::Key { kind, id };
            assert_eq!(some.authorise(&Who::default(), what).is_ok(), expected, "{kind} {id}");
            assert!(AllowList::default().authorise(&Who::default(), what).is_ok());
        }
    }

    #[test]
    fn a_denial_says_who_what_and_which_variable() {
        let who = Who { app: "shop".into(), project: Some("web".into()), ..Who::default() };
        let connection = BTreeMap::from([("role_arn".to_owned(), "STRONGROOM-MARKER".to_owned())]);
        let what = What::Reference { scheme: "awssecrets", path: "team-b/x", connection: &connection };
        let denied = AllowList::default().authorise(&who, what).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "app \"shop\" of project \"web\" may not open ref+awssecrets://team-b/x with role_arn\n\
             help: the operator allows references with STRONGROOM_ALLOW_REFS"
        );
        assert_eq!(denied.class(), Class::Denied);
        let none = AllowList::default().with_keys("age").unwrap();
        let denied = none.authorise(&who, What::Key { kind: "kms", id: "arn" }).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "app \"shop\" of project \"web\" may not open SOPS key kms arn\n\
             help: the operator allows keys with STRONGROOM_ALLOW_KEYS"
        );
    }

    #[test]
    fn a_list_that_is_not_well_formed_is_an_error() {
        for (list, reason) in [
            ("sops,://x", "a scheme is letters and digits"),
            ("aws secrets", "a scheme is letters and digits"),
            ("a://b#/c", "a prefix has no fragment"),
            ("a://b/../c", "a prefix has no . or .. segment"),
            ("a://b/%2e%2e/", "a prefix has no . or .. segment"),
            ("a://%ff", "it is not UTF-8"),
            ("a://b?role_arn", "an option has no value"),
        ] {
            let error = AllowList::default().with_references(list).unwrap_err();
            assert_eq!(error.reason, reason, "{list}");
            assert_eq!(error.class(), Class::Invalid);
        }
        let error = AllowList::default().with_keys("a b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry \"a b\" is not well formed: a kind of key is letters, digits and _"
        );
    }
}
