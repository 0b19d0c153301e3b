//! Value sources: read once, opened, their references resolved, and given to helm otherwise byte for byte.
//!
//! Refused: a path that leaves the repository, a file that is not there unless it may be missing, text that is not
//! UTF-8 or not YAML, and anything beyond the limits of [`document`].

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use std::sync::Arc;

use futures::future::join_all;

use crate::chart::subcharts::{self, At, Subchart, Switch};
use crate::confine::{self, ConfineError};
use crate::document::value::Value;
use crate::document::{self, Format, Kind, ParseError, Stream, Style};
use crate::fault::{Class, Fault, report};
use crate::refs::grammar::Expression;
use crate::refs::resolve::{RefError, Resolver};
use crate::refs::scan::{self, Found, Step};
use crate::render::defaults;
use crate::render::overrides::{self, Held, Said};
use crate::render::plan::{Base, ValueFile, ValueSource};
use crate::render::set::Sets;
use crate::scope::Scope;
use crate::secret::Secret;
use crate::sops;
use crate::sops::file::FileFormat;
use crate::sops::keys::Keyring;
use crate::sops::open::{OpenOptions, SealedFile, SopsError};

/// All value files of a render may have so many bytes, and all files that become one value each as many again.
const MAX_TOGETHER: usize = 2 * document::MAX_SIZE;

/// Opens value sources and resolves their references.
#[derive(Debug)]
pub struct Opener {
    /// The keys that open SOPS files.
    pub keyring: Arc<Keyring>,
    /// The secret stores.
    pub resolver: Resolver,
    /// Where a key that a value file names must lie.
    pub keys_dir: PathBuf,
    /// How SOPS files are opened.
    pub sops: OpenOptions,
}

/// A values document, opened; its references stand in it until they are resolved.
#[derive(Debug)]
pub struct Values {
    /// How errors call it.
    pub name: String,
    /// The text.
    pub text: Secret<String>,
    /// Where everything stands in it.
    stream: Stream,
    /// The keys that helm merges it below: of a subchart's own, its names.
    below: Vec<String>,
    /// What was encrypted in it, and what its references resolved to.
    pub opened: Vec<Secret<String>>,
}

/// Default values of a chart or of one in its `charts/`.
#[derive(Debug)]
pub struct Defaults {
    values: Values,
    /// The chart is rendered where all are on.
    switches: Vec<Switch>,
}

/// How errors call a value source, how it is written, and its bytes.
pub(super) type Source<'a> = (&'a str, Format, Secret<Vec<u8>>);

/// What came of references.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Their values, for masking.
    pub opened: Vec<Secret<String>>,
    /// References that are meant to be text, which an escape said; sorted.
    pub literals: Vec<Secret<String>>,
}

impl Resolved {
    pub(super) fn of<'a>(values: &[Value], expressions: impl Iterator<Item = &'a Expression>) -> Self {
        let literals = expressions.flat_map(Expression::literals).collect();
        let mut resolved = Self::default();
        resolved.extend(Self { opened: texts(values), literals });
        resolved
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.opened.extend(more.opened);
        self.literals.extend(more.literals);
        self.literals.sort_by(|a, b| a.expose().cmp(b.expose()));
    }
}

impl Values {
    /// Helm takes nothing else than keys with values, or nothing at all.
    pub fn require_mapping(&self) -> Result<(), ValuesError> {
        let kind = match self.stream.documents.first().map(|root| &root.kind) {
            Some(Kind::Scalar { value, style: Style::Plain })
                if ["", "~", "null", "Null", "NULL"].contains(&value.expose().as_str()) =>
            {
                return Ok(());
            }
            None | Some(Kind::Mapping(_)) => return Ok(()),
            Some(Kind::Sequence(_)) => "a list",
            Some(Kind::Scalar { .. } | Kind::Alias(_)) => "one value",
        };
        Err(ValuesError::of(&self.name, ValuesFault::NotAMapping(kind)))
    }
}

impl Opener {
    /// Opens value sources, in order, without those that may be missing and are.
    pub async fn open(&self, sources: &[ValueSource], scope: &Scope) -> Result<Vec<Values>, ValuesError> {
        self.open_all(&self.read_all(sources, scope)?, scope).await
    }

    /// Opens what was read, in order.
    pub(super) async fn open_all(
        &self,
        read: &[Source<'_>],
        scope: &Scope,
    ) -> Result<Vec<Values>, ValuesError> {
        let open = read.iter().map(|(name, format, bytes)| self.open_text(name, bytes, *format, scope));
        join_all(open).await.into_iter().collect()
    }

    /// Reads value sources, without those that may be missing and are.
    pub(super) fn read_all<'a>(
        &self,
        sources: &'a [ValueSource],
        scope: &Scope,
    ) -> Result<Vec<Source<'a>>, ValuesError> {
        let mut budget = Budget::default();
        let mut found = Vec::new();
        for source in sources {
            let (name, format, bytes) = match source {
                ValueSource::Inline { name, text } => {
                    (name, Format::Yaml, Secret::new(text.expose().clone().into_bytes()))
                }
                ValueSource::File(file) => match self.read(file, scope)? {
                    Some(bytes) => (&file.spelled, Format::of_name(&file.path), bytes),
                    None => continue,
                },
            };
            budget.spend(name, bytes.expose().len())?;
            found.push((name.as_str(), format, bytes));
        }
        Ok(found)
    }

    /// Opens `bytes`, which errors call `name`.
    pub async fn open_text(
        &self,
        name: &str,
        bytes: &Secret<Vec<u8>>,
        format: Format,
        scope: &Scope,
    ) -> Result<Values, ValuesError> {
        let error = |fault| ValuesError::of(name, fault);
        let parse = |fault| error(ValuesFault::Parse(fault));
        let text = document::text_of(bytes.expose()).map_err(parse)?;
        let stream = document::parse(text, format).map_err(parse)?;
        let (text, stream, opened) = if sops::is_encrypted(&stream) {
            let sealed = SealedFile::of(text, stream).map_err(|fault| error(fault.into()))?;
            let opened = sealed.open_with(&self.keyring, &scope.of_file(name), self.sops).await;
            let opened = opened.map_err(|fault| error(fault.into()))?;
            let stream = document::parse(opened.text.expose(), format).map_err(parse)?;
            (opened.text, stream, opened.leaves)
        } else {
            (Secret::new(text.to_owned()), stream, Vec::new())
        };
        Ok(Values { name: name.to_owned(), text, stream, below: Vec::new(), opened })
    }

    /// The contents of files that become one value each, by its path; opened where they are SOPS files.
    pub async fn open_contents(
        &self,
        files: &[(String, ValueFile)],
        scope: &Scope,
    ) -> Result<Vec<(String, Secret<Vec<u8>>)>, ValuesError> {
        let mut budget = Budget::default();
        let mut contents = Vec::new();
        for (path, file) in files {
            let content = self.open_content(file, scope).await?;
            budget.spend(&file.spelled, content.expose().len())?;
            contents.push((path.clone(), content));
        }
        Ok(contents)
    }

    async fn open_content(&self, file: &ValueFile, scope: &Scope) -> Result<Secret<Vec<u8>>, ValuesError> {
        let bytes = self.read(file, scope)?.unwrap_or_default();
        let Ok(text) = document::text_of(bytes.expose()) else { return Ok(bytes) };
        let Some(format) = FileFormat::of_file(&file.path, text) else { return Ok(bytes) };
        let scope = scope.of_file(&file.spelled);
        let opened = sops::file::open(text, format, &self.keyring, &scope, self.sops).await;
        Ok(opened.map_err(|fault| ValuesError::of(&file.spelled, fault.into()))?.content)
    }

    /// The default values of the chart and of those in its `charts/`, the deepest first, where any of them may hold a
    /// reference. What is wrong with them is helm's to say.
    pub fn open_defaults(&self, scope: &Scope) -> Vec<Defaults> {
        let charts = charts(scope);
        if !charts.iter().any(|chart| chart.values.contains("ref+")) {
            return Vec::new();
        }
        charts.into_iter().filter_map(Defaults::of).collect()
    }

    /// Replaces the references of `documents`, which are in helm's order, and of `sets`, which come after them. What
    /// the references of `defaults` resolve to becomes documents before all others. Returns what was resolved.
    ///
    /// What a later source replaces is not fetched, and nothing for a chart that is switched off. Everything else is
    /// fetched at once.
    pub async fn resolve(
        &self,
        mut defaults: Vec<Defaults>,
        documents: &mut Vec<Values>,
        sets: &mut Sets,
        scope: &Scope,
    ) -> Result<Resolved, ReferencesError> {
        let of_sets = streams(sets);
        let layers = Layers { defaults: &defaults, documents, sets: &of_sets };
        let on: Vec<_> =
            defaults.iter().map(|chart| chart.switches.iter().all(|switch| layers.is_on(switch))).collect();
        let mut on = on.into_iter();
        defaults.retain(|_| on.next().unwrap_or(true));
        let charts = defaults.len();
        documents.splice(..0, defaults.into_iter().map(|chart| chart.values));
        let found = wanted(documents, &of_sets);
        let set_expressions: Vec<_> =
            sets.texts().into_iter().map(|(key, text)| (key, Expression::parse(text.expose()))).collect();
        let mut resolved = self.values_of(documents, &found, &set_expressions, scope).await?;
        let of_values = found.iter().flatten().map(|found| &found.expression);
        let of_both =
            of_values.chain(set_expressions.iter().filter_map(|(_, expression)| expression.as_ref()));
        let came = Resolved::of(&resolved, of_both);
        let of_sets = resolved.split_off(found.iter().map(Vec::len).sum());
        let texts = apply(documents, &found, &resolved, charts)?;
        drop(found);
        for (values, text) in documents.iter_mut().zip(texts) {
            values.text = text;
        }
        documents.retain(|values| !values.text.expose().is_empty());
        fill(sets, &set_expressions, of_sets);
        Ok(came)
    }

    /// Replaces the references of documents that each stand for itself, and returns what was resolved.
    pub async fn resolve_each(
        &self,
        documents: &mut [Values],
        scope: &Scope,
    ) -> Result<Resolved, ReferencesError> {
        let found: Vec<_> = documents.iter().map(|values| scan::scan(&values.stream)).collect();
        let resolved = self.values_of(documents, &found, &[], scope).await?;
        let came = Resolved::of(&resolved, found.iter().flatten().map(|found| &found.expression));
        let replaced = apply(documents, &found, &resolved, 0)?;
        drop(found);
        for (values, text) in documents.iter_mut().zip(replaced) {
            values.text = text;
        }
        Ok(came)
    }

    /// The values of what was `found` in `documents`, then of `others`, which stand at their keys.
    async fn values_of(
        &self,
        documents: &[Values],
        found: &[Vec<Found<'_>>],
        others: &[(String, Option<Expression>)],
        scope: &Scope,
    ) -> Result<Vec<Value>, ReferencesError> {
        let in_documents = found.iter().flatten().map(|found| &found.expression);
        let others = others.iter().filter_map(|(key, expression)| Some((key, expression.as_ref()?)));
        let of_others = others.clone().map(|(_, expression)| expression);
        let expressions: Vec<&Expression> = in_documents.chain(of_others).collect();
        let results = self.resolver.resolve(scope, &expressions).await;
        let places = found.iter().zip(documents).flat_map(|(found, values)| {
            found.iter().map(|found| format!("{} of {}", found.spelled_path(), values.name))
        });
        all_of(results, places.chain(others.map(|(key, _)| format!("{key} of parameters"))))
    }

    /// `None` is a file that may be missing and is.
    fn read(&self, file: &ValueFile, scope: &Scope) -> Result<Option<Secret<Vec<u8>>>, ValuesError> {
        let read = self.find_key(file).and_then(|()| bytes(file, scope));
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) if file.optional && fault.class() == Class::NotFound => Ok(None),
            Err(fault) => Err(ValuesError::of(&file.spelled, fault)),
        }
    }

    /// All keys of the folder are tried on every file; a key that is named must be one of them.
    fn find_key(&self, file: &ValueFile) -> Result<(), ValuesFault> {
        let Some(key) = &file.key else { return Ok(()) };
        let name = Path::new(key).file_name();
        let held = name.is_some_and(|name| self.keys_dir.join(name).is_file());
        if held { Ok(()) } else { Err(ValuesFault::Key(key.clone())) }
    }
}

/// The chart, last, and those in its `charts/`, the deepest first.
pub(super) fn charts(scope: &Scope) -> Vec<Subchart> {
    let (Some(root), Some(directory)) = (&scope.repository, &scope.directory) else { return Vec::new() };
    let path = "values.yaml".to_owned();
    let own = ValueFile { spelled: path.clone(), path, optional: true, key: None, base: Base::App };
    let own =
        bytes(&own, scope).ok().and_then(|bytes| document::text_of(bytes.expose()).ok().map(str::to_owned));
    let own = own.map(|values| Subchart {
        keys: Vec::new(),
        file: "values.yaml".to_owned(),
        values,
        switches: Vec::new(),
    });
    subcharts::below(root, directory).into_iter().chain(own).collect()
}

/// What the files of one render may hold together: an application can list one large file many times.
struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_TOGETHER)
    }
}

impl Budget {
    fn spend(&mut self, name: &str, bytes: usize) -> Result<(), ValuesError> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| ValuesError::of(name, ValuesFault::TooMuch))?;
        Ok(())
    }
}

impl Defaults {
    fn of(chart: Subchart) -> Option<Self> {
        let Subchart { keys: below, file, values, switches } = chart;
        let stream = document::parse(&values, Format::Yaml).ok()?;
        let name = format!("the chart's {file}");
        Some(Self {
            values: Values { name, text: values.into(), stream, below, opened: Vec::new() },
            switches,
        })
    }
}

/// The documents that single values become.
fn streams(sets: &Sets) -> Vec<Stream> {
    let texts = sets.render().map(|rendered| rendered.documents).unwrap_or_default();
    texts.iter().filter_map(|text| document::parse(text.expose(), Format::Json).ok()).collect()
}

/// All that helm will merge, in its order.
struct Layers<'a> {
    defaults: &'a [Defaults],
    documents: &'a [Values],
    sets: &'a [Stream],
}

impl Layers<'_> {
    fn is_on(&self, switch: &Switch) -> bool {
        switch.is_on(|path| {
            let values = self.defaults.iter().map(|chart| &chart.values).chain(self.documents);
            let layers = values.map(|values| (values.below.as_slice(), &values.stream));
            let layers = layers.chain(self.sets.iter().map(|stream| (&[][..], stream)));
            let layers: Vec<_> = layers.collect();
            let said = layers.into_iter().rev().map(|(below, stream)| match inside(path, below) {
                Some(path) => overrides::said(stream, path),
                None => Said::Nothing,
            });
            said.into_iter()
                .find_map(|said| if let Said::Here(at) = said { Some(at) } else { None })
                .unwrap_or(At::Other)
        })
    }
}

/// What is left of `path` below the keys of a chart.
fn inside<'a, 'b>(path: &'b [&'a str], below: &[String]) -> Option<&'b [&'a str]> {
    let (keys, rest) = path.split_at_checked(below.len())?;
    (keys == below).then_some(rest)
}

/// The references of each document that no later source replaces.
fn wanted<'a>(documents: &'a [Values], sets: &[Stream]) -> Vec<Vec<Found<'a>>> {
    let wanted = |(index, values): (usize, &'a Values)| {
        let later = documents[index + 1..].iter().map(|values| (values.below.as_slice(), &values.stream));
        let later: Vec<_> = later.chain(sets.iter().map(|stream| (&[][..], stream))).collect();
        let mut found = scan::scan(&values.stream);
        found.retain(|found| !later.iter().any(|later| is_replaced(found, &values.below, *later)));
        found
    };
    documents.iter().enumerate().map(wanted).collect()
}

fn is_replaced(found: &Found<'_>, below: &[String], (above, later): (&[String], &Stream)) -> bool {
    if found.anchored || found.is_merge() {
        return false;
    }
    let keys = keys_of(&found.path);
    let typed = found.expression.whole().is_some() && keys.len() == found.path.len();
    let held = if typed { Held::MaybeMapping } else { Held::Plain };
    let at = |depth: usize| {
        below[..depth].iter().map(String::as_str).chain(keys.iter().copied()).collect::<Vec<_>>()
    };
    let replaced =
        |path: &[&str]| inside(path, above).is_some_and(|path| overrides::replaces(later, path, held));
    // What a chart above says to be global is so in this one too.
    let is_global = keys.first() == Some(&"global");
    replaced(&at(below.len())) || is_global && (above.len()..below.len()).any(|depth| replaced(&at(depth)))
}

/// The keys that lead to a value, or to the outermost list that it is in.
fn keys_of(path: &[Step]) -> Vec<&str> {
    let keys = path.iter().map_while(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.collect()
}

/// Every value, or every failure with its place.
pub(super) fn all_of(
    results: Vec<Result<Value, Vec<RefError>>>,
    places: impl Iterator<Item = String>,
) -> Result<Vec<Value>, ReferencesError> {
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for (result, place) in results.into_iter().zip(places) {
        match result {
            Ok(value) => values.push(value),
            Err(errors) => failures.extend(
                errors.into_iter().map(|error| Failure { place: place.clone(), error: Box::new(error) }),
            ),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(ReferencesError(failures)) }
}

/// The text of each document with its values put in; of the default values of so many `charts`, which come first, only
/// what was put in.
fn apply(
    documents: &[Values],
    found: &[Vec<Found<'_>>],
    mut values: &[Value],
    charts: usize,
) -> Result<Vec<Secret<String>>, ReferencesError> {
    let mut texts = Vec::new();
    let mut maps: Vec<(&[String], &[Step])> = Vec::new();
    for (index, (document, found)) in documents.iter().zip(found).enumerate() {
        let (own, rest) = values.split_at(found.len());
        values = rest;
        if index < charts {
            let again: Vec<_> =
                maps.iter().filter_map(|(below, path)| said_again(document, below, path)).collect();
            let again: Vec<_> = again.iter().map(Vec::as_slice).collect();
            let overlay = defaults::overlay(&document.stream, &document.below, found, own, &again);
            texts.push(
                overlay.map_err(|error| ReferencesError::of(&document.name, error))?.unwrap_or_default(),
            );
            let is_map = |(_, value): &(&Found<'_>, &Value)| matches!(value, Value::Mapping(_));
            let found = found.iter().zip(own).filter(is_map);
            maps.extend(found.map(|(found, _)| (document.below.as_slice(), found.path.as_slice())));
            continue;
        }
        let text = document.text.expose();
        let edits =
            scan::apply(text, found, own).map_err(|error| ReferencesError::of(&document.name, error))?;
        texts.push(edits.apply(text).map_err(|error| ReferencesError::of(&document.name, error))?);
    }
    Ok(texts)
}

/// The path in `document`, default values, at which it has a map that is merged into the one at `path` `below`.
fn said_again(document: &Values, below: &[String], path: &[Step]) -> Option<Vec<Step>> {
    let keys = below.iter().map(String::as_str).chain(keys_of(path)).collect::<Vec<_>>();
    let keys = inside(&keys, &document.below)?;
    let mut node = document.stream.documents.first()?;
    for key in keys {
        node = node.at(key)?;
    }
    matches!(node.kind, Kind::Mapping(_))
        .then(|| keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
}

/// Puts the values of `expressions`, one or none for each text of `sets`, in.
fn fill(sets: &mut Sets, expressions: &[(String, Option<Expression>)], values: Vec<Value>) {
    let (mut expressions, mut values) = (expressions.iter(), values.into_iter());
    let filled: Result<(), std::convert::Infallible> = sets.open(|_| {
        let holds = expressions.next().is_some_and(|(_, expression)| expression.is_some());
        let value = if holds { values.next() } else { None };
        Ok(value)
    });
    let Ok(()) = filled;
}

/// The strings and numbers in `values`; what else they hold is not worth hiding.
fn texts(values: &[Value]) -> Vec<Secret<String>> {
    let mut texts = Vec::new();
    let mut open: Vec<&Value> = values.iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::String(_) | Value::Number(_) => texts.push(value.to_text()),
            Value::Sequence(items) => open.extend(items),
            Value::Mapping(entries) => open.extend(entries.iter().map(|(_, item)| item)),
            Value::Null | Value::Bool(_) => {}
        }
    }
    texts
}

/// The bytes of a file, no more than a document may have.
fn bytes(file: &ValueFile, scope: &Scope) -> Result<Secret<Vec<u8>>, ValuesFault> {
    let limit = document::MAX_SIZE as u64;
    if file.base == Base::Terminal {
        return typed(&file.path, limit + 1).map_err(ValuesFault::Read);
    }
    let (Some(root), Some(directory)) = (&scope.repository, &scope.directory) else {
        return Err(ValuesFault::Read(io::ErrorKind::NotFound.into()));
    };
    let path = confine::resolve(root, directory, &file.path)?;
    Ok(confine::read(&path, &file.path, limit)?)
}

/// The beginning of what a person named; `-` is stdin, as for helm.
fn typed(path: &str, limit: u64) -> io::Result<Secret<Vec<u8>>> {
    let mut bytes = Secret::<Vec<u8>>::default();
    if path == "-" {
        io::stdin().lock().take(limit).read_to_end(bytes.expose_mut())?;
    } else {
        File::open(path)?.take(limit).read_to_end(bytes.expose_mut())?;
    }
    Ok(bytes)
}

/// A value source cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ValuesError {
    /// It lies outside the repository, or is not there.
    #[error(transparent)]
    Path(ConfineError),
    /// What it holds does not open.
    #[error("open {name}")]
    Open {
        /// How errors call it.
        name: String,
        /// Why.
        #[source]
        fault: ValuesFault,
    },
}

impl ValuesError {
    /// An error about a path names it already.
    fn of(name: &str, fault: ValuesFault) -> Self {
        match fault {
            ValuesFault::Path(error) => Self::Path(error),
            fault => Self::Open { name: name.to_owned(), fault },
        }
    }
}

/// Why a value source cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ValuesFault {
    /// It lies outside the repository, or is not there.
    #[error(transparent)]
    Path(#[from] ConfineError),
    /// A file that a person named cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// The key that its spelling names is not there.
    #[error("the key {0:?} is not in the keys folder")]
    Key(String),
    /// It is not text, or not YAML.
    #[error("{0}")]
    Parse(ParseError),
    /// It is one file too much.
    #[error("with the files before it, it is larger than {} MiB", MAX_TOGETHER >> 20)]
    TooMuch,
    /// Its top is no mapping.
    #[error("it holds {0}, not a mapping of values")]
    NotAMapping(&'static str),
    /// It is encrypted and does not open.
    #[error(transparent)]
    Sops(#[from] SopsError),
}

impl Fault for ValuesError {
    fn class(&self) -> Class {
        match self {
            Self::Path(error) => error.class(),
            Self::Open { fault, .. } => fault.class(),
        }
    }
}

impl Fault for ValuesFault {
    fn class(&self) -> Class {
        match self {
            Self::Path(error) => error.class(),
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => Class::NotFound,
            Self::Read(_) | Self::Key(_) | Self::TooMuch | Self::NotAMapping(_) => Class::Invalid,
            Self::Parse(error) => error.class(),
            Self::Sops(error) => error.class(),
        }
    }
}

/// References that do not resolve: all of one render.
#[derive(Debug)]
pub struct ReferencesError(Vec<Failure>);

#[derive(Debug)]
struct Failure {
    place: String,
    error: Box<dyn Fault>,
}

impl ReferencesError {
    pub(super) fn of(place: &str, error: impl Fault) -> Self {
        Self::all([(place.to_owned(), error)])
    }

    pub(super) fn all(errors: impl IntoIterator<Item = (String, impl Fault)>) -> Self {
        let failure = |(place, error)| Failure { place, error: Box::new(error) as Box<dyn Fault> };
        Self(errors.into_iter().map(failure).collect())
    }
}

impl std::error::Error for ReferencesError {}

impl fmt::Display for ReferencesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [Failure { place, error }] => write!(f, "resolve {place}: {}", report(error.as_ref())),
            failures => {
                write!(f, "resolve {} references:", failures.len())?;
                for Failure { place, error } in failures {
                    write!(f, "\n  {place}: {}", report(error.as_ref()).replace('\n', "\n    "))?;
                }
                Ok(())
            }
        }
    }
}

impl Fault for ReferencesError {
    /// The worst of all: whoever tries again because of what passes meets what stays.
    fn class(&self) -> Class {
        let classes = self.0.iter().map(|failure| failure.error.class());
        classes.max_by_key(|class| badness(*class)).unwrap_or(Class::Internal)
    }
}

/// The longer it lasts, and the less its reader can do about it, the worse.
const fn badness(class: Class) -> u8 {
    match class {
        Class::Unavailable => 0,
        Class::Timeout => 1,
        Class::NotFound => 2,
        Class::Invalid => 3,
        Class::Denied => 4,
        Class::Internal => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refs::source::FetchError;

    #[test]
    fn all_failures_are_told_with_their_places_and_the_worst_counts() {
        let failures = [
            ("a.b[0] of one.yaml", FetchError::new(Class::Unavailable, "busy")),
            ("c of two.yaml", FetchError::new(Class::Denied, "no\nhelp: ask")),
            ("d of two.yaml", FetchError::not_found("nothing there")),
        ];
        let error = ReferencesError::all(failures.map(|(place, error)| (place.to_owned(), error)));
        assert_eq!(error.class(), Class::Denied);
        let expected = "resolve 3 references:\n  a.b[0] of one.yaml: busy\n  c of two.yaml: no\n    help: ask\n  \
                        d of two.yaml: nothing there";
        assert_eq!(error.to_string(), expected);
        let busy = ReferencesError::of("a of b.yaml", FetchError::new(Class::Unavailable, "busy"));
        assert_eq!(
            (busy.class(), busy.to_string().as_str()),
            (Class::Unavailable, "resolve a of b.yaml: busy")
        );
    }
}
