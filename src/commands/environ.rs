//! `strongroom env` and `exec`: a map with its references resolved, as variables.
//!
//! A name that a shell does not take for one is refused, since what `env` prints is evaluated by a shell. So is what is
//! no text: null, a list, a map.

use std::path::Path;

use crate::commands::assembly::{self, Trust};
use crate::commands::open::{documents, scope};
use crate::commands::{Failure, input};
use crate::config::{Env, Exec};
use crate::document::Format;
use crate::document::edit::push;
use crate::document::value::Value;
use crate::environment::Environment;
use crate::process::{self, ProcessError};
use crate::render::Renderer;
use crate::secret::Secret;

/// The exit codes of shells for a program that is not there, and for one that does not start.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;

type Variables = Vec<(String, Secret<String>)>;

/// One line for each variable, quoted for a shell.
pub(super) async fn env(args: &Env, renderer: &Renderer) -> Result<Secret<Vec<u8>>, Failure> {
    let lines = lines(&variables(&args.file, renderer).await?, args.export);
    Ok(Secret::new(lines.expose().as_bytes().to_vec()))
}

/// Runs the program in the place of this process.
pub(super) async fn exec(
    args: &Exec,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    let variables = variables(&args.file, renderer).await?;
    let Some((name, arguments)) = args.command.split_first() else {
        unreachable!("clap requires a command");
    };
    let program = assembly::executable(Path::new(name), Trust::Person, environment)?;
    if program.components().count() < 2 {
        return Err(not_run(&ProcessError::NotFound { program }));
    }
    Err(not_run(&process::replace(&program, arguments, &variables, args.inherit_env)))
}

fn not_run(error: &ProcessError) -> Failure {
    let code = if matches!(error, ProcessError::NotFound { .. }) { NOT_FOUND } else { NOT_STARTED };
    Failure { code, ..Failure::of("run the program", error) }
}

async fn variables(file: &Path, renderer: &Renderer) -> Result<Variables, Failure> {
    let (name, format) = (file.display().to_string(), Format::of_name(&file.display().to_string()));
    let (bytes, scope) = (input(file)?, scope(file, renderer)?);
    let mut values = renderer.opener.open_text(&name, &bytes, format, &scope).await?;
    renderer.opener.resolve_each(std::slice::from_mut(&mut values), &scope).await?;
    of_documents(documents(&name, &values.text, format)?)
}

fn of_documents(mut documents: Vec<Value>) -> Result<Variables, Failure> {
    match (documents.pop(), documents.is_empty()) {
        (None, _) => Ok(Vec::new()),
        (Some(Value::Mapping(entries)), true) => entries.into_iter().map(variable).collect(),
        (Some(_), true) => Err(Failure::usage("variables are a map of names to values")),
        (Some(_), false) => Err(Failure::usage("variables are one document")),
    }
}

fn variable((name, value): (String, Value)) -> Result<(String, Secret<String>), Failure> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.bytes().all(is_of_name)
    {
        return Err(Failure::usage(format!(
            "{name:?} is no name of a variable\nhelp: it has letters, digits and _, and no digit first"
        )));
    }
    match value {
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
            Err(Failure::usage(format!("variable {name} is {}, not text", value.kind())))
        }
        value if value.to_text().expose().contains('\0') => {
            Err(Failure::usage(format!("variable {name} holds a NUL character")))
        }
        value => Ok((name, value.to_text())),
    }
}

fn lines(variables: &Variables, export: bool) -> Secret<String> {
    let mut lines = Secret::default();
    for (name, value) in variables {
        for piece in [if export { "export " } else { "" }, name, "=", quoted(value).expose(), "\n"] {
            push(&mut lines, piece);
        }
    }
    lines
}

/// What every shell of POSIX reads as `text`.
fn quoted(text: &Secret<String>) -> Secret<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte);
    let text = text.expose();
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Secret::new(text.clone());
    }
    let mut quoted = Secret::new("'".to_owned());
    for (index, piece) in text.split('\'').enumerate() {
        push(&mut quoted, if index > 0 { "'\\''" } else { "" });
        push(&mut quoted, piece);
    }
    push(&mut quoted, "'");
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str, export: bool) -> Result<String, String> {
        let documents = documents("v", &Secret::new(text.to_owned()), Format::Yaml).unwrap();
        let lines = of_documents(documents).map(|variables| lines(&variables, export));
        lines.map(|lines| lines.expose().clone()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn variables_are_quoted_for_a_shell_in_their_order() {
        let text = "zz: \"it's $x\"\naa: x/y\nn: 1\nt: true\nempty: ''\nlines: \"a\\nb\"\n";
        let expected = "zz='it'\\''s $x'\naa=x/y\nn=1\nt=true\nempty=''\nlines='a\nb'\n";
        assert_eq!(printed(text, false), Ok(expected.to_owned()));
        assert_eq!(printed("a: b\n", true), Ok("export a=b\n".to_owned()));
        assert_eq!(printed("", true), Ok(String::new()));
    }

    #[test]
    fn what_no_shell_takes_for_a_variable_is_refused() {
        for (text, expected) in [
            (
                "a;b: STRONGROOM-MARKER",
                "\"a;b\" is no name of a variable\nhelp: it has letters, digits and _, and no digit first",
            ),
            (
                "1a: STRONGROOM-MARKER",
                "\"1a\" is no name of a variable\nhelp: it has letters, digits and _, and no digit first",
            ),
            ("a: [STRONGROOM-MARKER]", "variable a is a list, not text"),
            ("a: {b: STRONGROOM-MARKER}", "variable a is a map, not text"),
            ("a:", "variable a is null, not text"),
            ("a: \"STRONGROOM-MARKER\\0\"", "variable a holds a NUL character"),
            ("[STRONGROOM-MARKER]", "variables are a map of names to values"),
            ("a: b\n---\na: STRONGROOM-MARKER", "variables are one document"),
        ] {
            assert_eq!(printed(text, false), Err(expected.to_owned()));
        }
    }
}
