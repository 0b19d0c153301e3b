//! `strongroom encrypt`: a plaintext becomes a SOPS file, with the keys of flags or of `.sops.yaml`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::commands::files::{self, Content};
use crate::commands::{Failure, assembly, input_of_sops};
use crate::config::Operator;
use crate::config::authoring::{self, Encrypt};
use crate::environment::Environment;
use crate::secret::Secret;
use crate::sops::cipher::Cipher;
use crate::sops::creation::{Config, Creation, CreationError};
use crate::sops::file::FileFormat;
use crate::sops::keys::SealedKey;
use crate::sops::keys::wrap::{Wrappers, new_data_key};
use crate::sops::open::ValueError;
use crate::sops::rules::Stated;
use crate::sops::seal::{self, Envelope, Indent, SealError};

/// How many folders up `.sops.yaml` is looked for, as sops does.
const FOLDERS_UP: usize = 100;

/// The encrypted file, or nothing where it was written.
pub(super) async fn run(
    args: &Encrypt,
    operator: &Operator,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    let stdin = args.file == Path::new("-");
    if stdin && (args.in_place || args.filename_override.is_none()) {
        let reason = "stdin has no name\nhelp: say --filename-override NAME, and not --in-place";
        return Err(Failure { code: 8, ..Failure::usage(reason) });
    }
    let name = plain_name(args.filename_override.as_ref().unwrap_or(&args.file));
    let bytes = input_of_sops(&args.file)?;
    let format = args.input_type.as_deref().and_then(FileFormat::named);
    let format =
        format.or_else(|| FileFormat::of_name(&name.to_string_lossy())).unwrap_or(FileFormat::Binary);
    let named = named_keys(&args.creation)?;
    let wrappers = assembly::wrappers(operator, environment, &named)?;
    let sealed = sealed(bytes.expose(), &name, format, envelope(&name, &args.creation, named)?, &wrappers);
    let sealed = sealed.await?;
    let path = if args.in_place { Some(&args.file) } else { args.output.as_ref() };
    files::give(sealed, path, Content::Ciphertext)
}

/// Seals `bytes`, the content of the file `name`, with a new data key.
async fn sealed(
    bytes: &[u8],
    name: &Path,
    format: FileFormat,
    envelope: Envelope,
    wrappers: &Wrappers,
) -> Result<Secret<Vec<u8>>, Failure> {
    let doing = || format!("encrypt {}", name.display());
    // What cannot be encrypted is told before any key service is asked.
    let data_key = new_data_key().map_err(|error| Failure::of(doing(), &error))?;
    let cipher = Cipher::new(&data_key).map_err(|error| Failure::of(doing(), &SealError::from(error)))?;
    seal::seal(bytes, format, &cipher, &stand_in(&envelope)).map_err(|error| refused(&doing(), &error))?;
    let groups = wrappers.seal(&envelope.groups, envelope.threshold, &data_key).await;
    let envelope = Envelope { groups: groups.map_err(|error| Failure::of(doing(), &error))?, ..envelope };
    seal::seal(bytes, format, &cipher, &envelope).map_err(|error| refused(&doing(), &error))
}

/// The same with a key that nobody is asked about.
fn stand_in(envelope: &Envelope) -> Envelope {
    let key = SealedKey::Age { recipient: "-".to_owned(), enc: "-".to_owned() };
    Envelope { groups: vec![vec![key]], ..envelope.clone() }
}

/// With the exit code of `sops encrypt`.
pub(super) fn refused(doing: &str, error: &SealError) -> Failure {
    let code = match error {
        SealError::Encrypted => 203,
        SealError::Empty => 92,
        SealError::Parse(_)
        | SealError::Flat(_)
        | SealError::Root { .. }
        | SealError::Value { reason: ValueError::Duplicate, .. } => 2,
        SealError::Value { .. } | SealError::CommentRule | SealError::UncertainComment { .. } => 23,
        _ => return Failure::of(doing, error),
    };
    Failure { code, ..Failure::of(doing, error) }
}

/// With `.dec` of helm-secrets taken from its end.
fn plain_name(path: &Path) -> PathBuf {
    match path.to_str().and_then(|name| name.strip_suffix(".dec")).filter(|name| !name.ends_with('/')) {
        Some(name) if !name.is_empty() => PathBuf::from(name),
        _ => path.to_owned(),
    }
}

/// What flags say of the file `name`, where they have `named` keys too, and else the rule of `.sops.yaml`.
pub(super) fn envelope(
    name: &Path,
    args: &authoring::Creation,
    named: Vec<SealedKey>,
) -> Result<Envelope, Failure> {
    let said = stated(args);
    let context = args.keys.context().map_err(|error| Failure::of("encrypt", &error))?;
    let (rule, indent) = match (rule_of(name, args.config.as_ref(), context), named.is_empty()) {
        // What flags say suffices.
        (Err((CreationError::NoRule { .. }, _)), false) => (None, Indent::default()),
        (rule, _) => rule.map_err(unusable)?,
    };
    let rule = rule.unwrap_or_default();
    if let (Some(said), Some(also)) = (&said, &rule.rule)
        && said.field != also.field
    {
        let message = format!(
            "both `{}` of the command line and `{}` of .sops.yaml say what is encrypted",
            said.field, also.field
        );
        return Err(Failure { code: 8, ..Failure::usage(message) });
    }
    Ok(Envelope {
        groups: if named.is_empty() { rule.groups } else { vec![named] },
        threshold: args.shamir_secret_sharing_threshold.or(rule.threshold),
        rule: said.or(rule.rule),
        mac_only_encrypted: args.mac_only_encrypted || rule.mac_only_encrypted,
        indent,
        ..Envelope::default()
    })
}

fn stated(args: &authoring::Creation) -> Option<Stated> {
    let said = [
        &args.unencrypted_suffix,
        &args.encrypted_suffix,
        &args.unencrypted_regex,
        &args.encrypted_regex,
        &args.unencrypted_comment_regex,
        &args.encrypted_comment_regex,
    ];
    let mut fields = Stated::FIELDS.into_iter().zip(said);
    fields
        .find_map(|(field, text)| Some(Stated { field, text: text.clone().filter(|text| !text.is_empty())? }))
}

/// The keys of flags and variables, with the exit code of sops for a context that is none.
pub(super) fn named_keys(args: &authoring::Creation) -> Result<Vec<SealedKey>, Failure> {
    let failed = |error| Failure::of("encrypt", &error);
    args.keys.context().map_err(|error| Failure { code: 6, ..failed(error) })?;
    args.keys.named().map_err(failed)
}

/// The rule for the file `name`, where there is one.
pub(super) fn creation_of(name: &Path, config: Option<&PathBuf>) -> Result<Option<Creation>, Failure> {
    rule_of(name, config, Vec::new()).map(|(rule, _)| rule).map_err(unusable)
}

type Found = (Option<Creation>, Indent);

/// A configuration that is no use, and where it is.
type Unusable = (CreationError, PathBuf);

fn unusable((error, path): Unusable) -> Failure {
    Failure { code: 1, ..Failure::of(format!("use {}", path.display()), &error) }
}

/// How metadata is laid out, as the configuration says.
pub(super) fn indent(named: Option<&PathBuf>) -> Result<Indent, Failure> {
    Ok(config(named).map_err(unusable)?.map_or_else(Indent::default, |(_, config)| config.indent))
}

/// The configuration that is named, or the nearest, where there is one.
fn config(named: Option<&PathBuf>) -> Result<Option<(PathBuf, Config)>, Unusable> {
    let Some(path) = named.cloned().or_else(nearest_config) else { return Ok(None) };
    let text = fs::read_to_string(&path).map_err(|error| (CreationError::Read(error), path.clone()))?;
    let config = Config::parse(&text).map_err(|error| (error, path.clone()))?;
    Ok(Some((path, config)))
}

/// The rule for the file `name`, where there is a configuration. Its keys of AWS KMS get this encryption context.
fn rule_of(name: &Path, named: Option<&PathBuf>, context: Vec<(String, String)>) -> Result<Found, Unusable> {
    let Some((path, config)) = config(named)? else { return Ok(Found::default()) };
    let failed = |error| (error, path.clone());
    let config = config.with_context(context);
    let (config_path, file) = (absolute(&path), absolute(name));
    let relative = config_path.parent().and_then(|folder| file.strip_prefix(folder).ok()).unwrap_or(&file);
    let rule = config.rule_for(&relative.to_string_lossy()).map_err(failed)?;
    Ok((rule, config.indent))
}

/// As Go says it: `..` takes the folder before it away, be it a link or not.
fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        if part == Component::ParentDir {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

/// The nearest `.sops.yaml`, of this folder or one above it.
fn nearest_config() -> Option<PathBuf> {
    let here = std::path::absolute(".").ok()?;
    let folders = here.ancestors().take(FOLDERS_UP);
    let mut paths = folders.map(|folder| folder.join(".sops.yaml"));
    paths.find(|path| path.exists())
}
