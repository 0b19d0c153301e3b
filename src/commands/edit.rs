//! `strongroom edit`: an editor changes the plaintext of a file, which is on no disk, and what changed is encrypted anew.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use crate::commands::amend::open_by;
use crate::commands::encrypt::{envelope, named_keys, refused};
use crate::commands::files::{self, Content};
use crate::commands::private::PrivateFile;
use crate::commands::terminal::ask;
use crate::commands::{Failure, assembly};
use crate::config::{Edit, Operator};
use crate::document::Format;
use crate::environment::Environment;
use crate::process;
use crate::render::Renderer;
use crate::secret::Secret;
use crate::signals;
use crate::sops::amend::Amendable;
use crate::sops::file::FileFormat;
use crate::sops::flat::Flat;
use crate::sops::open::OpenOptions;

/// sops's exit code for a file that was not changed.
const UNCHANGED: u8 = 200;
/// sops's exit code for an editor that is not there, or fails.
const NO_EDITOR: u8 = 201;
/// Looked for where no variable names one, as sops does.
const EDITORS: [&str; 3] = ["vim", "nano", "vi"];

/// Edits the file, or a new one.
pub(super) async fn run(
    args: &Edit,
    operator: &Operator,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    // So that the plaintext goes when the terminal does.
    tokio::select! {
        biased;
        signal = signals::abandonment() => Err(Failure::stopped(signal)),
        output = edit(args, operator, renderer, environment) => output,
    }
}

async fn edit(
    args: &Edit,
    operator: &Operator,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    let doing = format!("edit {}", args.file.display());
    let file = if args.file.exists() {
        let options = OpenOptions { for_people: true, ..renderer.opener.sops };
        let mut file = open_by(&args.existing(), renderer, options).await?;
        file.renew_version();
        file
    } else {
        new(args, operator, environment).await?
    };
    let private = PrivateFile::new(&args.file, &file.plaintext, environment);
    let private = private.map_err(|error| Failure { code: 3, ..Failure::of(&doing, &error) })?;
    let (editor, mut arguments) = editor(environment)?;
    arguments.push(private.path().into());
    loop {
        let failed = |reason: String| Failure::new(format!("failed to {doing}: {reason}"), NO_EDITOR);
        match process::attend(&editor, &arguments).await {
            Ok(0) => {}
            Ok(code) => return Err(failed(format!("{} ended with exit code {code}", editor.display()))),
            Err(error) => return Err(failed(error.to_string())),
        }
        let edited = private.read().map_err(|error| Failure { code: 2, ..Failure::of(&doing, &error) })?;
        if edited == file.plaintext {
            let message = format!("{} was not changed", args.file.display());
            return Err(Failure::new(message, UNCHANGED));
        }
        let failure = match file.seal(edited.expose()) {
            Ok(sealed) => return files::give(sealed, Some(&args.file), Content::Ciphertext),
            Err(error) => refused(&doing, &error),
        };
        if !io::stdin().is_terminal() {
            return Err(failure);
        }
        let question = format!(
            "strongroom: {failure}\nPress enter to edit it again, or Ctrl+C to leave the file as it was. "
        );
        ask(&question).await.ok_or(failure)?;
    }
}

/// A file that is not there yet, with the keys of flags or of the rule of its name.
async fn new(args: &Edit, operator: &Operator, environment: &Environment) -> Result<Amendable, Failure> {
    let named = args.input_type.as_deref().and_then(FileFormat::named);
    let format = named.or_else(|| FileFormat::of_name(&args.file.to_string_lossy()));
    let format = format.unwrap_or(FileFormat::Binary);
    let named = named_keys(&args.creation)?;
    let wrappers = assembly::wrappers(operator, environment, &named)?;
    let envelope = envelope(&args.file, &args.creation, named)?;
    let made = Amendable::new(example(format), format, envelope, &wrappers).await;
    made.map_err(|error| Failure::of(format!("edit {}", args.file.display()), &error))
}

/// What a new file begins with: the same as sops's.
const fn example(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Document(Format::Yaml) => {
            "hello: Welcome to SOPS! Edit this file as you please!\nexample_key: example_value\n# Example comment\n\
             example_array:\n    - example_value1\n    - example_value2\nexample_number: 1234.56789\n\
             example_booleans:\n    - true\n    - false\n"
        }
        FileFormat::Document(Format::Json) => {
            "{\n\t\"hello\": \"Welcome to SOPS! Edit this file as you please!\",\n\t\"example_key\": \"example_value\",\n\
             \t\"example_array\": [\n\t\t\"example_value1\",\n\t\t\"example_value2\"\n\t],\n\
             \t\"example_number\": 1234.56789,\n\t\"example_booleans\": [\n\t\ttrue,\n\t\tfalse\n\t]\n}\n"
        }
        FileFormat::Flat(Flat::Dotenv) => {
            "# This is an example file.\nhello=Welcome to SOPS! Edit this file as you please!\n\
             example_key=example_value\nexample_multiline=foo\\nbar\\nbaz\n"
        }
        FileFormat::Flat(Flat::Ini) => {
            "; This is an example file.\n[Welcome!]\nhello       = Welcome to SOPS! Edit this file as you please!\n\
             example_key = example_value\n"
        }
        FileFormat::Binary => "Welcome to SOPS! Edit this file as you please!",
    }
}

/// The editor and its arguments.
fn editor(environment: &Environment) -> Result<(PathBuf, Vec<OsString>), Failure> {
    for variable in ["SOPS_EDITOR", "EDITOR"] {
        let Some(said) = environment.get(variable) else { continue };
        let mut words = words(said).unwrap_or_default().into_iter();
        let Some(program) = words.next() else {
            return Err(Failure::new(format!("{variable} names no program"), NO_EDITOR));
        };
        return Ok((program.into(), words.map(OsString::from).collect()));
    }
    let path = environment.get("PATH").unwrap_or_default();
    let mut places =
        EDITORS.iter().flat_map(|name| std::env::split_paths(path).map(move |folder| folder.join(name)));
    let found = places.find(|place| place.is_file());
    let none = || {
        let message = format!(
            "no editor is there\nhelp: name one in SOPS_EDITOR or EDITOR, or install {}",
            EDITORS.join(", ")
        );
        Failure::new(message, NO_EDITOR)
    };
    Ok((found.ok_or_else(none)?, Vec::new()))
}

/// The words of a command line as a shell splits it; `None` where a quote is open.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_it() {
        for (line, expected) in [
            ("vim", &["vim"][..]),
            (" code  --wait ", &["code", "--wait"]),
            (r#"sh -c 'a "b"' "c 'd' \"e" f\ g ''"#, &["sh", "-c", "a \"b\"", "c 'd' \"e", "f g", ""]),
            ("", &[]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert_eq!((words("a 'b"), words("a\\")), (None, None));
    }

    #[test]
    fn the_variable_of_sops_comes_first_and_what_is_there_last() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vi"), "").unwrap();
        let path = folder.path().to_str().unwrap();
        let found = |variables: &[(&str, &str)]| {
            let environment = [("PATH", path)].into_iter().chain(variables.iter().copied()).collect();
            editor(&environment)
                .map(|(program, _)| program.file_name().unwrap().to_owned())
                .map_err(|failure| failure.code)
        };
        assert_eq!(found(&[("EDITOR", "b"), ("SOPS_EDITOR", "a -x")]), Ok("a".into()));
        assert_eq!(found(&[("EDITOR", "b")]), Ok("b".into()));
        assert_eq!(found(&[]), Ok("vi".into()));
        assert_eq!(found(&[("EDITOR", "'")]), Err(NO_EDITOR));
        assert_eq!(found(&[("PATH", "/nonexistent")]), Err(NO_EDITOR));
    }
}
