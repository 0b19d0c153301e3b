//! Changing one value of a plaintext, as `sops set` and `sops unset` do.
//!
//! The text is edited and not printed again, so that order, comments and style stay. What comes out is read once more and
//! compared with the change that was asked for, before anybody gets it. Nothing here is encrypted: [`super::amend`] is.

mod document;
mod flat;
mod tree;

use super::file::FileFormat;
use super::open::SopsError;
use super::path::{Step, TreePath};
use super::seal::Indent;
use crate::document::edit::EditError;
use crate::document::value::{self, Value};
use crate::document::{ParseError, text_of};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// A plaintext that was changed.
#[derive(Debug)]
pub struct Changed {
    /// All of it.
    pub content: Secret<Vec<u8>>,
    /// Whether it says anything else than before.
    pub differs: bool,
}

impl Changed {
    fn of(text: &Secret<String>, differs: bool) -> Self {
        Self { content: Secret::new(text.expose().as_bytes().to_vec()), differs }
    }
}

/// Puts `value` where `path` leads in the first document. What is missing on the way is made, a list grows by one at most.
pub fn set(
    plaintext: &[u8],
    format: FileFormat,
    path: &TreePath,
    value: &Value,
    indent: Indent,
) -> Result<Changed, ChangeError> {
    named(path, format)?;
    match format {
        FileFormat::Document(format) => document::set(text_of(plaintext)?, format, path, value, indent),
        FileFormat::Flat(flat) => flat::set(text_of(plaintext)?, flat, path, value),
        FileFormat::Binary => match value {
            Value::String(text) => {
                let content = Secret::new(text.expose().as_bytes().to_vec());
                Ok(Changed { differs: content.expose() != plaintext, content })
            }
            _ => Err(ChangeError::NotText { path: path.to_string() }),
        },
    }
}

/// Takes out what `path` leads to in the first document.
pub fn unset(plaintext: &[u8], format: FileFormat, path: &TreePath) -> Result<Changed, ChangeError> {
    named(path, format)?;
    match format {
        FileFormat::Document(format) => document::unset(text_of(plaintext)?, format, path),
        FileFormat::Flat(flat) => flat::unset(text_of(plaintext)?, flat, path),
        FileFormat::Binary => Err(ChangeError::Binary),
    }
}

/// A binary file has one value.
fn named(path: &TreePath, format: FileFormat) -> Result<(), ChangeError> {
    match (path.steps(), format) {
        ([], _) => Err(ChangeError::Whole),
        ([Step::Key(key), ..], FileFormat::Document(_) | FileFormat::Flat(_)) if key == "sops" => {
            Err(ChangeError::Metadata)
        }
        ([Step::Key(key)], FileFormat::Binary) if key == "data" => Ok(()),
        (_, FileFormat::Binary) => Err(ChangeError::Binary),
        _ => Ok(()),
    }
}

/// A value cannot be changed. Names keys and lines, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The empty path.
    #[error("the path is empty\nhelp: write it as '[\"key\"][\"of a key\"][0]'")]
    Whole,
    /// `sops`.
    #[error("`sops` is what sops calls its metadata")]
    Metadata,
    /// The only value of a binary file.
    #[error("a binary file has one value, which is `[\"data\"]`, and cannot be without it")]
    Binary,
    /// There is nothing to take out.
    #[error("there is no `{path}`")]
    Missing {
        /// The way up to what is missing.
        path: String,
    },
    /// An index of a mapping, or a key of a list, or of a text.
    #[error("`{path}` cannot be, because what it is in is {kind}")]
    Kind {
        /// The way up to the step that does not fit.
        path: String,
        /// What it does not fit.
        kind: &'static str,
    },
    /// A mapping in dotenv, or null.
    #[error("`{path}` can only be text, a number or a boolean in this format")]
    NotText {
        /// Where it should stand.
        path: String,
    },
    /// The format has no way to write it.
    #[error("`{path}` cannot be written in this format")]
    Unwritable {
        /// Where it should stand.
        path: String,
    },
    /// What stands there is an alias, or a key in a form that is not edited.
    #[error("line {line}: `{path}` stands behind {what}\nhelp: use `strongroom edit`")]
    Form {
        /// Where.
        line: usize,
        /// The way there.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A value that is none.
    #[error(transparent)]
    Data(#[from] value::ValueError),
    /// Not dotenv, or not INI.
    #[error(transparent)]
    Flat(SopsError),
    /// A defect of ours.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A defect of ours too, found before anything was written.
    #[error("the changed text does not say what was asked for\nhelp: use `strongroom edit`")]
    Unfaithful,
}

impl Fault for ChangeError {
    fn class(&self) -> Class {
        match self {
            Self::Missing { .. } => Class::NotFound,
            Self::Edit(_) | Self::Unfaithful => Class::Internal,
            _ => Class::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Format;
    use crate::sops::flat::Flat;

    const YAML: FileFormat = FileFormat::Document(Format::Yaml);
    const JSON: FileFormat = FileFormat::Document(Format::Json);
    const DOTENV: FileFormat = FileFormat::Flat(Flat::Dotenv);
    const INI: FileFormat = FileFormat::Flat(Flat::Ini);

    type Outcome = Result<String, String>;

    fn outcome(changed: Result<Changed, ChangeError>) -> Outcome {
        let text = |changed: Changed| String::from_utf8(changed.content.expose().clone()).unwrap();
        changed.map(text).map_err(|error| error.to_string())
    }

    fn set_in(text: &str, format: FileFormat, path: &str, value: &str) -> Outcome {
        let (path, value) = (TreePath::parse(path).unwrap(), Value::parse(value).unwrap());
        outcome(set(text.as_bytes(), format, &path, &value, Indent::default()))
    }

    fn unset_in(text: &str, format: FileFormat, path: &str) -> Outcome {
        outcome(unset(text.as_bytes(), format, &TreePath::parse(path).unwrap()))
    }

    const TEXT: &str = "\
# of the file
a: \"x\" # of a
b: # of b
  # of c
  c: [1, {d: e}]
  f: |
    block

l:
- x: 1
  # of y
  y: 2
- # lone
  - p
  - q
g: &anchor !!str z
# at the end
---
a: second
";

    #[test]
    fn a_value_takes_its_place_and_everything_else_stays() {
        let table = [
            (r#"["a"]"#, "5", "a: \"x\" # of a", "a: 5 # of a"),
            (r#"["a"]"#, r#"{"k": [true]}"#, "a: \"x\" # of a", "a: # of a\n  k:\n    - true"),
            (r#"["a"]["k"]"#, "\"y\"", "a: \"x\" # of a", "a: # of a\n  k: \"y\""),
            (
                r#"["b"]"#,
                "null",
                "b: # of b\n  # of c\n  c: [1, {d: e}]\n  f: |\n    block\n",
                "b: null # of b\n",
            ),
            (r#"["b"]["c"][0]"#, "[2]", "[1, {", "[[2], {"),
            (r#"["b"]["c"][9]"#, "3", "{d: e}]", "{d: e}, 3]"),
            (r#"["b"]["c"][1]["z"]"#, "{}", "{d: e}", "{d: e, \"z\": {}}"),
            (r#"["b"]["f"]"#, "\"1\"", "f: |\n    block\n", "f: \"1\"\n"),
            (r#"["b"]["g"]["h"]"#, "1", "    block\n\n", "    block\n\n  g:\n    h: 1\n"),
            (r#"["l"][0]["y"]"#, r#""a: b""#, "y: 2", "y: \"a: b\""),
            (r#"["l"][0]["z"]"#, "3", "  y: 2\n", "  y: 2\n  z: 3\n"),
            (r#"["l"][1][1]"#, r#"{"r": 1, "s": {"t": 2}}"#, "  - q\n", "  - r: 1\n    s:\n      t: 2\n"),
            (r#"["l"][2]"#, r#"["m", "o"]"#, "  - q\n", "  - q\n- - m\n  - o\n"),
            (r#"["l"]"#, r#"["m"]"#, "- x: 1\n  # of y\n  y: 2\n- # lone\n  - p\n  - q\n", "  - m\n"),
            (r#"["g"]"#, "true", "g: &anchor !!str z", "g: true"),
            (r#"["new key"]["of: it"]"#, "1.50", "!!str z\n", "!!str z\nnew key:\n  \"of: it\": 1.5\n"),
        ];
        for (path, value, before, after) in table {
            let expected = TEXT.replacen(before, after, 1);
            assert_ne!(expected, TEXT, "{before}");
            assert_eq!(set_in(TEXT, YAML, path, value).as_ref(), Ok(&expected), "{path}");
        }
        for (text, path, expected) in [
            ("{}\n", r#"["a"]"#, "a: 1\n"),
            ("a: {}", r#"["a"]["b"]"#, "a:\n    b: 1"),
            ("a:\n", r#"["a"]"#, "a: 1\n"),
            ("a:", r#"["b"]"#, "a: \nb: 1\n"),
            ("a: [ ] # c\n", r#"["a"][0]"#, "a: # c\n    - 1\n"),
            ("", r#"["a"]"#, "a: 1\n"),
            ("# c\n", r#"["a"]"#, "# c\na: 1\n"),
            ("a:\n- 1\n-\n", r#"["a"][1]"#, "a:\n- 1\n- 1\n"),
        ] {
            assert_eq!(set_in(text, YAML, path, "1").as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn json_keeps_its_layout() {
        let lines = "{\n  \"a\": {\n    \"b\": 1\n  },\n  \"c\": []\n}\n";
        for (text, path, value, expected) in [
            (
                lines,
                r#"["a"]["d"]"#,
                r#"{"e": [1]}"#,
                lines.replace("1\n", "1,\n    \"d\": {\n      \"e\": [\n        1\n      ]\n    }\n"),
            ),
            (lines, r#"["c"][0]"#, "\"<\"", lines.replace("[]", "[\n    \"<\"\n  ]")),
            (lines, r#"["a"]"#, "null", lines.replace("{\n    \"b\": 1\n  }", "null")),
            ("{\"a\": 1}", r#"["b"]"#, "{\"c\": 2}", "{\"a\": 1, \"b\": {\"c\": 2}}".to_owned()),
            ("{}", r#"["b"]["c"]"#, "2", "{\"b\": {\"c\": 2}}".to_owned()),
        ] {
            assert_eq!(set_in(text, JSON, path, value), Ok(expected), "{path}");
        }
        for (path, expected) in [
            (r#"["a"]"#, "{\n  \"c\": []\n}\n"),
            (r#"["c"]"#, "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n"),
            (r#"["a"]["b"]"#, "{\n  \"a\": {\n    },\n  \"c\": []\n}\n"),
        ] {
            assert_eq!(unset_in(lines, JSON, path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_value_goes_with_its_lines() {
        let table = [
            (r#"["a"]"#, "a: \"x\" # of a\n", ""),
            (r#"["b"]"#, "b: # of b\n  # of c\n  c: [1, {d: e}]\n  f: |\n    block\n", ""),
            (r#"["b"]["f"]"#, "  f: |\n    block\n", ""),
            (r#"["b"]["c"][0]"#, "[1, {", "[{"),
            (r#"["b"]["c"][1]"#, "[1, {d: e}]", "[1]"),
            (r#"["b"]["c"][1]["d"]"#, "{d: e}", "{}"),
            (r#"["l"][0]"#, "- x: 1\n  # of y\n  y: 2\n", ""),
            (r#"["l"][0]["x"]"#, "- x: 1\n  # of y\n", "- # of y\n"),
            (r#"["l"][0]["y"]"#, "  y: 2\n", ""),
            (r#"["l"][1][0]"#, "  - p\n", ""),
            (r#"["l"][1]"#, "- # lone\n  - p\n  - q\n", ""),
            (r#"["g"]"#, "g: &anchor !!str z\n", ""),
        ];
        for (path, before, after) in table {
            let expected = TEXT.replacen(before, after, 1);
            assert_ne!(expected, TEXT, "{before}");
            assert_eq!(unset_in(TEXT, YAML, path).as_ref(), Ok(&expected), "{path}");
        }
        for (text, path, expected) in [
            ("a: 1\n", r#"["a"]"#, "{}\n"),
            ("a: # c\n  b: 1\n", r#"["a"]["b"]"#, "a: {} # c\n"),
            ("a:\n  - 1\n", r#"["a"][0]"#, "a: []\n"),
            ("- x: 1\n", r#"[0]["x"]"#, "- {}\n"),
            ("- - a\n  - b\n", "[0][0]", "- - b\n"),
        ] {
            assert_eq!(unset_in(text, YAML, path).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn lines_of_dotenv_and_ini_are_changed_alone() {
        let env = "# c\nA=1\nB=x\\ny\nA=2";
        let ini = "top = 1\n\n; of s\n[s]\na = 1 ; behind\nb = `p#q`\n\n[t]\nc = \"\"\"m\n[s]\nn\"\"\"\n";
        for (format, text, path, value, expected) in [
            (DOTENV, env, r#"["A"]"#, "\"p\\nq\"", env.replacen("A=1", "A=p\\nq", 1)),
            (DOTENV, env, r#"["C"]"#, "true", format!("{env}\nC=true\n")),
            (INI, ini, r#"["s"]["a"]"#, "\"x;y\"", ini.replace("a = 1", "a = `x;y`")),
            (INI, ini, r#"["s"]["d"]"#, "5", ini.replace("`p#q`\n", "`p#q`\nd = 5\n")),
            (INI, ini, r#"["DEFAULT"]["e"]"#, "5", ini.replace("top = 1\n", "top = 1\ne = 5\n")),
            (INI, ini, r#"["u"]["f"]"#, "5", format!("{ini}\n[u]\nf = 5\n")),
            (
                INI,
                ini,
                r#"["s"]"#,
                r#"{"b": 2, "g": 3}"#,
                ini.replace("a = 1 ; behind\nb = `p#q`\n", "b = 2\ng = 3\n"),
            ),
        ] {
            assert_eq!(set_in(text, format, path, value), Ok(expected), "{path}");
        }
        for (format, text, path, expected) in [
            (DOTENV, env, r#"["B"]"#, env.replace("B=x\\ny\n", "")),
            (INI, ini, r#"["s"]["b"]"#, ini.replace("b = `p#q`\n", "")),
            (INI, ini, r#"["t"]["c"]"#, ini.replace("c = \"\"\"m\n[s]\nn\"\"\"\n", "")),
            (INI, ini, r#"["s"]"#, ini.replace("[s]\na = 1 ; behind\nb = `p#q`\n", "")),
        ] {
            assert_eq!(unset_in(text, format, path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_without_showing_it() {
        let marker = "\"STRONGROOM-MARKER\"";
        for (format, text, path, message) in [
            (YAML, TEXT, "", "the path is empty"),
            (YAML, TEXT, r#"["sops"]["mac"]"#, "`sops` is what sops calls its metadata"),
            (YAML, TEXT, r#"["l"]["x"]"#, r#"`["l"]["x"]` cannot be, because what it is in is a list"#),
            (YAML, TEXT, r#"["b"][0]"#, r#"`["b"][0]` cannot be, because what it is in is a mapping"#),
            (
                YAML,
                "a: &x {k: STRONGROOM-MARKER}\nb: *x\n",
                r#"["b"]["k"]"#,
                r#"line 2: `["b"]` stands behind an alias"#,
            ),
            (YAML, "a: [STRONGROOM-MARKER", r#"["a"]"#, "line 1, "),
            (DOTENV, "A=1\n", r#"["A"]["b"]"#, r#"`["A"]["b"]` can only be text"#),
            (DOTENV, "A=1\n", r#"["A=B"]"#, r#"`["A=B"]` cannot be written"#),
            (DOTENV, "A=1\n", r#"["sops_mac"]"#, "`sops` is what sops calls its metadata"),
            (DOTENV, "A=1\n", "[0]", "`[0]` cannot be, because what it is in is a mapping"),
            (INI, "a = 1\n", r#"["s"]"#, r#"`["s"]` can only be text"#),
            (INI, "a = 1\n", "['s']['k\n']", "`[\"s\"][\"k\\n\"]` cannot be written"),
            (FileFormat::Binary, "any", r#"["x"]"#, "a binary file has one value"),
        ] {
            let error = set_in(text, format, path, marker).unwrap_err();
            assert!(error.starts_with(message) && !error.contains("MARKER"), "{path}: {error}");
        }
        for (format, text, path, message) in [
            (YAML, TEXT, r#"["z"]"#, r#"there is no `["z"]`"#),
            (YAML, TEXT, r#"["b"]["z"]["y"]"#, r#"there is no `["b"]["z"]`"#),
            (YAML, TEXT, r#"["l"][2]"#, r#"there is no `["l"][2]`"#),
            (YAML, TEXT, r#"["a"]["b"]"#, r#"`["a"]["b"]` cannot be, because what it is in is a string"#),
            (DOTENV, "A=1\n", r#"["B"]"#, r#"there is no `["B"]`"#),
            (INI, "a = 1\n", r#"["s"]"#, r#"there is no `["s"]`"#),
            (FileFormat::Binary, "any", r#"["data"]"#, "a binary file has one value"),
        ] {
            assert!(unset_in(text, format, path).unwrap_err().starts_with(message), "{path}");
        }
    }
}
