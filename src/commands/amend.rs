//! `strongroom set` and `unset`: one value of an encrypted file is changed, and everything else stays.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::commands::encrypt::{indent, refused};
use crate::commands::files::{self, Content};
use crate::commands::open::{format_of, scope, unopened};
use crate::commands::{Failure, input, input_of_sops};
use crate::config::authoring::Existing;
use crate::config::{Set, Unset};
use crate::document::value::Value;
use crate::document::{Format, parse, text_of};
use crate::fault::Fault;
use crate::render::Renderer;
use crate::secret::Secret;
use crate::sops::amend::Amendable;
use crate::sops::change::{self, ChangeError, Changed};
use crate::sops::open::OpenOptions;
use crate::sops::path::TreePath;

/// sops's exit code for a path or value that is none.
const BAD_VALUE: u8 = 7;

/// Puts a value into the file.
pub(super) async fn set(args: &Set, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let path = path_of(&args.path)?;
    let value = value_of(args)?;
    let file = open(&args.existing, renderer).await?;
    let doing = format!("set {path} of {}", args.existing.file.display());
    let changed = change::set(file.plaintext.expose(), file.format, &path, &value, file.envelope.indent);
    let changed = changed.map_err(|error| unchanged(&doing, &error))?;
    if args.idempotent && !changed.differs {
        return Ok(Secret::default());
    }
    write(&file, &changed, &args.existing.file, &doing)
}

/// Takes a value out of the file.
pub(super) async fn unset(args: &Unset, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let path = path_of(&args.path)?;
    let file = open(&args.existing, renderer).await?;
    let doing = format!("unset {path} of {}", args.existing.file.display());
    match change::unset(file.plaintext.expose(), file.format, &path) {
        Err(ChangeError::Missing { .. }) if args.idempotent => Ok(Secret::default()),
        Err(error) => Err(unchanged(&doing, &error)),
        Ok(changed) => write(&file, &changed, &args.existing.file, &doing),
    }
}

/// Opens a file that is to be changed.
pub(super) async fn open(args: &Existing, renderer: &Renderer) -> Result<Amendable, Failure> {
    open_by(args, renderer, renderer.opener.sops).await
}

/// The same, as `options` say.
pub(super) async fn open_by(
    args: &Existing,
    renderer: &Renderer,
    options: OpenOptions,
) -> Result<Amendable, Failure> {
    let name = args.file.display().to_string();
    if args.file == Path::new("-") {
        return Err(Failure { code: 100, ..Failure::usage("stdin has no place: name a file") });
    }
    let bytes = input(&args.file).map_err(|error| Failure { code: 2, ..Failure::from(error) })?;
    let indent = indent(args.config.as_ref())?;
    let text = text_of(bytes.expose()).map_err(|error| Failure::of(format!("decrypt {name}"), &error))?;
    let format = format_of(args.input_type.as_deref(), &name, text);
    let (keyring, scope) = (&renderer.opener.keyring, scope(&args.file, renderer)?.of_file(&name));
    let opened = Amendable::open(bytes, format, keyring, &scope, options, indent).await;
    opened.map_err(|error| unopened(format!("decrypt {name}"), &error))
}

fn write(
    file: &Amendable,
    changed: &Changed,
    path: &PathBuf,
    doing: &str,
) -> Result<Secret<Vec<u8>>, Failure> {
    let sealed = file.seal(changed.content.expose()).map_err(|error| refused(doing, &error))?;
    files::give(sealed, Some(path), Content::Ciphertext)
}

fn path_of(text: &str) -> Result<TreePath, Failure> {
    TreePath::parse(text).map_err(|error| bad("read the path", &error))
}

fn value_of(args: &Set) -> Result<Value, Failure> {
    let given = args.value.as_deref().unwrap_or_default();
    let bytes = if args.value_stdin {
        input_of_sops(Path::new("-"))?
    } else if args.value_file {
        input(Path::new(given))?
    } else {
        Secret::new(given.as_bytes().to_vec())
    };
    let doing = "read the value, which has to be JSON";
    let text = text_of(bytes.expose()).map_err(|error| bad(doing, &error))?;
    let stream = parse(text, Format::Json).map_err(|error| bad(doing, &error))?;
    let value = stream.documents.first().map(|root| Value::of(root, &stream.anchors()));
    value.unwrap_or(Ok(Value::Null)).map_err(|error| bad(doing, &error))
}

fn bad(doing: impl fmt::Display, error: &dyn Fault) -> Failure {
    Failure { code: BAD_VALUE, ..Failure::of(doing, error) }
}

/// With the exit code of sops.
fn unchanged(doing: &str, error: &ChangeError) -> Failure {
    let failure = Failure::of(doing, error);
    let code = match error {
        ChangeError::Metadata => 203,
        ChangeError::Whole => BAD_VALUE,
        ChangeError::NotText { .. } | ChangeError::Unwritable { .. } => 4,
        _ => failure.code,
    };
    Failure { code, ..failure }
}
