//! What an application directory holds: a Helm chart, or plain manifests.
//!
//! A chart comes from a repository and is read by helm, which follows symlinks and references of JSON schemas wherever
//! they lead. So [`Chart::confine`] walks it first, packed subcharts included, and refuses links out of the repository,
//! files that are none, and schemas that point at local files or plain HTTP. Dependencies must be vendored in `charts/`.

pub mod fingerprint;
pub mod subcharts;

use std::cell::Cell;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::confine::{self, ConfineError};
use crate::document::{self, Format, ParseError};
use crate::fault::{Class, Fault};

const MANIFEST: &str = "Chart.yaml";
const MANIFEST_LIMIT: u64 = 1 << 20;
const SCHEMA: &str = "values.schema.json";
const ARCHIVE: &str = ".tgz";
const SCHEMA_LIMIT: u64 = 16 << 20;
/// All packed subcharts together may unpack to this many bytes; helm has the same bound for one.
const ARCHIVE_LIMIT: usize = 100 << 20;
/// Packed charts in packed charts.
const ARCHIVE_DEPTH: usize = 5;
/// More files than any chart holds; a walk ends in well under a second.
const MOST_ENTRIES: usize = 200_000;

/// What an application directory holds.
#[derive(Debug)]
pub enum Contents {
    /// A chart for helm.
    Chart(Chart),
    /// Kubernetes manifests, sorted by name.
    Manifests(Vec<PathBuf>),
}

/// A chart directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chart {
    /// Where it is, inside the repository.
    pub directory: PathBuf,
    /// `name`.
    pub name: String,
    /// `version`.
    pub version: String,
}

/// The directory cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Neither a chart nor manifests.
    #[error("{directory} has no {MANIFEST}{hint}")]
    NoChart {
        /// As the reader knows it.
        directory: String,
        /// More lines.
        hint: String,
    },
    /// Helm needs it to be YAML.
    #[error("{directory}/{MANIFEST}")]
    Syntax {
        /// As the reader knows it.
        directory: String,
        /// Place and reason.
        #[source]
        source: ParseError,
    },
    /// A field is missing or wrong.
    #[error("{directory}/{MANIFEST}: {problem}")]
    Manifest {
        /// As the reader knows it.
        directory: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A path in the chart leads where it must not.
    #[error("the chart cannot be used")]
    Confine(#[from] ConfineError),
    /// A link to a directory that contains the link.
    #[error("{path}: this symlink leads to a directory above itself")]
    Cycle {
        /// In the repository.
        path: String,
    },
    /// Too many files.
    #[error(
        "{directory} holds more than {MOST_ENTRIES} files\nhelp: point the application at the chart itself"
    )]
    TooMany {
        /// As the reader knows it.
        directory: String,
    },
    /// A schema would make helm read something else.
    #[error(
        "{path}: {reference:?} leads out of the chart\nhelp: copy what it refers to into $defs of this schema and write \
         #/$defs/…, or set skipSchemaValidation; an https URL works where helm has a network, which it has not under `serve`"
    )]
    Schema {
        /// The schema.
        path: String,
        /// The reference.
        reference: String,
    },
    /// Helm would not read it either, or what it reads cannot be known.
    #[error("{path}: not JSON that can be checked: line {line}, column {column}")]
    SchemaSyntax {
        /// The schema.
        path: String,
        /// Line.
        line: usize,
        /// Column of the line.
        column: usize,
    },
    /// A packed subchart that is broken, or larger than helm takes.
    #[error("{path}: not a chart archive that can be checked")]
    Archive {
        /// The archive.
        path: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("read {path}")]
    Io {
        /// In the repository.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Fault for ChartError {
    fn class(&self) -> Class {
        match self {
            Self::NoChart { .. } => Class::NotFound,
            Self::Confine(error) => error.class(),
            Self::Io { .. } => Class::Internal,
            _ => Class::Invalid,
        }
    }
}

/// Says what `directory` holds; both it and `root`, the repository, are absolute and without symlinks.
pub fn classify(root: &Path, directory: &Path) -> Result<Contents, ChartError> {
    let manifest = directory.join(MANIFEST);
    if fs::symlink_metadata(&manifest).is_ok() {
        return Chart::read(root, directory).map(Contents::Chart);
    }
    let mut names = names(root, directory)?;
    names.retain(|name| !name.starts_with('.'));
    let misspelled =
        names.iter().find(|name| ["chart.yaml", "chart.yml"].contains(&&*name.to_lowercase())).cloned();
    let hint = match &misspelled {
        Some(name) => format!("\nhelp: rename {name} to {MANIFEST}"),
        None => "\nhelp: the path must be a chart, or a directory of manifests (*.yaml, *.json)".to_owned(),
    };
    let like_chart = ["templates", "values.yaml"].iter().any(|part| names.iter().any(|name| name == part));
    names.retain(|name| [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)));
    if like_chart || misspelled.is_some() || names.is_empty() {
        return Err(ChartError::NoChart { directory: shown(root, directory), hint });
    }
    let paths: Result<_, ConfineError> =
        names.iter().map(|name| confine::resolve(root, directory, name)).collect();
    Ok(Contents::Manifests(paths?))
}

impl Chart {
    fn read(root: &Path, directory: &Path) -> Result<Self, ChartError> {
        let manifest = confine::resolve(root, directory, MANIFEST)?;
        let bytes = confine::read(&manifest, MANIFEST, MANIFEST_LIMIT)?;
        let syntax = |source| ChartError::Syntax { directory: shown(root, directory), source };
        let text = document::text_of(bytes.expose()).map_err(syntax)?;
        let stream = document::parse(text, Format::Yaml).map_err(syntax)?;
        let wrong = |problem| ChartError::Manifest { directory: shown(root, directory), problem };
        let fields = stream.documents.first().filter(|fields| !fields.entries().is_empty());
        let fields = fields.ok_or_else(|| wrong("must be a mapping with apiVersion, name and version"))?;
        let field = |name| fields.at(name).and_then(document::Node::text).filter(|text| !text.is_empty());
        if field("apiVersion").is_none() {
            return Err(wrong("apiVersion is missing"));
        }
        if field("type") == Some("library") {
            return Err(wrong("a library chart renders nothing of its own"));
        }
        let name = field("name").ok_or_else(|| wrong("name is missing"))?.to_owned();
        let version = field("version").ok_or_else(|| wrong("version is missing"))?.to_owned();
        Ok(Self { directory: directory.to_owned(), name, version })
    }

    /// Makes sure that helm, reading this chart, reads nothing outside of `root`.
    pub fn confine(&self, root: &Path) -> Result<(), ChartError> {
        // Bytes that packed subcharts may still unpack to.
        let unpacked = Cell::new(ARCHIVE_LIMIT);
        Walk::through(root, &self.directory, |file| {
            if file.name() == SCHEMA {
                check_schema(file.open()?, &file.spelled)
            } else if file.name().ends_with(ARCHIVE) {
                check_archive(&mut file.open()?, &file.spelled, &unpacked, ARCHIVE_DEPTH)
            } else {
                Ok(())
            }
        })
    }
}

/// A file of a chart.
struct ChartFile {
    /// Its path in the chart, as helm sees it.
    inside: String,
    /// As messages call it.
    spelled: String,
    /// Without symlinks.
    path: PathBuf,
}

impl ChartFile {
    fn name(&self) -> &str {
        self.inside.rsplit('/').next().unwrap_or_default()
    }

    fn open(&self) -> Result<BufReader<fs::File>, ChartError> {
        let io = |source| ChartError::Io { path: self.spelled.clone(), source };
        fs::File::open(&self.path).map(BufReader::new).map_err(io)
    }
}

/// A walk through a chart as helm walks it, through symlinks too, in the order of names.
struct Walk<'a, F> {
    root: &'a Path,
    top: &'a Path,
    /// The directories that this place is in, resolved.
    open: Vec<PathBuf>,
    left: usize,
    visit: F,
}

impl<'a, F: FnMut(&ChartFile) -> Result<(), ChartError>> Walk<'a, F> {
    fn through(root: &'a Path, top: &'a Path, visit: F) -> Result<(), ChartError> {
        Walk { root, top, open: Vec::new(), left: MOST_ENTRIES, visit }.directory(top, "")
    }

    /// `inside` is where it is in the chart: empty, or a path that ends in `/`.
    fn directory(&mut self, directory: &Path, inside: &str) -> Result<(), ChartError> {
        if self.open.iter().any(|above| above == directory) {
            return Err(ChartError::Cycle { path: shown(self.root, directory) });
        }
        self.open.push(directory.to_owned());
        for name in names(self.root, directory)? {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| ChartError::TooMany { directory: shown(self.root, self.top) })?;
            self.entry(directory, &name, inside)?;
        }
        self.open.pop();
        Ok(())
    }

    fn entry(&mut self, directory: &Path, name: &str, inside: &str) -> Result<(), ChartError> {
        let path = directory.join(name);
        let spelled = shown(self.root, &path);
        let io = |source| ChartError::Io { path: spelled.clone(), source };
        let mut kind = fs::symlink_metadata(&path).map_err(io)?.file_type();
        let mut target = path;
        if !kind.is_file() && !kind.is_dir() {
            // Resolves a link, and refuses what is no file even when nothing links to it.
            target = confine::resolve(self.root, self.root, &spelled)?;
            kind = fs::symlink_metadata(&target).map_err(io)?.file_type();
        }
        let inside = format!("{inside}{name}");
        if kind.is_dir() {
            return self.directory(&target, &format!("{inside}/"));
        }
        (self.visit)(&ChartFile { inside, spelled, path: target })
    }
}

/// The names in a directory, sorted. A name that is not UTF-8, or that would not be one line in a message, is refused.
fn names(root: &Path, directory: &Path) -> Result<Vec<String>, ChartError> {
    let io = |source| ChartError::Io { path: shown(root, directory), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.into_string().map_err(|_| io(io::Error::other("a file name is not UTF-8")))?;
        if name.contains(char::is_control) {
            return Err(io(io::Error::other(format!("the file name {name:?} holds a control character"))));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

fn shown(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path).display().to_string();
    if inside.is_empty() { ".".to_owned() } else { inside }
}

/// Checks the schemas in a packed chart, and in the packed charts inside of it.
fn check_archive(
    packed: &mut dyn io::BufRead,
    spelled: &str,
    left: &Cell<usize>,
    depth: usize,
) -> Result<(), ChartError> {
    let broken = |source| ChartError::Archive { path: spelled.to_owned(), source };
    if depth == 0 {
        return Err(broken(io::Error::other("charts packed in charts too deeply")));
    }
    let mut archive = tar::Archive::new(Metered { inner: MultiGzDecoder::new(packed), left });
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let spelled = format!("{spelled}: {}", path.display());
        if name == SCHEMA {
            check_schema(entry, &spelled)?;
        } else if name.ends_with(ARCHIVE) {
            check_archive(&mut BufReader::new(entry), &spelled, left, depth - 1)?;
        }
    }
    Ok(())
}

/// Reads no more than is left of a budget that several readers share.
struct Metered<'a, R> {
    inner: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(count);
        self.left.set(left.ok_or_else(|| io::Error::other("it unpacks to more than 100 MiB"))?);
        Ok(count)
    }
}

/// Helm loads what a schema refers to, from files and over the network.
fn check_schema(schema: impl Read, spelled: &str) -> Result<(), ChartError> {
    let path = || spelled.to_owned();
    let mut bytes = Vec::new();
    let read = schema.take(SCHEMA_LIMIT).read_to_end(&mut bytes);
    read.map_err(|source| ChartError::Io { path: path(), source })?;
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let schema: serde_json::Value = serde_json::from_slice(json).map_err(|error| {
        ChartError::SchemaSyntax { path: path(), line: error.line(), column: error.column() }
    })?;
    let remote = schema["$id"].as_str().is_some_and(|id| id.starts_with("https://"));
    match leading_out(&schema, remote) {
        Some(reference) => {
            Err(ChartError::Schema { path: path(), reference: reference.chars().take(200).collect() })
        }
        None => Ok(()),
    }
}

/// The first reference in `schema` that leads to a local file or over plain HTTP. Under a `remote` base, relative
/// references are remote too.
fn leading_out(schema: &serde_json::Value, remote: bool) -> Option<&str> {
    match schema {
        serde_json::Value::Array(items) => items.iter().find_map(|item| leading_out(item, remote)),
        serde_json::Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let text = value.as_str().filter(|text| !harmless(name, text, remote));
            text.or_else(|| leading_out(value, remote))
        }),
        _ => None,
    }
}

fn harmless(keyword: &str, text: &str, remote: bool) -> bool {
    let has_scheme = text.split(['/', '?', '#']).next().is_some_and(|start| start.contains(':'));
    match keyword {
        "$ref" | "$dynamicRef" | "$recursiveRef" => {
            text.starts_with('#') || text.starts_with("https://") || (remote && !has_scheme)
        }
        "$id" | "id" => {
            !has_scheme || ["https:", "http:", "urn:"].iter().any(|scheme| text.starts_with(scheme))
        }
        "$schema" => {
            text.starts_with("https://") || text.trim_end_matches('#').starts_with("http://json-schema.org/")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const GOOD: &str = "apiVersion: v2\nname: hello\nversion: 1.2.3\n";

    /// A repository with `files`; the chart is in `app`.
    fn repository(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let root = directory.path().canonicalize().unwrap().join("repo");
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (directory, root)
    }

    fn classified(files: &[(&str, &str)]) -> Result<Contents, ChartError> {
        let (_directory, root) = repository(files);
        classify(&root, &root.join("app"))
    }

    fn confined(root: &Path) -> Result<(), String> {
        let Contents::Chart(chart) = classify(root, &root.join("app")).unwrap() else { panic!("no chart") };
        chart.confine(root).map_err(|error| crate::fault::report(&error))
    }

    #[test]
    fn a_chart_is_recognised() {
        let Contents::Chart(chart) = classified(&[("app/Chart.yaml", GOOD)]).unwrap() else {
            panic!("no chart")
        };
        assert_eq!((chart.name.as_str(), chart.version.as_str()), ("hello", "1.2.3"));
    }

    #[test]
    fn manifests_are_sorted_and_hidden_files_left_out() {
        let files = [
            ("app/b.yaml", ""),
            ("app/a.json", ""),
            ("app/.sops.yaml", ""),
            ("app/c.txt", ""),
            ("app/d/e.yaml", ""),
        ];
        let Contents::Manifests(paths) = classified(&files).unwrap() else { panic!("a chart") };
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.json", "b.yaml"]);
    }

    #[test]
    fn a_directory_that_cannot_be_rendered_says_why() {
        for (files, expected) in [
            (&[("app/README.md", "")][..], "app has no Chart.yaml"),
            (&[("app/values.yaml", "a: 1")], "app has no Chart.yaml"),
            (&[("app/templates/a.yaml", "")], "app has no Chart.yaml"),
            (&[("app/chart.yml", GOOD)], "app has no Chart.yaml\nhelp: rename chart.yml to Chart.yaml"),
            (&[("app/Chart.yaml", "a: [")], "app/Chart.yaml: "),
            (
                &[("app/Chart.yaml", "- a")],
                "app/Chart.yaml: must be a mapping with apiVersion, name and version",
            ),
            (
                &[("app/Chart.yaml", "")],
                "app/Chart.yaml: must be a mapping with apiVersion, name and version",
            ),
            (&[("app/Chart.yaml", "name: a\nversion: 1.0.0")], "app/Chart.yaml: apiVersion is missing"),
            (&[("app/Chart.yaml", "apiVersion: v2\nversion: 1.0.0")], "app/Chart.yaml: name is missing"),
            (&[("app/Chart.yaml", "apiVersion: v2\nname: a")], "app/Chart.yaml: version is missing"),
            (
                &[("app/Chart.yaml", "apiVersion: v2\nname: a\ntype: library")],
                "app/Chart.yaml: a library chart renders nothing of its own",
            ),
        ] {
            let report = crate::fault::report(&classified(files).unwrap_err());
            assert!(report.starts_with(expected), "{report}");
        }
    }

    #[test]
    fn links_inside_the_repository_are_followed() {
        let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("shared/templates/a.yaml", "")]);
        symlink("../shared/templates", root.join("app/templates")).unwrap();
        symlink(root.join("shared/templates/a.yaml"), root.join("app/NOTES.txt")).unwrap();
        assert_eq!(confined(&root), Ok(()));
    }

    #[test]
    fn links_out_of_the_repository_are_refused() {
        let (directory, root) = repository(&[("app/Chart.yaml", GOOD), ("app/templates/a.yaml", "")]);
        fs::write(directory.path().join("secret"), "STRONGROOM-MARKER").unwrap();
        symlink("../../../secret", root.join("app/templates/b.yaml")).unwrap();
        let report = confined(&root).unwrap_err();
        assert!(
            report.starts_with("the chart cannot be used: app/templates/b.yaml: leads outside"),
            "{report}"
        );
        assert!(!report.contains("MARKER"));
    }

    #[test]
    fn links_behind_a_link_are_checked_too() {
        let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("shared/a.yaml", "")]);
        symlink("../shared", root.join("app/templates")).unwrap();
        symlink("/etc/passwd", root.join("shared/b.yaml")).unwrap();
        let report = confined(&root).unwrap_err();
        assert!(report.contains("shared/b.yaml: "), "{report}");
    }

    #[test]
    fn cycles_and_special_files_are_refused() {
        let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("app/templates/a.yaml", "")]);
        symlink("..", root.join("app/templates/up")).unwrap();
        assert_eq!(confined(&root).unwrap_err(), "app: this symlink leads to a directory above itself");
        fs::remove_file(root.join("app/templates/up")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("app/s")).unwrap();
        let report = confined(&root).unwrap_err();
        assert_eq!(report, "the chart cannot be used: app/s: neither a regular file nor a directory");
    }

    pub(super) fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn schemas_in_packed_subcharts_are_checked() {
        let inner = packed(&[("b/values.schema.json", br#"{"$ref": "file:///etc/passwd"}"#)]);
        for (files, expected) in [
            (&[("a/Chart.yaml", GOOD.as_bytes()), ("a/values.schema.json", b"{}")][..], None),
            (
                &[("a/charts/b.tgz", &inner)],
                Some("a.tgz: a/charts/b.tgz: b/values.schema.json: \"file:///etc/passwd\""),
            ),
            (&[("a/charts/b.tgz", b"no archive")], Some("a.tgz: a/charts/b.tgz: not a chart archive")),
            (&[("a/values.schema.json", b"{")], Some("a.tgz: a/values.schema.json: not JSON")),
        ] {
            let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("app/charts/a.txt", "")]);
            fs::write(root.join("app/charts/a.tgz"), packed(files)).unwrap();
            let report = confined(&root);
            match expected {
                None => assert_eq!(report, Ok(())),
                Some(expected) => {
                    assert!(report.as_ref().is_err_and(|text| text.contains(expected)), "{report:?}");
                }
            }
        }
    }

    #[test]
    fn an_archive_that_unpacks_without_end_is_refused() {
        let bomb = packed(&[("a/values.yaml", &vec![b'#'; 90 << 20])]);
        let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("app/charts/a.txt", "")]);
        fs::write(root.join("app/charts/a.tgz"), &bomb).unwrap();
        assert_eq!(confined(&root), Ok(()));
        fs::write(root.join("app/charts/b.tgz"), &bomb).unwrap();
        assert_eq!(
            confined(&root).unwrap_err(),
            "app/charts/b.tgz: not a chart archive that can be checked: it unpacks to more than 100 MiB"
        );
    }

    #[test]
    fn a_schema_too_deep_to_check_is_refused() {
        let deep = format!("{}{{\"$ref\": \"file:///etc/passwd\"}}{}", "[".repeat(200), "]".repeat(200));
        let (_directory, root) = repository(&[("app/Chart.yaml", GOOD), ("app/values.schema.json", &deep)]);
        assert!(
            confined(&root).unwrap_err().starts_with("app/values.schema.json: not JSON that can be checked")
        );
    }

    #[test]
    fn schemas_that_make_helm_read_elsewhere_are_refused() {
        for (schema, refused) in [
            (r##"{"$ref": "#/definitions/a", "$schema": "http://json-schema.org/draft-07/schema#"}"##, None),
            (r#"{"properties": {"a": {"$ref": "https://example.org/a.json"}}}"#, None),
            (r#"{"$id": "https://example.org/b.json", "a": [{"$ref": "a.json"}]}"#, None),
            (r#"{"properties": {"id": {"type": "string"}, "$ref": {"type": "string"}}}"#, None),
            (r#"{"a": [{"$ref": "file:///etc/passwd"}]}"#, Some("file:///etc/passwd")),
            (r#"{"$ref": "etc/strongroom/keys/a"}"#, Some("etc/strongroom/keys/a")),
            (r#"{"$id": "https://example.org/", "$ref": "FILE:/etc/passwd"}"#, Some("FILE:/etc/passwd")),
            (r#"{"$id": "file:///etc/", "$ref": "passwd"}"#, Some("file:///etc/")),
            (r#"{"$ref": "http://169.254.169.254/"}"#, Some("http://169.254.169.254/")),
            (r#"{"$schema": "file:///etc/passwd"}"#, Some("file:///etc/passwd")),
        ] {
            let (_directory, root) =
                repository(&[("app/Chart.yaml", GOOD), ("app/charts/b/values.schema.json", schema)]);
            let expected = refused.map_or(Ok(()), |reference| {
                Err(format!("app/charts/b/values.schema.json: {reference:?} leads out of the chart"))
            });
            let report = confined(&root).map_err(|report| report.lines().next().unwrap().to_owned());
            assert_eq!(report, expected, "{schema}");
        }
    }
}
