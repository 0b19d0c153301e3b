//! Values given one by one: helm's `--set`, `--set-string`, `--set-json`, `--set-file` and `--set-literal`.
//!
//! The grammar and the types are those of helm's `strvals`. What comes out goes to helm mostly as one more values
//! document, so that no value stands in an argument vector. Two things cannot be said in a document and are said
//! again as flags: that a number is an integer (a document makes it a float), and what happens inside of a list
//! whose other items stand in a value file. Flags never carry a value that was opened; strings inside such a list
//! go through `--set-file` and a memory file.
//!
//! Where helm would notice that a key of a *value file* is not a map, the document replaces it instead.

mod grammar;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use self::grammar::{Kind, Reader};
use crate::document::edit::{push, quote_into};
use crate::document::value::Value as Data;
use crate::fault::{Class, Fault};
use crate::refs::scan::Step;
use crate::secret::Secret;

/// Helm's own bound on a list index.
const HIGHEST_INDEX: usize = 65_536;
/// Helm's own bound on the depth of a name; here it also bounds list indexes in lists.
const DEEPEST_NAME: usize = 30;
/// All lists together may be filled up with this many nulls.
const MOST_HOLES: usize = 1 << 20;

/// The flags as they were given, each in its order. Helm applies them in the order of these fields.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--set-json`: `key=JSON`, or a whole object that is merged.
    pub json: Vec<Secret<String>>,
    /// `--set`: `a.b=c,d={e,f}`.
    pub set: Vec<Secret<String>>,
    /// `--set-string`: the same, but every value is a string.
    pub string: Vec<Secret<String>>,
    /// `--set-file`: key and content.
    pub file: Vec<(String, Secret<Vec<u8>>)>,
    /// `--set-literal`: the whole rest is the value.
    pub literal: Vec<Secret<String>>,
}

impl Flags {
    /// Adds a parameter of an Argo CD Application: its commas are part of the value, unless they are escaped
    /// already or the value is a list in braces.
    pub fn parameter(&mut self, name: &str, value: &str, force_string: bool) {
        let list = value.starts_with('{') && value.ends_with('}');
        let value = if list { value.to_owned() } else { escape_commas(value) };
        let line = Secret::new(format!("{name}={value}"));
        if force_string { self.string.push(line) } else { self.set.push(line) }
    }
}

fn escape_commas(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let mut last = None;
    for c in value.chars() {
        if c == ',' && last != Some('\\') {
            escaped.push('\\');
        }
        escaped.push(c);
        last = Some(c);
    }
    escaped
}

/// One value, with the types that helm gives it.
#[derive(Clone, Debug)]
enum Value {
    Null,
    Bool(bool),
    /// An `int64`, which only `--set` makes.
    Integer(i64),
    /// A `float64`, which JSON makes.
    Number(serde_json::Number),
    Text(Secret<String>),
    /// Text that is told to stay text, whatever a reference in it opens to.
    Kept(Secret<String>),
    /// Content of a file that is not UTF-8.
    Bytes(Secret<Vec<u8>>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// What a reference opened to.
    Opened(Data),
}

/// What the flags say together.
#[derive(Clone, Debug)]
enum Node {
    /// A map that is merged with what value files say.
    Branch(BTreeMap<String, Node>),
    /// Items of a list that a value file may hold.
    Items(BTreeMap<usize, Node>),
    /// A value that replaces what value files say.
    Leaf(Value),
}

/// All flags folded into one: of values for the same key only the last is left.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    root: Option<Node>,
    holes: usize,
}

/// What helm is given for [`Sets`].
#[derive(Debug, Default)]
pub struct Rendered {
    /// Values documents that come after all value files.
    pub documents: Vec<Secret<String>>,
    /// `--set` and `--set-json` with their values; none was opened from a reference.
    pub flags: Vec<(&'static str, String)>,
    /// `--set-file`: key as the flag spells it, and content.
    pub files: Vec<(String, Secret<Vec<u8>>)>,
}

/// A flag that says nothing useful. Names keys, never values.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Text without `=`.
    #[error(
        "{flag}: no value after {after}\nhelp: it is key=value; a comma inside of a value is written \\,"
    )]
    NoValue {
        /// The flag.
        flag: &'static str,
        /// The key before the place, or its start.
        after: String,
    },
    /// Not a list index.
    #[error("{flag}: the index of {key} must be a number from 0 to {HIGHEST_INDEX}")]
    Index {
        /// The flag.
        flag: &'static str,
        /// The key so far.
        key: String,
    },
    /// A name that helm's grammar does not allow.
    #[error("{flag}: {key} {problem}")]
    Name {
        /// The flag.
        flag: &'static str,
        /// The key so far.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The value of `--set-json`.
    #[error("{flag}: the value of {key} is not JSON (line {line}, column {column})")]
    Json {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
        /// Line of the value.
        line: usize,
        /// Column of the line.
        column: usize,
    },
    /// A list in braces that does not end.
    #[error("{flag}: the list of {key} must end with }}")]
    OpenList {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
    },
    /// One flag needs a map or a list where another has put something else.
    #[error("{flag}: {key} goes through a value that another flag sets to something else")]
    Conflict {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
    },
    /// Too many nulls before list items.
    #[error("{flag}: {key} leaves too many list items empty")]
    Holes {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
    },
    /// Helm has no way to take it that does not show it to other processes.
    #[error(
        "a reference in {key} opened to something else than text\nhelp: set the whole list in a values document"
    )]
    OpenedInList {
        /// The key.
        key: String,
    },
}

impl Fault for SetError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl Sets {
    /// Parses `flags` and folds them in helm's order.
    pub fn parse(flags: &Flags) -> Result<Self, SetError> {
        let mut sets = Self::default();
        for line in &flags.json {
            sets.apply_json(line.expose())?;
        }
        for (kind, lines) in
            [(Kind::Set, &flags.set), (Kind::String, &flags.string), (Kind::Literal, &flags.literal)]
        {
            if kind == Kind::Literal {
                sets.apply_files(&flags.file)?;
            }
            for line in lines {
                sets.apply(kind, line.expose())?;
            }
        }
        Ok(sets)
    }

    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Every text that is set, behind its key as a flag spells it, in the order of the keys.
    pub fn texts(&self) -> Vec<(String, &Secret<String>)> {
        let mut texts = Vec::new();
        if let Some(root) = &self.root {
            root.texts(&mut String::new(), &mut texts);
        }
        texts
    }

    /// Whether something is set at `path`, or instead of what would stand there, and its text, which is empty
    /// where it is none.
    pub fn said(&self, path: &[Step]) -> Option<&str> {
        self.root.as_ref()?.said(path)
    }

    /// Replaces each text for which `open` has something: what it holds once its references are opened.
    pub fn open<E>(
        &mut self,
        mut open: impl FnMut(&Secret<String>) -> Result<Option<Data>, E>,
    ) -> Result<(), E> {
        self.root.as_mut().map_or(Ok(()), |root| root.open(&mut open))
    }

    /// What to give helm.
    pub fn render(&self) -> Result<Rendered, SetError> {
        let mut rendered = Rendered::default();
        let Some(root) = &self.root else { return Ok(rendered) };
        if let Some(clearing) = document(|out| root.write_clearing(out)) {
            rendered.documents.push(clearing);
        }
        rendered.documents.extend(document(|out| root.write(out)));
        root.render(&mut String::new(), &mut rendered)?;
        Ok(rendered)
    }

    fn apply(&mut self, kind: Kind, line: &str) -> Result<(), SetError> {
        let mut reader = Reader::new(kind, line);
        while let Some((path, value)) = reader.assignment()? {
            self.put(kind, &path, value)?;
        }
        Ok(())
    }

    /// Helm 4 takes a whole object too, which merges like a value file.
    fn apply_json(&mut self, line: &str) -> Result<(), SetError> {
        if !line.trim_start().starts_with('{') {
            return self.apply(Kind::Json, line);
        }
        let object = serde_json::from_str(line).map_err(|e| Kind::Json.not_json("the object", &e))?;
        self.merge(&mut Vec::new(), object)
    }

    fn merge(&mut self, path: &mut Vec<Step>, value: serde_json::Value) -> Result<(), SetError> {
        let serde_json::Value::Object(object) = value else {
            return self.put(Kind::Json, path, Value::from_json(value));
        };
        for (key, value) in object {
            path.push(Step::Key(key));
            self.merge(path, value)?;
            path.pop();
        }
        Ok(())
    }

    fn apply_files(&mut self, files: &[(String, Secret<Vec<u8>>)]) -> Result<(), SetError> {
        for (key, content) in files {
            let line = format!("{key}=");
            let mut reader = Reader::new(Kind::File, &line);
            let Some((path, Value::Kept(rest))) = reader.assignment()? else { continue };
            if !rest.expose().is_empty() || !reader.is_at_end() {
                return Err(reader.name_error(&path, "is more than one key"));
            }
            let value = match std::str::from_utf8(content.expose()) {
                Ok(text) => Value::Kept(Secret::new(text.to_owned())),
                Err(_) => Value::Bytes(content.clone()),
            };
            self.put(Kind::File, &path, value)?;
        }
        Ok(())
    }

    fn put(&mut self, kind: Kind, path: &[Step], value: Value) -> Result<(), SetError> {
        let flag = kind.flag();
        match path {
            [Step::Key(first), ..] if first.is_empty() => return Ok(()),
            [first, rest @ ..] if rest.contains(&Step::Key(String::new())) => {
                let key = spell(std::slice::from_ref(first));
                return Err(SetError::Name { flag, key, problem: "has an empty key below it" });
            }
            _ => {}
        }
        put_node(&mut self.root, path, value, &mut self.holes).map_err(|misfit| match misfit {
            Misfit::Kind => SetError::Conflict { flag, key: spell(path) },
            Misfit::Holes => SetError::Holes { flag, key: spell(path) },
        })
    }
}

/// Why a value does not fit where its path leads.
enum Misfit {
    Kind,
    Holes,
}

fn put_node(slot: &mut Option<Node>, path: &[Step], value: Value, holes: &mut usize) -> Result<(), Misfit> {
    let Some((step, rest)) = path.split_first() else {
        *slot = Some(Node::Leaf(value));
        return Ok(());
    };
    let node = slot.get_or_insert_with(|| match step {
        Step::Key(_) => Node::Branch(BTreeMap::new()),
        Step::Index(_) => Node::Items(BTreeMap::new()),
    });
    match (node, step) {
        (Node::Branch(children), Step::Key(key)) => put_child(children, key.clone(), rest, value, holes),
        (Node::Items(children), Step::Index(index)) => {
            if let Some(child) = children.get_mut(index) {
                child.make_room_for(rest.first());
            }
            put_child(children, *index, rest, value, holes)
        }
        (Node::Leaf(leaf), _) => put_value(leaf, path, value, holes),
        _ => Err(Misfit::Kind),
    }
}

fn put_child<K: Ord>(
    children: &mut BTreeMap<K, Node>,
    key: K,
    rest: &[Step],
    value: Value,
    holes: &mut usize,
) -> Result<(), Misfit> {
    let mut slot = children.remove(&key);
    put_node(&mut slot, rest, value, holes)?;
    children.extend(slot.map(|node| (key, node)));
    Ok(())
}

fn put_value(target: &mut Value, path: &[Step], value: Value, holes: &mut usize) -> Result<(), Misfit> {
    let Some((step, rest)) = path.split_first() else {
        *target = value;
        return Ok(());
    };
    let child = match (target, step) {
        (Value::Map(map), Step::Key(key)) => {
            map.entry(key.clone()).or_insert_with(|| Value::room_for(rest.first()))
        }
        (Value::List(list), Step::Index(index)) => {
            if list.len() <= *index {
                *holes += index - list.len();
                if *holes > MOST_HOLES {
                    return Err(Misfit::Holes);
                }
                list.resize_with(index + 1, || Value::Null);
            }
            let item = &mut list[*index];
            item.make_room_for(rest.first());
            item
        }
        _ => return Err(Misfit::Kind),
    };
    put_value(child, rest, value, holes)
}

impl Node {
    /// Helm puts an empty map in place of a list item that is none when a key below it is set.
    fn make_room_for(&mut self, next: Option<&Step>) {
        match self {
            Self::Leaf(value) => value.make_room_for(next),
            Self::Items(_) if matches!(next, Some(Step::Key(_))) => {
                *self = Self::Leaf(Value::Map(BTreeMap::new()));
            }
            _ => {}
        }
    }

    fn texts<'a>(&'a self, path: &mut String, texts: &mut Texts<'a>) {
        match self {
            Self::Branch(children) => each(children, path, |child, path| child.texts(path, texts)),
            Self::Items(children) => {
                let children = children.iter().map(|(index, child)| (*index, child));
                each_index(children, path, |child, path| child.texts(path, texts));
            }
            Self::Leaf(value) => value.texts(path, texts),
        }
    }

    fn open<E, F>(&mut self, open: &mut F) -> Result<(), E>
    where
        F: FnMut(&Secret<String>) -> Result<Option<Data>, E>,
    {
        match self {
            Self::Branch(children) => children.values_mut().try_for_each(|child| child.open(open)),
            Self::Items(children) => children.values_mut().try_for_each(|child| child.open(open)),
            Self::Leaf(value) => value.open(open),
        }
    }

    fn said(&self, path: &[Step]) -> Option<&str> {
        match (self, path) {
            (Self::Branch(children), [Step::Key(key), rest @ ..]) => children.get(key)?.said(rest),
            (Self::Items(children), [Step::Index(index), rest @ ..]) => children.get(index)?.said(rest),
            (Self::Leaf(value), _) => value.said(path),
            _ => None,
        }
    }

    /// The document that sets everything but items of lists in value files.
    fn write(&self, out: &mut Secret<String>) -> bool {
        match self {
            Self::Items(_) => false,
            Self::Leaf(value) => {
                value.write(out);
                true
            }
            Self::Branch(children) => write_children(children, out, Self::write),
        }
    }

    /// The document that removes maps which are replaced: merging with null removes, merging with a map adds.
    fn write_clearing(&self, out: &mut Secret<String>) -> bool {
        match self {
            Self::Leaf(value) if value.is_map() => {
                push(out, "null");
                true
            }
            Self::Branch(children) => write_children(children, out, Self::write_clearing),
            _ => false,
        }
    }

    fn render(&self, path: &mut String, rendered: &mut Rendered) -> Result<(), SetError> {
        match self {
            Self::Branch(children) => at_each(children, path, |child, path| child.render(path, rendered)),
            Self::Items(children) => {
                at_each_index(children.iter().map(|(index, child)| (*index, child)), path, |child, path| {
                    child.render_item(path, rendered)
                })
            }
            Self::Leaf(value) => {
                value.retype(path, rendered);
                Ok(())
            }
        }
    }

    /// Inside of a list that may stand in a value file, where no document reaches.
    fn render_item(&self, path: &mut String, rendered: &mut Rendered) -> Result<(), SetError> {
        match self {
            Self::Branch(children) => {
                at_each(children, path, |child, path| child.render_item(path, rendered))
            }
            Self::Items(_) => self.render(path, rendered),
            Self::Leaf(value) => value.render_item(path, rendered),
        }
    }
}

impl Value {
    fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(value) => Self::Number(value),
            serde_json::Value::String(value) => Self::Text(Secret::new(value)),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(object) => {
                Self::Map(object.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect())
            }
        }
    }

    /// The type that `--set` gives to `text`.
    fn typed(text: String) -> Self {
        // Go's case folding knows that the long s is an s.
        let folded = text.replace('\u{17f}', "s").to_ascii_lowercase();
        match folded.as_str() {
            "true" => return Self::Bool(true),
            "false" => return Self::Bool(false),
            "null" => return Self::Null,
            "0" => return Self::Integer(0),
            _ => {}
        }
        match text.parse() {
            Ok(number) if !text.starts_with('0') => Self::Integer(number),
            _ => Self::Text(Secret::new(text)),
        }
    }

    fn room_for(next: Option<&Step>) -> Self {
        match next {
            Some(Step::Key(_)) => Self::Map(BTreeMap::new()),
            Some(Step::Index(_)) => Self::List(Vec::new()),
            None => Self::Null,
        }
    }

    fn make_room_for(&mut self, next: Option<&Step>) {
        let replaced = match next {
            Some(Step::Key(_)) => !matches!(self, Self::Map(_)),
            Some(Step::Index(_)) => matches!(self, Self::Null),
            None => false,
        };
        if replaced {
            *self = Self::room_for(next);
        }
    }

    fn is_map(&self) -> bool {
        match self {
            Self::Map(_) => true,
            Self::Opened(data) => matches!(data, Data::Mapping(_)),
            _ => false,
        }
    }

    fn texts<'a>(&'a self, path: &mut String, texts: &mut Texts<'a>) {
        match self {
            Self::Text(text) | Self::Kept(text) => texts.push((path.clone(), text)),
            Self::List(items) => {
                each_index(items.iter().enumerate(), path, |item, path| item.texts(path, texts));
            }
            Self::Map(map) => each(map, path, |value, path| value.texts(path, texts)),
            _ => {}
        }
    }

    fn open<E, F>(&mut self, open: &mut F) -> Result<(), E>
    where
        F: FnMut(&Secret<String>) -> Result<Option<Data>, E>,
    {
        match self {
            Self::Text(text) => {
                if let Some(opened) = open(text)? {
                    *self = Self::Opened(opened);
                }
                Ok(())
            }
            Self::Kept(text) => {
                if let Some(opened) = open(text)? {
                    *self = Self::Opened(Data::String(opened.to_text()));
                }
                Ok(())
            }
            Self::List(items) => items.iter_mut().try_for_each(|item| item.open(open)),
            Self::Map(map) => map.values_mut().try_for_each(|value| value.open(open)),
            _ => Ok(()),
        }
    }

    fn said(&self, path: &[Step]) -> Option<&str> {
        match (self, path) {
            (Self::Map(map), [Step::Key(key), rest @ ..]) => map.get(key)?.said(rest),
            (Self::List(items), [Step::Index(index), rest @ ..]) => items.get(*index)?.said(rest),
            (Self::Text(text) | Self::Kept(text), _) => Some(text.expose()),
            _ => Some(""),
        }
    }

    fn write(&self, out: &mut Secret<String>) {
        match self {
            Self::Null => push(out, "null"),
            Self::Bool(value) => push(out, if *value { "true" } else { "false" }),
            Self::Integer(value) => push(out, &value.to_string()),
            Self::Number(value) => push(out, &value.to_string()),
            Self::Text(text) | Self::Kept(text) => quote_into(out, text.expose()),
            Self::Bytes(_) => push(out, "\"\""),
            Self::Opened(data) => push(out, data.to_flow().expose()),
            Self::List(items) => {
                push(out, "[");
                for (index, item) in items.iter().enumerate() {
                    push(out, if index == 0 { "" } else { ", " });
                    item.write(out);
                }
                push(out, "]");
            }
            Self::Map(map) if map.is_empty() => push(out, "{}"),
            Self::Map(map) => {
                write_children(map, out, |value, out| {
                    value.write(out);
                    true
                });
            }
        }
    }

    /// Says again, where a document said it, what a document cannot say exactly.
    fn retype(&self, path: &mut String, rendered: &mut Rendered) {
        match self {
            Self::Integer(number) => rendered.flags.push(("--set", format!("{path}={number}"))),
            Self::Bytes(bytes) => rendered.files.push((path.clone(), bytes.clone())),
            Self::List(items) => {
                each_index(items.iter().enumerate(), path, |item, path| item.retype(path, rendered));
            }
            Self::Map(map) => each(map, path, |value, path| value.retype(path, rendered)),
            _ => {}
        }
    }

    fn render_item(&self, path: &mut String, rendered: &mut Rendered) -> Result<(), SetError> {
        match self {
            Self::Bytes(bytes) => rendered.files.push((path.clone(), bytes.clone())),
            Self::Text(text) | Self::Kept(text) | Self::Opened(Data::String(text)) => {
                rendered.files.push((path.clone(), text.expose().as_bytes().to_vec().into()));
            }
            Self::Opened(_) => return Err(SetError::OpenedInList { key: path.clone() }),
            Self::Null => rendered.flags.push(("--set", format!("{path}=null"))),
            Self::Bool(value) => rendered.flags.push(("--set", format!("{path}={value}"))),
            Self::Integer(number) => rendered.flags.push(("--set", format!("{path}={number}"))),
            Self::Number(number) => rendered.flags.push(("--set-json", format!("{path}={number}"))),
            Self::List(items) => {
                rendered.flags.push(("--set-json", format!("{path}=[]")));
                at_each_index(items.iter().enumerate(), path, |item, path| item.render_item(path, rendered))?;
            }
            Self::Map(map) => {
                rendered.flags.push(("--set-json", format!("{path}={{}}")));
                at_each(map, path, |value, path| value.render_item(path, rendered))?;
            }
        }
        Ok(())
    }
}

/// Texts and their keys.
type Texts<'a> = Vec<(String, &'a Secret<String>)>;

/// Calls `visit` with each child and the path of it, as a flag spells it.
fn at_each<'a, T>(
    children: &'a BTreeMap<String, T>,
    path: &mut String,
    mut visit: impl FnMut(&'a T, &mut String) -> Result<(), SetError>,
) -> Result<(), SetError> {
    let length = path.len();
    for (key, child) in children {
        if length > 0 {
            path.push('.');
        }
        spell_key(key, path);
        visit(child, path)?;
        path.truncate(length);
    }
    Ok(())
}

fn at_each_index<'a, T: 'a>(
    items: impl Iterator<Item = (usize, &'a T)>,
    path: &mut String,
    mut visit: impl FnMut(&'a T, &mut String) -> Result<(), SetError>,
) -> Result<(), SetError> {
    let length = path.len();
    for (index, item) in items {
        let _ = write!(path, "[{index}]");
        visit(item, path)?;
        path.truncate(length);
    }
    Ok(())
}

/// [`at_each`] for a visit that cannot fail.
fn each<'a, T>(
    children: &'a BTreeMap<String, T>,
    path: &mut String,
    mut visit: impl FnMut(&'a T, &mut String),
) {
    let visit = |child: &'a T, path: &mut String| {
        visit(child, path);
        Ok(())
    };
    at_each(children, path, visit).expect("nothing in it fails");
}

/// [`at_each_index`] for a visit that cannot fail.
fn each_index<'a, T: 'a>(
    items: impl Iterator<Item = (usize, &'a T)>,
    path: &mut String,
    mut visit: impl FnMut(&'a T, &mut String),
) {
    let visit = |item: &'a T, path: &mut String| {
        visit(item, path);
        Ok(())
    };
    at_each_index(items, path, visit).expect("nothing in it fails");
}

/// A document, or nothing when `write` has nothing to say.
fn document(write: impl FnOnce(&mut Secret<String>) -> bool) -> Option<Secret<String>> {
    let mut text = Secret::new(String::new());
    let written = write(&mut text);
    written.then(|| {
        push(&mut text, "\n");
        text
    })
}

/// A flow map of the children that `write` writes; nothing at all when it writes none.
fn write_children<T>(
    children: &BTreeMap<String, T>,
    out: &mut Secret<String>,
    write: impl Fn(&T, &mut Secret<String>) -> bool,
) -> bool {
    let start = out.expose().len();
    for (key, child) in children {
        let before = out.expose().len();
        push(out, if before == start { "{" } else { ", " });
        quote_into(out, key);
        push(out, ": ");
        if !write(child, out) {
            out.expose_mut().truncate(before);
        }
    }
    let written = out.expose().len() > start;
    if written {
        push(out, "}");
    }
    written
}

fn spell(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                spell_key(key, &mut text);
            }
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}

fn spell_key(key: &str, out: &mut String) {
    for c in key.chars() {
        if matches!(c, '\\' | ',' | '=' | '[' | ']' | '.') {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(lines: &[&str]) -> Vec<Secret<String>> {
        lines.iter().map(|line| Secret::new((*line).to_owned())).collect()
    }

    fn set(lines: &[&str]) -> Flags {
        Flags { set: secrets(lines), ..Flags::default() }
    }

    /// Documents, flags and files, one a line.
    fn told(sets: &Sets) -> String {
        let rendered = sets.render().unwrap();
        let documents = rendered.documents.iter().map(|document| document.expose().trim_end().to_owned());
        let flags = rendered.flags.iter().map(|(flag, value)| format!("{flag} {value}"));
        let files = rendered.files.iter().map(|(key, content)| {
            format!("--set-file {key} <{}>", String::from_utf8_lossy(content.expose()))
        });
        documents.chain(flags).chain(files).collect::<Vec<_>>().join("\n")
    }

    fn rendered(flags: &Flags) -> String {
        told(&Sets::parse(flags).unwrap())
    }

    #[test]
    fn set_has_the_grammar_and_types_of_helm() {
        for (line, expected) in [
            ("a.b=v,c={x,y}", r#"{"a": {"b": "v"}, "c": ["x", "y"]}"#),
            (r"a\.b=x\,y,c=1.5", r#"{"a.b": "x,y", "c": "1.5"}"#),
            ("a=TRUE,b=false,c=null,d=", r#"{"a": true, "b": false, "c": null, "d": ""}"#),
            ("a=007,b=1e3,c=+-1,y=yes", r#"{"a": "007", "b": "1e3", "c": "+-1", "y": "yes"}"#),
            ("e={}", r#"{"e": [""]}"#),
            ("a={x}b=1x", r#"{"a": ["x"], "b": "1x"}"#),
            ("a=x=y{z},", r#"{"a": "x=y{z}"}"#),
            ("a=x\\", r#"{"a": "x"}"#),
            ("=x,.b=y", ""),
            ("a=\u{7f}\u{85}\"\n", r#"{"a": "\u007f\u0085\"\n"}"#),
            ("a={x,y},a[0]=z,a[3]=w", r#"{"a": ["z", "y", null, "w"]}"#),
            ("a={x},a[0].b[1]=z", r#"{"a": [{"b": [null, "z"]}]}"#),
            ("a=x,a=y", r#"{"a": "y"}"#),
        ] {
            assert_eq!(rendered(&set(&[line])), expected, "{line}");
        }
    }

    #[test]
    fn an_integer_is_said_again_because_a_document_makes_it_a_float() {
        assert_eq!(
            rendered(&set(&["a.b=12345678,c={1,x},d=-0,e=+5"])),
            "{\"a\": {\"b\": 12345678}, \"c\": [1, \"x\"], \"d\": 0, \"e\": 5}\n\
             --set a.b=12345678\n--set c[0]=1\n--set d=0\n--set e=5"
        );
        assert_eq!(rendered(&set(&["a=0,b=00"])), "{\"a\": 0, \"b\": \"00\"}\n--set a=0");
    }

    #[test]
    fn items_of_lists_in_value_files_go_through_flags_without_strings_in_them() {
        assert_eq!(
            rendered(&set(&[r"a[0].b\,c=STRONGROOM-MARKER,a[1]={x},a[0].d=true,e=f,a[2][0]=1,a[0].n=null"])),
            "{\"e\": \"f\"}\n--set a[0].d=true\n--set a[0].n=null\n--set-json a[1]=[]\n--set a[2][0]=1\n\
             --set-file a[0].b\\,c <STRONGROOM-MARKER>\n--set-file a[1][0] <x>"
        );
        // A key below an item that is no map makes it one.
        assert_eq!(rendered(&set(&["a[0]=x", "a[0].b=y"])), "--set-json a[0]={}\n--set-file a[0].b <y>");
    }

    #[test]
    fn the_kinds_apply_in_the_order_of_helm() {
        let flags = Flags {
            literal: secrets(&["l.e=a,b\\c={d}"]),
            file: vec![("f".into(), b"content\n".to_vec().into()), ("g".into(), vec![0xff].into())],
            string: secrets(&["a=1,s=2"]),
            set: secrets(&["a=x,f=x,j=x"]),
            json: secrets(&[r#"j={"b": [1, 2.5e3]},k={"z": 1},n= ,m="t""#, r#"{"k": {"y": 2}}"#]),
        };
        assert_eq!(
            rendered(&flags),
            "{\"k\": null}\n{\"a\": \"1\", \"f\": \"content\\n\", \"g\": \"\", \"j\": \"x\", \
             \"k\": {\"y\": 2, \"z\": 1}, \"l\": {\"e\": \"a,b\\\\c={d}\"}, \"m\": \"t\", \"n\": null, \"s\": \"2\"}\n\
             --set-file g <\u{fffd}>"
        );
    }

    #[test]
    fn parameters_of_an_application_keep_their_commas() {
        let mut flags = Flags::default();
        flags.parameter("a", r"x,y\,z", false);
        flags.parameter("b", "{x,y}", false);
        flags.parameter("c", "true", true);
        assert_eq!(rendered(&flags), r#"{"a": "x,y,z", "b": ["x", "y"], "c": "true"}"#);
    }

    #[test]
    fn opened_values_never_stand_in_a_flag() {
        let mut sets = Sets::parse(&set(&["a=ref+x,b[0]=ref+x,c.d=ref+int,e={ref+x,1}"])).unwrap();
        assert_eq!(sets.texts().len(), 4);
        sets.open(|text| {
            Ok::<_, std::convert::Infallible>(match text.expose().as_str() {
                "ref+x" => Some("STRONGROOM-MARKER".into()),
                "ref+int" => Some(Data::Number(Secret::new("42".to_owned()))),
                _ => None,
            })
        })
        .unwrap();
        assert_eq!(
            told(&sets),
            "{\"a\": \"STRONGROOM-MARKER\", \"c\": {\"d\": 42}, \"e\": [\"STRONGROOM-MARKER\", 1]}\n\
             --set e[1]=1\n--set-file b[0] <STRONGROOM-MARKER>"
        );
        sets.open(|_| Ok::<_, std::convert::Infallible>(None)).unwrap();
        let mut sets = Sets::parse(&set(&["b[0]=ref+int"])).unwrap();
        sets.open(|_| Ok::<_, std::convert::Infallible>(Some(Data::Bool(true)))).unwrap();
        let error = sets.render().unwrap_err();
        assert!(error.to_string().starts_with("a reference in b[0] opened to something else than text"));
    }

    #[test]
    fn opened_values_of_flags_that_make_strings_stay_strings() {
        let flags = Flags {
            set: secrets(&["a=ref+int"]),
            string: secrets(&["b=ref+int,c={ref+int},d[0]=ref+int"]),
            file: vec![("e".to_owned(), b"ref+int".to_vec().into())],
            literal: secrets(&["f=ref+int"]),
            ..Flags::default()
        };
        let mut sets = Sets::parse(&flags).unwrap();
        sets.open(|_| Ok::<_, std::convert::Infallible>(Some(Data::Number(Secret::new("42".to_owned())))))
            .unwrap();
        assert_eq!(
            told(&sets),
            "{\"a\": 42, \"b\": \"42\", \"c\": [\"42\"], \"e\": \"42\", \"f\": \"42\"}\n--set-file d[0] <42>"
        );
    }

    #[test]
    fn bad_flags_name_the_key_and_never_the_value() {
        let deep = format!("{}a=1", "a.".repeat(31));
        let holes: Vec<String> = (0..20).map(|i| format!("a{i}={{x}},a{i}[65536]=x")).collect();
        for (line, expected) in [
            ("a=x,STRONGROOM-MARKER", "--set: no value after a"),
            ("STRONGROOM-MARKER", "--set: no value after the first key"),
            ("a[x]=STRONGROOM-MARKER", "--set: the index of a must be a number from 0 to 65536"),
            ("a[-1]=STRONGROOM-MARKER", "--set: the index of a must be a number from 0 to 65536"),
            ("a[65537]=STRONGROOM-MARKER", "--set: the index of a must be a number from 0 to 65536"),
            ("a[0]x=STRONGROOM-MARKER", "--set: a[0] is followed by more text"),
            ("a={STRONGROOM-MARKER", "--set: the list of a must end with }"),
            (
                "a=x,a.b=STRONGROOM-MARKER",
                "--set: a.b goes through a value that another flag sets to something else",
            ),
            ("a[0]=x,a.b=y", "--set: a.b goes through a value that another flag sets to something else"),
            ("a.b=x,a[0]=y", "--set: a[0] goes through a value that another flag sets to something else"),
            ("a..b=x", "--set: a has an empty key below it"),
            (&deep, "--set: a has too many levels below it"),
            (&holes.join(","), "--set: a16[65536] leaves too many list items empty"),
        ] {
            let error = Sets::parse(&set(&[line])).unwrap_err();
            let message = error.to_string();
            assert_eq!(message.lines().next(), Some(expected), "{line}");
            assert!(!message.contains("MARKER"), "{message}");
            assert_eq!(error.class(), Class::Invalid);
        }
        let flags = Flags { json: secrets(&["a={\"b\": STRONGROOM-MARKER}"]), ..Flags::default() };
        let message = Sets::parse(&flags).unwrap_err().to_string();
        assert_eq!(message, "--set-json: the value of a is not JSON (line 1, column 7)");
    }

    proptest::proptest! {
        #[test]
        fn any_flag_is_parsed_or_refused(line in "([a-c.=,{}\\[\\]\\\\0-3 \"]|\\PC){0,40}") {
            let line = vec![Secret::new(line)];
            for flags in [
                Flags { set: line.clone(), ..Flags::default() },
                Flags { json: line.clone(), ..Flags::default() },
                Flags { literal: line.clone(), ..Flags::default() },
                Flags { file: vec![(line[0].expose().clone(), Secret::default())], ..Flags::default() },
            ] {
                if let Ok(sets) = Sets::parse(&flags) {
                    let rendered = sets.render().unwrap();
                    for document in rendered.documents {
                        serde_json::from_str::<serde_json::Value>(document.expose()).unwrap();
                    }
                }
            }
        }
    }
}
