//! `strongroom decrypt`, `resolve` and `get`: what a file or a reference opens to.

use std::path::Path;

use crate::commands::files::{self, Content};
use crate::commands::{Failure, directory, input, input_of_sops};
use crate::config::{Decrypt, Get, Resolve, ResolvedForm};
use crate::document::edit::push;
use crate::document::value::Value;
use crate::document::{self, Format};
use crate::fault::Fault;
use crate::policy::Who;
use crate::refs::grammar::Expression;
use crate::render::values::Resolved;
use crate::render::{Renderer, manifests, repository};
use crate::scope::Scope;
use crate::secret::Secret;
use crate::sops;
use crate::sops::extract::{ExtractError, extract};
use crate::sops::file::FileFormat;
use crate::sops::open::{SopsError, ValueError};
use crate::sops::path::TreePath;

/// The whole file, opened, or nothing where it was written.
pub(super) async fn decrypt(args: &Decrypt, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let name = args.file.display().to_string();
    if args.in_place && name == "-" {
        return Err(Failure { code: 8, ..Failure::usage("stdin has no place\nhelp: say --output FILE") });
    }
    let path = args.extract.as_deref().map(TreePath::parse).transpose();
    let path = path.map_err(|error| Failure { code: 91, ..Failure::of("read --extract", &error) })?;
    let bytes = input_of_sops(&args.file)?;
    let text =
        document::text_of(bytes.expose()).map_err(|error| Failure::of(format!("decrypt {name}"), &error))?;
    let format = format_of(args.input_type.as_deref(), &name, text);
    let (keyring, scope) = (&renderer.opener.keyring, scope(&args.file, renderer)?.of_file(&name));
    let opened = sops::file::open(text, format, keyring, &scope, renderer.opener.sops).await;
    let opened = opened.map_err(|error| unopened(format!("decrypt {name}"), &error))?;
    let content = match &path {
        Some(path) => extract(&opened, format, path).map_err(|error| {
            let failure = Failure::of(format!("extract from {name}"), &error);
            let code = if matches!(error, ExtractError::Section { .. }) { 4 } else { failure.code };
            Failure { code, ..failure }
        })?,
        None => opened.content,
    };
    let path = if args.in_place { Some(&args.file) } else { args.output.as_ref() };
    files::give(content, path, Content::Plaintext)
}

/// What a file is that sops has written.
pub(super) fn format_of(named: Option<&str>, name: &str, text: &str) -> FileFormat {
    let format = named.and_then(FileFormat::named).or_else(|| FileFormat::of_name(name));
    format.or_else(|| FileFormat::of_file(name, text)).unwrap_or(FileFormat::Document(Format::Yaml))
}

/// With the exit code of `sops decrypt`.
pub(super) fn unopened(doing: String, error: &SopsError) -> Failure {
    let failure = Failure::of(doing, error);
    Failure { code: code_of_sops(error).unwrap_or(failure.code), ..failure }
}

/// The exit code of `sops decrypt`, for scripts that know it, where it is not the usual one.
fn code_of_sops(error: &SopsError) -> Option<u8> {
    match error {
        SopsError::Keyring(_) => Some(128),
        SopsError::NoMac | SopsError::MacMismatch | SopsError::MacUnreadable(_) => Some(51),
        SopsError::Value { reason: ValueError::Duplicate, .. } => None,
        SopsError::Value { .. } => Some(25),
        SopsError::Newer { source, .. } => code_of_sops(source),
        _ => None,
    }
}

/// YAML or JSON with every reference replaced by its value. A SOPS file is opened first.
pub(super) async fn resolve(args: &Resolve, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let name = args.file.display().to_string();
    let bytes = input(&args.file)?;
    let scope = scope(&args.file, renderer)?;
    let format = Format::of_name(&name);
    let mut values = renderer.opener.open_text(&name, &bytes, format, &scope).await?;
    let text = if args.decode_kubernetes_secrets {
        let resolver = &renderer.opener.resolver;
        manifests::resolve(resolver, &values.text, &Resolved::default(), &scope).await?.0
    } else {
        renderer.opener.resolve_each(std::slice::from_mut(&mut values), &scope).await?;
        values.text
    };
    match args.output {
        ResolvedForm::Yaml => Ok(bytes_of(&text)),
        ResolvedForm::Json => Ok(bytes_of(&json(&name, &text, format)?)),
    }
}

/// Every document on a line of its own; one of nothing but comments has none, as in vals.
fn json(name: &str, text: &Secret<String>, format: Format) -> Result<Secret<String>, Failure> {
    let mut lines = Secret::default();
    let documents = documents(name, text, format)?;
    for value in documents.iter().filter(|value| !matches!(value, Value::Null)) {
        push(&mut lines, value.to_flow().expose());
        push(&mut lines, "\n");
    }
    Ok(lines)
}

/// The documents of a resolved text, as data.
pub(super) fn documents(name: &str, text: &Secret<String>, format: Format) -> Result<Vec<Value>, Failure> {
    let failed = |error: &dyn Fault| Failure::of(format!("read {name} once it is resolved"), error);
    let stream = document::parse(text.expose(), format).map_err(|error| failed(&error))?;
    let anchors = stream.anchors();
    let values = stream.documents.iter().map(|root| Value::of(root, &anchors));
    values.collect::<Result<_, _>>().map_err(|error| failed(&error))
}

/// The value of one expression, as text: a string raw, anything else as JSON.
pub(super) async fn get(args: &Get, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let expression = Expression::parse(&args.reference)
        .ok_or_else(|| Failure::usage("not a reference\nhelp: it has the form ref+scheme://path#/key"))?;
    let scope = scope(Path::new("-"), renderer)?;
    let values = renderer.opener.resolver.resolve(&scope, &[&expression]).await;
    match values.into_iter().next() {
        Some(Ok(value)) => Ok(bytes_of(&value.to_text())),
        Some(Err(errors)) => Err(Failure::all("resolve", &errors)),
        None => Ok(Secret::default()),
    }
}

fn bytes_of(text: &Secret<String>) -> Secret<Vec<u8>> {
    Secret::new(text.expose().as_bytes().to_vec())
}

/// Relative paths in references start beside the file, or where the person stands.
pub(super) fn scope(file: &Path, renderer: &Renderer) -> Result<Scope, Failure> {
    let beside = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let here = directory(beside)?;
    Ok(Scope {
        who: Who { app: "strongroom".to_owned(), ..Who::default() },
        repository: Some(repository::root_of(&here, None).unwrap_or_else(|| here.clone())),
        directory: Some(here),
        deadline: Some(renderer.deadline()),
        ..Scope::default()
    })
}
