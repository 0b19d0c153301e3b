//! The table of schemes: the only registry of backends, and what is said about those that are not in it.

use std::fmt::Write;

use crate::fault::{Class, Fault};
use crate::refs::source::{Scheme, SchemeOption};
use crate::refs::sources::{
    awskms, awssecrets, awsssm, azurekeyvault, doppler, echo, envsubst, file, gcpsecrets, gcs, gitlab, gkms,
    httpjson, k8s, onepasswordconnect, s3, sops, tfstate, vault,
};

/// Every scheme that can be resolved, by name.
pub const SCHEMES: &[&Scheme] = &[
    &awskms::SCHEME,
    &awssecrets::SCHEME,
    &awsssm::SCHEME,
    &azurekeyvault::SCHEME,
    &doppler::SCHEME,
    &echo::SCHEME,
    &envsubst::SCHEME,
    &file::SCHEME,
    &gcpsecrets::SCHEME,
    &gcs::SCHEME,
    &gitlab::SCHEME,
    &gkms::SCHEME,
    &httpjson::SCHEME,
    &k8s::SCHEME,
    &onepasswordconnect::SCHEME,
    &vault::OPENBAO,
    &s3::SCHEME,
    &sops::SCHEME,
    &tfstate::FILE,
    &tfstate::S3,
    &vault::VAULT,
];

/// Options that every scheme has.
pub const COMMON_OPTIONS: &[SchemeOption] = &[
    SchemeOption { name: "optional", doc: "`true`: what is not found is the empty string" },
    SchemeOption { name: "default", doc: "what is not found is this text" },
    SchemeOption { name: "fallback_value", doc: "the same, as vals' `gcpsecrets` spells it" },
];

/// Schemes of vals that are to come.
const TO_COME: &[&str] = &[
    "bw",
    "conjur",
    "hcpvaultsecrets",
    "infisical",
    "oci",
    "op",
    "pulumistateapi",
    "scw",
    "servercore",
    "tfstateazurerm",
    "tfstategitlab",
    "tfstategs",
    "tfstateremote",
    "tss",
    "yclockbox",
];

/// Schemes of vals that will not come, and why.
const REFUSED: &[(&str, &str)] = &[
    ("exec", "it would let a repository run programs here"),
    ("googlesheets", "its login asks a person questions"),
    ("keychain", "it works on a Mac's desktop only"),
];

/// A scheme that cannot be resolved.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SchemeError {
    /// Of vals, and not built yet.
    #[error("scheme {0} is not supported yet")]
    NotYet(&'static str),
    /// Of vals, and never to be built.
    #[error("scheme {name} is refused: {why}")]
    Refused {
        /// The scheme.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Of nobody.
    #[error("unknown scheme {name:?}\nhelp: {help}")]
    Unknown {
        /// As in the reference.
        name: String,
        /// The nearest scheme, or all of them.
        help: String,
    },
}

impl Fault for SchemeError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { .. } => Class::Denied,
            Self::NotYet(_) | Self::Unknown { .. } => Class::Invalid,
        }
    }
}

/// The scheme called `name`, which is in lower case.
pub fn find(name: &str) -> Result<&'static Scheme, SchemeError> {
    if let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) {
        return Ok(scheme);
    }
    if let Some(known) = TO_COME.iter().find(|known| **known == name) {
        return Err(SchemeError::NotYet(known));
    }
    if let Some((name, why)) = REFUSED.iter().find(|(known, _)| *known == name) {
        return Err(SchemeError::Refused { name, why });
    }
    Err(SchemeError::Unknown { name: name.to_owned(), help: help_for(name) })
}

fn help_for(name: &str) -> String {
    let known = SCHEMES.iter().map(|scheme| scheme.name);
    nearest(name, known.clone()).map_or_else(
        || {
            format!(
                "known schemes are {}; a literal ref+ is written ref++",
                known.collect::<Vec<_>>().join(", ")
            )
        },
        |near| format!("did you mean {near}?"),
    )
}

/// The candidate that a typo of `name` most likely means.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// The table as Markdown, for `docs/references.md`.
pub fn markdown() -> String {
    let mut page = String::from(PREAMBLE);
    for scheme in SCHEMES {
        let _ = write!(page, "\n## `{}`\n\n{}.\n\n", scheme.name, capital(scheme.doc));
        page.push_str("| reference | value |\n|---|---|\n");
        for (reference, meaning) in scheme.examples {
            let _ = writeln!(page, "| `{reference}` | {meaning} |");
        }
        if scheme.options().next().is_some() {
            page.push_str("\n| option | meaning |\n|---|---|\n");
            options(&mut page, scheme.options());
        }
    }
    page.push_str("\n## Options of every scheme\n\n| option | meaning |\n|---|---|\n");
    options(&mut page, COMMON_OPTIONS);
    page.push_str("\n## Schemes of vals that are not here\n\n");
    for (name, why) in REFUSED {
        let _ = writeln!(page, "- `{name}` is refused: {why}.");
    }
    let to_come: Vec<_> = TO_COME.iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(page, "- Not supported yet: {}.", to_come.join(", "));
    page
}

const PREAMBLE: &str = "\
# References

A string in a value file that holds `ref+scheme://path?option=value#/key` gets the value that the reference means.
The strings are those of vals.

- A reference that is all of its string and ends in a fragment (`#/key`) gives the value with its own type, maps and
  lists too. Without a fragment it gives the whole document as a string. Inside a longer string it gives text.
- `/` in a fragment goes down into maps by key and into lists by index from 0. A `/` that is part of a key is `%2F`.
- A reference ends at white space, at a `\"` that is none of `[\"key\"]`, at a comma that another reference follows, or at
  `+`, which is consumed:
  `https://ref+echo://example.com+/path`.
- A reference inside another fills in path segments, option values or keys of the outer one, as data.
- A map whose key is a reference and whose value is a map, `ref+file://conf.yaml: {}`, is replaced by the entries
  of the document.
- In the default `values.yaml` of a chart and of its subcharts, packed ones too, references resolve as in a value file.
  A reference as a key does not resolve there, nor one that `import-values` takes into the chart above; a render that
  would show one fails.
- A literal `ref+scheme://` is written with one more plus: `ref++scheme://`. The check of the result lets exactly what
  was written so through.
- References that a template builds, `{{ printf \"ref+awssecrets://%s#/password\" .Release.Name }}`, are resolved in
  helm's output where the application sets `resolveManifests`, in `data` of a Secret behind its base64 too. One that is
  made of an opened value is refused, and what a reference resolves to is never resolved again.
- A missing document or key is an error, unless the reference has `optional=true` or a `default`. Neither forgives
  a denial. An option that a scheme does not have is an error.
- An option that a reference leaves out is what the operator says with `VALS_` and its name in upper case:
  `VALS_REGION=eu-west-1` in Strongroom's own environment. Options of every scheme are not among them.
";

fn options(page: &mut String, options: impl IntoIterator<Item = &'static SchemeOption>) {
    for option in options {
        let _ = writeln!(page, "| `{}` | {} |", option.name, option.doc);
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::refs::grammar::Expression;
    use crate::refs::source::ANY_OPTION;

    fn option_names(scheme: &Scheme) -> Vec<&'static str> {
        scheme.options().chain(COMMON_OPTIONS).map(|option| option.name).collect()
    }

    #[test]
    fn names_are_sorted_and_unique_among_all() {
        let names: Vec<_> = SCHEMES.iter().map(|scheme| scheme.name).collect();
        assert!(names.is_sorted() && TO_COME.is_sorted() && REFUSED.is_sorted());
        let refused = REFUSED.iter().map(|(name, _)| *name);
        let all: Vec<_> = names.into_iter().chain(TO_COME.iter().copied()).chain(refused).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|name| name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())));
    }

    #[test]
    fn every_scheme_is_documented_by_references_that_it_accepts() {
        for scheme in SCHEMES {
            assert!(!scheme.doc.is_empty() && !scheme.doc.ends_with('.'), "{}", scheme.name);
            assert!(!scheme.examples.is_empty(), "{}", scheme.name);
            for (example, _) in scheme.examples {
                let expression = Expression::parse(example).unwrap();
                let reference = expression.whole().unwrap();
                assert_eq!(reference.scheme(), scheme.name, "{example}");
                let target = reference.target(&[]).unwrap();
                let known = option_names(scheme);
                let is_known = |name: &str| known.contains(&name) || known.contains(&ANY_OPTION);
                assert!(target.options.keys().all(|name| is_known(name)), "{example}");
            }
        }
    }

    #[test]
    fn no_option_has_two_meanings() {
        for scheme in SCHEMES {
            let names = option_names(scheme);
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}", scheme.name);
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_explained() {
        for (name, class, expected) in [
            ("op", Class::Invalid, "scheme op is not supported yet"),
            ("tfstategs", Class::Invalid, "scheme tfstategs is not supported yet"),
            ("exec", Class::Denied, "scheme exec is refused: it would let a repository run programs here"),
            ("awssecret", Class::Invalid, "unknown scheme \"awssecret\"\nhelp: did you mean awssecrets?"),
        ] {
            let error = find(name).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.class()), (expected, class));
        }
        let unknown = find("somethingelse").unwrap_err().to_string();
        assert!(unknown.contains("known schemes are awskms, awssecrets, awsssm,"), "{unknown}");
    }

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        assert_eq!(include_str!("../../docs/references.md"), markdown(), "run `make docs`");
    }

    #[test]
    fn the_page_has_a_section_for_every_scheme_and_a_row_for_every_option() {
        let page = markdown();
        for scheme in SCHEMES {
            assert!(page.contains(&format!("\n## `{}`\n", scheme.name)));
            assert!(option_names(scheme).iter().all(|name| page.contains(&format!("| `{name}` | "))));
        }
    }
}
