//! `ref+sops://file`: a SOPS file of the application's own repository, opened with the keyring.
//!
//! The format is the option `format`, else the extension's, else `yaml` with a fragment and `binary` without, as in
//! vals. A fragment walks keys of dotenv, and sections and keys of INI. A file without SOPS metadata is refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use futures::future::{self, BoxFuture, FutureExt};

use crate::confine;
use crate::document::{Format, text_of};
use crate::fault::Class;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source, inside_repository,
    verbatim,
};
use crate::scope::Scope;
use crate::secret::Secret;
use crate::sops::file::{FileFormat, open};
use crate::sops::keys::Keyring;
use crate::sops::open::OpenOptions;

/// As much as any document.
const MAX_BYTES: u64 = crate::document::MAX_SIZE as u64;

/// The URL-safe alphabet, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

pub(crate) const SCHEME: Scheme = Scheme {
    name: "sops",
    doc: "a SOPS file of the application's own repository",
    examples: &[
        (
            "ref+sops://secrets.yaml#/db/password",
            "a value of a file, relative to the application's directory",
        ),
        ("ref+sops://app.env#/PASSWORD", "a value of a dotenv file; of INI it is `#/section/key`"),
        ("ref+sops:///shared/secrets.json", "all of a decrypted file, from the repository's root"),
        ("ref+sops://tls.key.enc", "a file of any kind that sops encrypted as `binary`"),
    ],
    connection: &[],
    document: &[
        SchemeOption { name: "encode", doc: "`raw` (default) or `base64`; not with a fragment" },
        SchemeOption {
            name: "format",
            doc: "`yaml`, `json`, `dotenv`, `ini` or `binary`, where the extension does not tell",
        },
        SchemeOption {
            name: "key_type",
            doc: "`filepath` (default), or `base64`: the path is the file itself",
        },
    ],
    fragment: Fragment::Asks,
    normalise: |scope, path, params| {
        let spell = if is_inline(params)? { verbatim } else { inside_repository };
        spell(scope, path, params)
    },
    open: |_, ambient| {
        Ok(Arc::new(SopsFiles { keyring: Arc::clone(&ambient.keyring), options: ambient.sops }))
    },
};

#[derive(Debug)]
struct SopsFiles {
    keyring: Arc<Keyring>,
    options: OpenOptions,
}

impl Source for SopsFiles {
    fn fetch<'a>(
        &'a self,
        scope: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::join_all(at.iter().map(|at| self.answer(scope, at))).boxed()
    }
}

impl SopsFiles {
    async fn answer(&self, scope: &Scope, at: &Locator) -> Result<Document, FetchError> {
        let format = format_of(at)?;
        let encoded = is_encoded(at)?;
        let sealed = read(scope, at)?;
        let text = text_of(sealed.expose()).map_err(|error| FetchError::of(&error))?;
        let scope = if is_inline(&at.params)? { scope.clone() } else { scope.of_file(&at.path) };
        let opened = open(text, format, &self.keyring, &scope, self.options).await;
        let opened = opened.map_err(|error| FetchError::of(&error))?;
        let data = opened.data.filter(|_| at.fragment).map(|data| data.to_flow());
        let bytes = data.as_ref().map_or(opened.content.expose().as_slice(), |data| data.expose().as_bytes());
        Ok(Secret::new(if encoded { STANDARD.encode(bytes).into_bytes() } else { bytes.to_vec() }))
    }
}

/// What sops took the file for.
fn format_of(at: &Locator) -> Result<FileFormat, FetchError> {
    let inline = at.params.get("key_type").is_some_and(|kind| kind == "base64");
    let name = at.path.rsplit('/').next().filter(|_| !inline);
    let extension = || name.and_then(FileFormat::of_name);
    match at.params.get("format").map(String::as_str) {
        Some("binary") => Ok(extension().unwrap_or(FileFormat::Binary)),
        Some(format) => FileFormat::named(format)
            .ok_or_else(|| invalid("option format is neither yaml, json, dotenv, ini nor binary")),
        None if at.fragment => Ok(extension().unwrap_or(FileFormat::Document(Format::Yaml))),
        None => Ok(extension().unwrap_or(FileFormat::Binary)),
    }
}

fn read(scope: &Scope, at: &Locator) -> Result<Secret<Vec<u8>>, FetchError> {
    if is_inline(&at.params)? {
        let file = BASE64.decode(&at.path).map_err(|_| invalid("the path is not URL-safe base64"))?;
        return Ok(Secret::new(file));
    }
    let root = scope.repository.as_deref().ok_or_else(|| invalid("the repository's root is not known"))?;
    Ok(confine::read(&confine::resolve(root, root, &at.path)?, &at.path, MAX_BYTES)?)
}

fn is_inline(params: &Params) -> Result<bool, FetchError> {
    match params.get("key_type").map(String::as_str) {
        None | Some("filepath") => Ok(false),
        Some("base64") => Ok(true),
        Some(_) => Err(invalid("option key_type is neither filepath nor base64")),
    }
}

fn is_encoded(at: &Locator) -> Result<bool, FetchError> {
    match at.params.get("encode").map(String::as_str) {
        None | Some("raw") => Ok(false),
        Some("base64") => Ok(!at.fragment),
        Some(_) => Err(invalid("option encode is neither raw nor base64")),
    }
}

fn invalid(reason: &str) -> FetchError {
    FetchError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refs::sources::mock::locator;
    use crate::sops::flat::Flat;

    #[test]
    fn the_format_is_told_by_option_extension_and_fragment() {
        let (yaml, json) = (FileFormat::Document(Format::Yaml), FileFormat::Document(Format::Json));
        for (path, fragment, params, expected) in [
            ("/a.yaml", false, &[][..], Ok(yaml)),
            ("/a.yml", true, &[], Ok(yaml)),
            ("/a.json", false, &[], Ok(json)),
            ("/a.json", false, &[("format", "yaml")], Ok(yaml)),
            ("/a.yaml", false, &[("format", "binary")], Ok(yaml)),
            ("/a.enc", false, &[], Ok(FileFormat::Binary)),
            ("/a.enc", true, &[], Ok(yaml)),
            ("/a.enc", true, &[("format", "binary")], Ok(FileFormat::Binary)),
            ("/a.yaml/b", false, &[], Ok(FileFormat::Binary)),
            ("x.json", true, &[("key_type", "base64")], Ok(yaml)),
            ("/a.env", false, &[], Ok(FileFormat::Flat(Flat::Dotenv))),
            ("/a", false, &[("format", "ini")], Ok(FileFormat::Flat(Flat::Ini))),
            (
                "/a",
                false,
                &[("format", "x")],
                Err("option format is neither yaml, json, dotenv, ini nor binary".to_owned()),
            ),
        ] {
            let kind = format_of(&locator(path, fragment, params));
            assert_eq!(kind.map_err(|error| error.reason), expected, "{path} {params:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_told() {
        let keep = tempfile::tempdir().unwrap();
        let root = keep.path().canonicalize().unwrap();
        std::fs::write(root.join("plain.yaml"), "a: STRONGROOM-MARKER").unwrap();
        std::fs::write(root.join("broken.yaml"), "a: {STRONGROOM-MARKER").unwrap();
        std::fs::write(root.join("latin.yaml"), b"a: STRONGROOM-MARKER \xff").unwrap();
        let scope = Scope { repository: Some(root.clone()), directory: Some(root), ..Scope::default() };
        let source = SopsFiles { keyring: Arc::default(), options: OpenOptions::default() };
        for (path, params, class, expected) in [
            ("/plain.yaml", &[][..], Class::Invalid, "the file has no SOPS metadata"),
            ("/latin.yaml", &[], Class::Invalid, "not UTF-8 (line 1)"),
            (
                "/absent.yaml",
                &[],
                Class::NotFound,
                "/absent.yaml: no such file or directory in the repository",
            ),
            (
                "YTogYg",
                &[("key_type", "base64"), ("format", "yaml")],
                Class::Invalid,
                "the file has no SOPS metadata",
            ),
            ("!", &[("key_type", "base64")], Class::Invalid, "the path is not URL-safe base64"),
            ("/plain.yaml", &[("encode", "x")], Class::Invalid, "option encode is neither raw nor base64"),
        ] {
            let error = source.answer(&scope, &locator(path, false, params)).await.unwrap_err();
            assert_eq!((error.class, error.reason.as_str()), (class, expected), "{path}");
        }
        let error = source.answer(&scope, &locator("/broken.yaml", false, &[])).await.unwrap_err();
        assert!(error.class == Class::Invalid && !error.reason.contains("MARKER"), "{error}");
    }
}
