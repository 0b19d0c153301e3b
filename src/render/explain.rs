//! Where each final value of a chart comes from: which source said it, on which line, encrypted or by reference, and what
//! it overrides.
//!
//! What the final values are is helm's to say: it runs on the chart without its templates, with one in their place that
//! prints `.Values`. Who said each of them is looked up in the sources, from the last to the first.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::chart::Chart;
use crate::chart::subcharts::Subchart;
use crate::document::scalar::{self, Scalar};
use crate::document::{self, Format, Kind, Node, ParseError, Stream};
use crate::fault::{Class, Fault};
use crate::redact::Redactor;
use crate::refs::grammar::Expression;
use crate::refs::scan::Step;
use crate::render::helm;
use crate::render::output::manifests;
use crate::render::set::Sets;
use crate::render::values::{Source, Values};
use crate::secret::Secret;
use crate::sops::{self, cipher};

/// What the template is called that prints the values.
const TEMPLATE: &str = "templates/strongroom-values.yaml";
/// What of a chart makes its values: no template, no schema, no resource.
const PARTS: [&str; 6] =
    ["Chart.yaml", "Chart.lock", "values.yaml", "charts", "requirements.yaml", "requirements.lock"];

/// All final values of a chart.
#[derive(Debug)]
pub struct Explanation {
    /// In the order of their keys.
    pub values: Vec<Explained>,
    /// Knows what was opened on the way.
    pub opened: Redactor,
}

/// One final value that is no map with keys and no list with items.
#[derive(Debug)]
pub struct Explained {
    /// Where it stands.
    pub path: Vec<Step>,
    /// As JSON.
    pub value: Secret<String>,
    /// Who said it; `None`: helm, such as the globals of a subchart.
    pub from: Option<Place>,
    /// Who said something else before, the last one first.
    pub over: Vec<Place>,
}

impl Explained {
    /// Whether a secret was opened for it.
    pub fn is_secret(&self) -> bool {
        self.from.as_ref().is_some_and(|place| place.encrypted || !place.references.is_empty())
    }
}

/// Where a value is said.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Place {
    /// The value file as it is spelled, or what else holds values.
    pub source: String,
    /// Its line, where it has lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Whether it is encrypted there.
    pub encrypted: bool,
    /// The references that stand there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
}

/// The values cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No chart.
    #[error("the app directory has no Chart.yaml, so there are no values")]
    NoChart,
    /// The chart without its templates cannot be laid out.
    #[error("make a folder for helm")]
    Folder(#[from] io::Error),
    /// Helm printed something else than values.
    #[error("read the values that helm prints")]
    Output(#[from] ParseError),
}

impl Fault for ExplainError {
    fn class(&self) -> Class {
        match self {
            Self::NoChart => Class::Invalid,
            Self::Folder(_) | Self::Output(_) => Class::Internal,
        }
    }
}

/// A chart with one template, which prints the values. Links lead to the real chart, and nothing opened is written.
pub(super) fn folder(chart: &Chart) -> Result<TempDir, ExplainError> {
    let folder = tempfile::Builder::new().prefix("strongroom-").tempdir()?;
    for part in PARTS {
        let target = chart.directory.join(part);
        if target.exists() {
            symlink(target, folder.path().join(part))?;
        }
    }
    let template = folder.path().join(TEMPLATE);
    std::fs::create_dir_all(template.parent().unwrap_or(Path::new("/")))?;
    std::fs::write(template, "values: {{ .Values | toJson }}\n")?;
    Ok(folder)
}

/// All sources of values, in helm's order, as they are before references are resolved.
pub(super) fn layers<'a>(
    charts: &[Subchart],
    documents: impl Iterator<Item = (&'a Source<'a>, &'a Values)>,
    sets: &Sets,
    single: &'static str,
) -> Result<Vec<Layer>, ExplainError> {
    // What is wrong with default values is helm's to say.
    let defaults = charts.iter().filter_map(|chart| Document::of_chart(chart).ok());
    let mut layers: Vec<_> = defaults.map(Layer::Document).collect();
    for ((_, format, bytes), values) in documents {
        layers.push(Layer::Document(Document::of(values, bytes.expose(), *format)?));
    }
    layers.push(Layer::Single(sets.clone(), single));
    Ok(layers)
}

/// Tells the documents of `layers` what they became once their references were resolved: `given`, as helm gets it.
pub(super) fn resolved(layers: &mut [Layer], given: &[helm::Values]) -> Result<(), ExplainError> {
    let documents = layers.iter_mut().rev().filter_map(|layer| match layer {
        // Helm is not given the default values, nor documents without a byte.
        Layer::Document(document) if !document.is_default && !document.is_empty => Some(document),
        _ => None,
    });
    for (document, helm::Values { text, .. }) in documents.zip(given.iter().rev()) {
        document.resolved = Some(document::parse(text.expose(), document.source.format)?);
    }
    Ok(())
}

/// Looks up in `layers`, of which later ones win, who said what helm `printed` for `chart`.
pub(super) fn explain(
    chart: &Chart,
    printed: &Secret<String>,
    layers: &[Layer],
) -> Result<Vec<Explained>, ExplainError> {
    let source = format!("{}/{TEMPLATE}", chart.name);
    let ours = manifests(printed.expose()).find(|manifest| manifest.source() == Some(&source));
    let json =
        ours.and_then(|manifest| manifest.text.split_once("\nvalues: ")).map_or("{}", |(_, json)| json);
    let stream = document::parse(json.trim_end(), Format::Json)?;
    let layers: Vec<_> = layers.iter().map(View::of).collect();
    let mut explained = Vec::new();
    if let Some(root) = stream.documents.first() {
        leaves(root, &mut Vec::new(), &mut |path, node| {
            let value = Secret::new(json[node.span.clone()].to_owned());
            let (from, over) = origin(path, node, &layers);
            explained.push(Explained { path: path.to_vec(), value, from, over });
        });
    }
    Ok(explained)
}

fn leaves(node: &Node, path: &mut Vec<Step>, visit: &mut impl FnMut(&[Step], &Node)) {
    let children: Vec<(Step, &Node)> = match &node.kind {
        Kind::Mapping(entries) => entries
            .iter()
            .map(|(key, value)| (Step::Key(key.text().unwrap_or_default().to_owned()), value))
            .collect(),
        Kind::Sequence(items) => {
            items.iter().enumerate().map(|(index, item)| (Step::Index(index), item)).collect()
        }
        Kind::Scalar { .. } | Kind::Alias(_) => Vec::new(),
    };
    if children.is_empty() && !path.is_empty() {
        visit(path, node);
    }
    for (step, child) in children {
        path.push(step);
        leaves(child, path, visit);
        path.pop();
    }
}

/// Who said the value at `path`, and who said something else there before.
fn origin(path: &[Step], value: &Node, layers: &[View<'_>]) -> (Option<Place>, Vec<Place>) {
    let is_null = value.text() == Some("null");
    let places = aliases_of(path);
    let mut said = layers.iter().rev().filter_map(|layer| places.iter().find_map(|path| layer.said(path)));
    let from = said.find(|said| said.whole && (is_null || !said.is_null)).map(|said| said.place);
    // Maps are merged, so an empty one replaces none.
    let over = said.filter(|said| !(said.is_map && matches!(value.kind, Kind::Mapping(_))));
    let over = if from.is_some() { over.map(|said| said.place).collect() } else { Vec::new() };
    (from, over)
}

/// Where a value at `path` can be said: there, and what is global to a subchart also as a global of the charts above it, which
/// win.
fn aliases_of(path: &[Step]) -> Vec<Vec<Step>> {
    let global = path.iter().position(|step| *step == Step::Key("global".to_owned())).unwrap_or(0);
    (0..=global).map(|depth| [&path[..depth], &path[global..]].concat()).collect()
}

/// What one source says at a path.
struct Said {
    place: Place,
    /// Whether it can be what helm makes of it: said at the path itself, or by a reference above.
    whole: bool,
    is_null: bool,
    is_map: bool,
}

/// One source of values.
#[derive(Debug)]
pub(super) enum Layer {
    /// A document.
    Document(Document),
    /// Single values, and what they are called.
    Single(Sets, &'static str),
}

/// A document of values: as it was written, decrypted, and with its references resolved.
#[derive(Debug)]
pub(super) struct Document {
    name: String,
    /// The keys that helm merges it below.
    below: Vec<Step>,
    /// Where each line of the source begins, but the first.
    lines: Vec<usize>,
    source: Stream,
    /// Where it differs.
    opened: Option<Stream>,
    /// Where it is known.
    resolved: Option<Stream>,
    is_default: bool,
    is_empty: bool,
}

impl Document {
    fn of_chart(chart: &Subchart) -> Result<Self, ParseError> {
        let below = chart.keys.iter().cloned().map(Step::Key).collect();
        let name = format!("the chart's {}", chart.file);
        Ok(Self { below, is_default: true, ..Self::written(&name, &chart.values, Format::Yaml)? })
    }

    /// The document of `values`, which were opened from `bytes`.
    fn of(values: &Values, bytes: &[u8], format: Format) -> Result<Self, ParseError> {
        let document = Self::written(&values.name, document::text_of(bytes)?, format)?;
        let text = values.text.expose();
        let encrypted = sops::is_encrypted(&document.source);
        let opened = if encrypted { Some(document::parse(text, format)?) } else { None };
        Ok(Self { opened, is_empty: text.is_empty(), ..document })
    }

    fn written(name: &str, text: &str, format: Format) -> Result<Self, ParseError> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Ok(Self {
            name: name.to_owned(),
            below: Vec::new(),
            lines: breaks.map(|(at, _)| at + 1).collect(),
            source: document::parse(text, format)?,
            opened: None,
            resolved: None,
            is_default: false,
            is_empty: false,
        })
    }
}

/// A layer that is ready to be asked many times.
enum View<'a> {
    Document {
        document: &'a Document,
        source: Tree<'a>,
        opened: Option<Tree<'a>>,
        resolved: Option<Tree<'a>>,
    },
    Single(&'a Sets, &'static str),
}

impl<'a> View<'a> {
    fn of(layer: &'a Layer) -> Self {
        match layer {
            Layer::Single(sets, name) => Self::Single(sets, name),
            Layer::Document(document) => Self::Document {
                document,
                source: Tree::of(&document.source),
                opened: document.opened.as_ref().map(Tree::of),
                resolved: document.resolved.as_ref().map(Tree::of),
            },
        }
    }

    fn said(&self, path: &[Step]) -> Option<Said> {
        let (document, source, opened, resolved) = match self {
            Self::Document { document, source, opened, resolved } => (document, source, opened, resolved),
            Self::Single(sets, name) => {
                let references = references(sets.said(path)?);
                let place = Place { source: (*name).to_owned(), line: None, encrypted: false, references };
                return Some(Said { place, whole: true, is_null: false, is_map: false });
            }
        };
        let path = path.strip_prefix(document.below.as_slice())?;
        let (node, left) = opened.as_ref().unwrap_or(source).at(path)?;
        let references = node.text().map(references).unwrap_or_default();
        if left > 0 && !references.is_empty() && resolved.as_ref().is_some_and(|tree| !tree.has(path)) {
            return None;
        }
        let written = source.at(path).map(|(node, _)| node);
        let encrypted = opened.is_some() && written.and_then(Node::text).is_some_and(cipher::is_sealed);
        let line = written.map(|node| document.lines.partition_point(|begin| *begin <= node.span.start) + 1);
        let whole = left == 0 || !references.is_empty();
        let place = Place { source: document.name.clone(), line, encrypted, references };
        let is_null = scalar::of(node) == Some(Scalar::Null);
        Some(Said { place, whole, is_null, is_map: matches!(node.kind, Kind::Mapping(_)) })
    }
}

fn references(text: &str) -> Vec<String> {
    let expression = Expression::parse(text);
    expression.iter().flat_map(Expression::references).map(ToString::to_string).collect()
}

/// A document whose aliases can be followed.
struct Tree<'a> {
    root: Option<&'a Node>,
    anchors: HashMap<usize, &'a Node>,
}

impl<'a> Tree<'a> {
    fn of(stream: &'a Stream) -> Self {
        Self { root: stream.documents.first(), anchors: stream.anchors() }
    }

    /// What stands at `path`, or what stands on the way to it and is no map or list; and how many steps are left then.
    fn at(&self, path: &[Step]) -> Option<(&'a Node, usize)> {
        let mut node = self.followed(self.root?);
        for (taken, step) in path.iter().enumerate() {
            let left = path.len() - taken;
            let next = match (&node.kind, step) {
                (Kind::Mapping(_), Step::Key(key)) => match self.entry(node, key, document::MAX_DEPTH)? {
                    Entry::Value(value) => value,
                    Entry::Merged(key) => return Some((key, left)),
                },
                (Kind::Sequence(items), Step::Index(index)) => items.get(*index)?,
                _ => return Some((node, left)),
            };
            node = self.followed(next);
        }
        Some((node, 0))
    }

    fn has(&self, path: &[Step]) -> bool {
        matches!(self.at(path), Some((_, 0)))
    }

    fn followed(&self, node: &'a Node) -> &'a Node {
        match node.kind {
            Kind::Alias(anchor) => self.anchors.get(&anchor).copied().unwrap_or(node),
            _ => node,
        }
    }

    /// The entry of `map` at `key`: its own, else one that `<<` merges in, else perhaps one of a reference that is a key.
    fn entry(&self, map: &'a Node, key: &str, depth: usize) -> Option<Entry<'a>> {
        let depth = depth.checked_sub(1)?;
        let own = map.entries().iter().rev().find(|(name, _)| self.followed(name).text() == Some(key));
        if let Some((_, value)) = own {
            return Some(Entry::Value(value));
        }
        let names = || map.entries().iter().map(|(name, _)| name);
        let merged = map.entries().iter().filter(|(name, _)| name.text() == Some("<<"));
        let merged = merged.map(|(_, value)| self.followed(value)).find_map(|value| match &value.kind {
            Kind::Sequence(items) => {
                items.iter().find_map(|item| self.entry(self.followed(item), key, depth))
            }
            _ => self.entry(value, key, depth),
        });
        let is_reference = |name: &&Node| name.text().is_some_and(|text| Expression::parse(text).is_some());
        merged.or_else(|| names().find(is_reference).map(Entry::Merged))
    }
}

/// What a map holds for a key.
enum Entry<'a> {
    Value(&'a Node),
    /// A key that is a reference, whose document is merged into the map.
    Merged(&'a Node),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands at a path without lists, and how many steps are left there.
    fn found(text: &str, path: &str) -> Option<(String, usize)> {
        let stream = document::parse(text, Format::Yaml).unwrap();
        let path: Vec<_> = path.split('.').map(|key| Step::Key(key.to_owned())).collect();
        let (node, left) = Tree::of(&stream).at(&path)?;
        Some((text[node.span.clone()].to_owned(), left))
    }

    #[test]
    fn a_path_is_followed_through_aliases_and_merges_as_far_as_it_goes() {
        for (text, path, expected) in [
            ("a: {b: 1}", "a.b", Some(("1", 0))),
            ("a: 1", "a.b.c", Some(("1", 2))),
            ("a: {c: 1}", "a.b", None),
            ("x: &x {b: 1}\na: *x", "a.b", Some(("1", 0))),
            ("x: &x {b: 1, c: 2}\na: {<<: *x, b: 3}", "a.b", Some(("3", 0))),
            ("x: &x {b: 1, c: 2}\na: {<<: *x, b: 3}", "a.c", Some(("2", 0))),
            ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", "a.b", Some(("1", 0))),
            ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", "a.c", Some(("3", 0))),
            ("a: {ref+echo://x: {}}", "a.b.c", Some(("ref+echo://x", 2))),
            ("x: &x {<<: *x}", "x.b", None),
            ("", "a", None),
        ] {
            let expected = expected.map(|(text, left): (&str, usize)| (text.to_owned(), left));
            assert_eq!(found(text, path), expected, "{text:?} {path}");
        }
    }

    #[test]
    fn a_global_of_a_subchart_can_be_one_of_any_chart_above() {
        let path = ["a", "b", "global", "x"].map(|key| Step::Key(key.to_owned()));
        let spelled: Vec<_> = aliases_of(&path).iter().map(|path| crate::refs::scan::spell(path)).collect();
        assert_eq!(spelled, ["global.x", "a.global.x", "a.b.global.x"]);
        assert_eq!(aliases_of(&path[..2]), [path[..2].to_vec()]);
    }
}
