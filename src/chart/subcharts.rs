//! The charts in a chart's `charts/`, as helm finds, names and switches them.
//!
//! A chart there is a folder or an archive, and may have charts of its own. `dependencies` of the chart above gives it
//! another name (`alias`), or several, and says what switches it on (`condition`, `tags`). What cannot be read is left
//! out, and so are charts that only their version tells apart: it is helm that says what is wrong with them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::{ARCHIVE, ARCHIVE_DEPTH, ARCHIVE_LIMIT, MANIFEST, Metered};
use crate::confine;
use crate::document::MAX_SIZE;

const VALUES: &str = "values.yaml";
/// Where charts of Helm 2 say their dependencies.
const REQUIREMENTS: &str = "requirements.yaml";
const SUBCHARTS: &str = "charts/";
/// More charts than anyone has below one; names can multiply them.
const MOST: usize = 1000;

/// One chart below the one at the top.
#[derive(Debug)]
pub struct Subchart {
    /// Where its values stand among those of the chart at the top.
    pub keys: Vec<String>,
    /// Its default values, as messages call the file.
    pub file: String,
    /// Its default values.
    pub values: String,
    /// It is rendered where all are on: its own, and those of the charts it is in.
    pub switches: Vec<Switch>,
}

/// What switches a chart on.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Paths of values of the chart at the top; the first that is a boolean counts.
    conditions: Vec<Vec<String>>,
    tags: Vec<String>,
}

/// What stands at a path of the values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// A boolean.
    Bool(bool),
    /// Nothing, or something else.
    Other,
    /// It cannot be told before helm runs.
    Unclear,
}

impl Switch {
    /// Whether it is on, or may be.
    pub fn is_on(&self, at: impl Fn(&[&str]) -> At) -> bool {
        for condition in &self.conditions {
            let path: Vec<_> = condition.iter().map(String::as_str).collect();
            match at(&path) {
                At::Bool(on) => return on,
                At::Unclear => return true,
                At::Other => {}
            }
        }
        let tags: Vec<_> = self.tags.iter().map(|tag| at(&["tags", tag])).collect();
        !tags.contains(&At::Bool(false)) || tags.iter().any(|tag| matches!(tag, At::Bool(true) | At::Unclear))
    }
}

/// The charts below the one in `directory` of the repository at `root` that have default values, deepest first.
pub fn below(root: &Path, directory: &Path) -> Vec<Subchart> {
    if !directory.join(SUBCHARTS).is_dir() {
        return Vec::new();
    }
    let mut files = Files::default();
    files.gather(root, directory, "", ARCHIVE_DEPTH);
    let left = Cell::new(ARCHIVE_LIMIT);
    let mut found = Vec::new();
    files.chart("", "").find(&Above::default(), &left, &mut found);
    found.sort_by_key(|subchart| std::cmp::Reverse(subchart.keys.len()));
    found
}

/// The files that matter, by their path in the chart at the top or in an archive.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn gather(&mut self, root: &Path, directory: &Path, at: &str, depth: usize) {
        for name in [MANIFEST, REQUIREMENTS, VALUES] {
            self.read(root, directory, at, name);
        }
        let charts = directory.join(SUBCHARTS);
        for name in super::names(root, &charts).unwrap_or_default() {
            let below = format!("{at}{SUBCHARTS}");
            match confine::resolve(root, &charts, &name) {
                Ok(path) if path.is_dir() && depth > 0 => {
                    self.gather(root, &path, &format!("{below}{name}/"), depth - 1);
                }
                Ok(path) if path.is_file() && name.ends_with(ARCHIVE) => {
                    self.read(root, &charts, &below, &name);
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, root: &Path, directory: &Path, at: &str, name: &str) {
        let path = confine::resolve(root, directory, name);
        if let Ok(bytes) = path.and_then(|path| confine::read(&path, name, ARCHIVE_LIMIT as u64)) {
            self.0.insert(format!("{at}{name}"), bytes.expose().clone());
        }
    }

    /// What is in an archive, below the one folder that it holds.
    fn unpack(packed: &[u8], left: &Cell<usize>) -> Self {
        let mut files = Self::default();
        let mut archive = tar::Archive::new(Metered { inner: MultiGzDecoder::new(packed), left });
        let Ok(entries) = archive.entries() else { return files };
        for mut entry in entries.map_while(Result::ok) {
            let Some(path) = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned)) else {
                continue;
            };
            let Some((_, path)) = path.split_once('/') else { continue };
            let mut bytes = Vec::new();
            if matters(path) && entry.read_to_end(&mut bytes).is_ok() {
                files.0.insert(path.to_owned(), bytes);
            }
        }
        files
    }

    /// The chart at `at`, whose files messages call by `spelled` and their path.
    fn chart<'a>(&'a self, at: &'a str, spelled: &'a str) -> Chart<'a> {
        Chart { files: self, at, spelled }
    }

    fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.0.get(path).filter(|bytes| bytes.len() <= MAX_SIZE)?).ok()
    }
}

fn matters(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    [MANIFEST, REQUIREMENTS, VALUES].contains(&name)
        || name.ends_with(ARCHIVE) && (folder == "charts" || folder.ends_with("/charts"))
}

#[derive(Clone, Copy)]
struct Chart<'a> {
    files: &'a Files,
    at: &'a str,
    spelled: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    name: String,
    dependencies: Option<Vec<Dependency>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Dependency {
    name: String,
    alias: Option<String>,
    condition: Option<String>,
    tags: Option<Vec<String>>,
}

/// What is known of a chart that others are in.
#[derive(Default)]
struct Above {
    keys: Vec<String>,
    switches: Vec<Switch>,
    /// A chart on the way has no dependencies, so helm has not looked further.
    as_they_are: bool,
}

impl Chart<'_> {
    fn manifest(&self) -> Option<Manifest> {
        let read = |name: &str| self.files.text(&format!("{}{name}", self.at));
        let mut manifest: Manifest = serde_yaml::from_str(read(MANIFEST)?).ok()?;
        if let Some(requirements) =
            read(REQUIREMENTS).and_then(|text| serde_yaml::from_str::<Manifest>(text).ok())
        {
            manifest.dependencies = requirements.dependencies;
        }
        Some(manifest)
    }

    /// Adds what is below this chart, which stands at `above`.
    fn find(&self, above: &Above, left: &Cell<usize>, found: &mut Vec<Subchart>) {
        let Some(Manifest { dependencies, .. }) = self.manifest() else { return };
        let as_they_are = above.as_they_are || dependencies.is_none();
        let dependencies = dependencies.unwrap_or_default();
        self.each(left, |charts| {
            for (name, chart) in charts {
                let is_listed = |listed: &&Dependency| !as_they_are && listed.name == *name;
                let listed: Vec<_> = dependencies.iter().filter(is_listed).collect();
                let unlisted = Dependency { name: name.clone(), ..Dependency::default() };
                let listed = if listed.is_empty() { vec![&unlisted] } else { listed };
                for dependency in listed {
                    chart.add(&above.with(dependency, as_they_are), left, found);
                }
            }
        });
    }

    fn add(&self, own: &Above, left: &Cell<usize>, found: &mut Vec<Subchart>) {
        if found.len() >= MOST || own.keys.len() > ARCHIVE_DEPTH {
            return;
        }
        if let Some(values) = self.files.text(&format!("{}{VALUES}", self.at)) {
            found.push(Subchart {
                keys: own.keys.clone(),
                file: format!("{}{}{VALUES}", self.spelled, self.at),
                values: values.to_owned(),
                switches: own.switches.clone(),
            });
        }
        self.find(own, left, found);
    }

    /// Calls `tell` with the charts right below, by name, without those of the same name.
    fn each(&self, left: &Cell<usize>, tell: impl FnOnce(&[(String, Chart<'_>)])) {
        let below = format!("{}{SUBCHARTS}", self.at);
        let names = self.files.0.range(below.clone()..).map_while(|(path, _)| path.strip_prefix(&below));
        let mut places: Vec<_> = names.filter_map(|path| path.split('/').next()).collect();
        places.dedup();
        places.retain(|place| !place.starts_with(['_', '.']));
        let unpacked: Vec<_> = places
            .into_iter()
            .map(|place| {
                let at = format!("{below}{place}");
                match self.files.0.get(&at) {
                    Some(packed) => {
                        (String::new(), format!("{}{at}: ", self.spelled), Some(Files::unpack(packed, left)))
                    }
                    None => (format!("{at}/"), self.spelled.to_owned(), None),
                }
            })
            .collect();
        let charts = unpacked.iter().filter_map(|(at, spelled, files)| {
            let chart = files.as_ref().unwrap_or(self.files).chart(at, spelled);
            Some((chart.manifest()?.name, chart))
        });
        let mut charts: Vec<_> = charts.collect();
        let names: Vec<_> = charts.iter().map(|(name, _)| name.clone()).collect();
        charts.retain(|(name, _)| names.iter().filter(|other| *other == name).count() == 1);
        tell(&charts);
    }
}

impl Above {
    fn with(&self, dependency: &Dependency, as_they_are: bool) -> Self {
        let Dependency { name, alias, condition, tags } = dependency;
        let mut keys = self.keys.clone();
        keys.push(alias.clone().filter(|alias| !alias.is_empty()).unwrap_or_else(|| name.clone()));
        let conditions =
            condition.as_deref().unwrap_or_default().trim().split(',').filter(|path| !path.is_empty());
        let absolute =
            |path: &str| self.keys.iter().cloned().chain(path.split('.').map(str::to_owned)).collect();
        let switch =
            Switch { conditions: conditions.map(absolute).collect(), tags: tags.clone().unwrap_or_default() };
        let switches = self.switches.iter().cloned().chain([switch]).collect();
        Self { keys, switches, as_they_are }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(conditions: &[&str], tags: &[&str]) -> Switch {
        Switch {
            conditions: conditions.iter().map(|path| path.split('.').map(str::to_owned).collect()).collect(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }

    #[test]
    fn a_switch_is_on_as_helm_says() {
        let values = |path: &[&str]| match path.join(".").as_str() {
            "on" | "tags.on" => At::Bool(true),
            "off" | "tags.off" => At::Bool(false),
            "ref" | "tags.ref" => At::Unclear,
            _ => At::Other,
        };
        for (conditions, tags, expected) in [
            (&[][..], &[][..], true),
            (&["off"], &[], false),
            (&["absent", "off"], &[], false),
            (&["on", "off"], &[], true),
            (&["off"], &["on"], false),
            (&["on"], &["off"], true),
            (&["ref", "off"], &[], true),
            (&[], &["off"], false),
            (&["absent"], &["off"], false),
            (&[], &["off", "on"], true),
            (&[], &["off", "ref"], true),
            (&[], &["absent"], true),
        ] {
            assert_eq!(switch(conditions, tags).is_on(values), expected, "{conditions:?} {tags:?}");
        }
    }

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        super::super::tests::packed(files)
    }

    #[test]
    fn charts_are_found_packed_or_not_by_all_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write(
            "Chart.yaml",
            b"name: top\ndependencies:\n- {name: two, alias: b, condition: 'b.on,x', tags: [t]}\n- {name: two, alias: c}\n",
        );
        let inner = packed(&[("in/Chart.yaml", b"name: inner"), ("in/values.yaml", b"i: 1")]);
        write("charts/a/Chart.yaml", b"name: one");
        write("charts/a/values.yaml", b"a: 1");
        write("charts/a/charts/inner-1.tgz", &inner);
        write("charts/_no/Chart.yaml", b"name: no");
        write("charts/_no/values.yaml", b"a: 1");
        write("charts/twice/Chart.yaml", b"name: twice");
        write("charts/twice-2/Chart.yaml", b"name: twice");
        write("charts/twice-2/values.yaml", b"a: 1");
        write("charts/broken.tgz", b"nothing");
        let two = packed(&[
            ("x/Chart.yaml", b"name: two\ndependencies: [{name: inner, alias: deep, condition: deep.on}]"),
            ("x/values.yaml", b"b: 1"),
            ("x/templates/values.yaml", b"no: 1"),
            ("x/charts/inner-1.tgz", &inner),
        ]);
        write("charts/two-1.tgz", &two);
        let found = below(&root, &root);
        let told: Vec<_> = found
            .iter()
            .map(|found| {
                let conditions = found.switches.iter().flat_map(|switch| &switch.conditions);
                let conditions: Vec<_> = conditions.map(|path| path.join(".")).collect();
                format!("{} {} {} {}", found.keys.join("."), found.file, found.values, conditions.join(" "))
            })
            .collect();
        assert_eq!(
            told,
            [
                "one.inner charts/a/charts/inner-1.tgz: values.yaml i: 1 ",
                "b.deep charts/two-1.tgz: charts/inner-1.tgz: values.yaml i: 1 b.on x b.deep.on",
                "c.deep charts/two-1.tgz: charts/inner-1.tgz: values.yaml i: 1 c.deep.on",
                "one charts/a/values.yaml a: 1 ",
                "b charts/two-1.tgz: values.yaml b: 1 b.on x",
                "c charts/two-1.tgz: values.yaml b: 1 ",
            ]
        );
    }
}
