//! What is linked into the program: an SPDX 2.3 document of it, and the texts of the licences.
//!
//! Both come from `cargo metadata`, the toolchain and the packages' own files, and say nothing about time or place, so
//! that two builds of one lock file by one toolchain are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Writes `sbom.spdx.json.gz` and `licences.txt.gz` to the build's own folder.
pub(super) fn write() -> Result<()> {
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=build/inventory.rs");
    let mut linked = linked(&metadata()?)?;
    for package in toolchain()? {
        let index = linked.len();
        linked[0].uses.push(index);
        linked.push(package);
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let document = serde_json::to_string_pretty(&spdx(&linked, &checksums()?))?;
    compress(&out.join("sbom.spdx.json.gz"), &document)?;
    compress(&out.join("licences.txt.gz"), &licences(&linked)?)
}

/// One package that is part of the program.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// A package URL.
    locator: String,
    /// Files with the texts of its licences.
    texts: Vec<PathBuf>,
    /// Indexes of what it uses.
    uses: Vec<usize>,
}

fn metadata() -> Result<Json> {
    let platform = env::var("TARGET")?;
    let args = ["metadata", "--locked", "--format-version=1", "--filter-platform", &platform];
    Ok(serde_json::from_str(&said(&env::var("CARGO")?, &args)?)?)
}

/// The program first, then all that it links, by name. Macros and build scripts only run; they are not part of it.
fn linked(metadata: &Json) -> Result<Vec<Package>> {
    let packages: BTreeMap<_, _> =
        items(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<_, _> =
        items(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let ours = env::var("CARGO_PKG_NAME")?;
    let own = packages.iter().find(|(_, package)| package["name"] == *ours).ok_or("no package of ours")?.0;
    let (mut found, mut next) = (BTreeSet::new(), vec![*own]);
    while let Some(id) = next.pop() {
        if found.insert(id) {
            next.extend(uses(nodes[id]).filter(|id| !is_macro(packages[id])));
        }
    }
    let mut order: Vec<&str> = found.into_iter().collect();
    order.sort_by_key(|id| (id != own, text(&packages[id]["name"]), text(&packages[id]["version"])));
    let index: BTreeMap<_, _> = order.iter().enumerate().map(|(index, id)| (*id, index)).collect();
    let package = |id: &&str| {
        let (name, version) = (text(&packages[id]["name"]), text(&packages[id]["version"]));
        Ok(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: packages[id]["license"].as_str().unwrap_or("NOASSERTION").replace('/', " OR "),
            locator: format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
            texts: licence_files(
                Path::new(text(&packages[id]["manifest_path"])).parent().unwrap_or(Path::new("/")),
            )?,
            uses: uses(nodes[id]).filter_map(|id| index.get(id).copied()).collect(),
        })
    };
    order.iter().map(package).collect()
}

/// What the toolchain links in: Rust's own library, and where libc is linked statically that and gcc's unwinder. The texts
/// are where rustup and Debian put them.
fn toolchain() -> Result<Vec<Package>> {
    let rustc = env::var("RUSTC")?;
    let release = said(&rustc, &["-vV"])?;
    let release =
        release.lines().find_map(|line| line.strip_prefix("release: ")).ok_or("rustc says no release")?;
    let library = Path::new(said(&rustc, &["--print", "sysroot"])?.trim()).join("share/doc/rust/licenses");
    let package = |name: &str, version: &str, licence: &str, texts: [PathBuf; 2]| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
        locator: format!("pkg:generic/{name}@{version}"),
        texts: texts.into_iter().filter(|file| file.is_file()).collect(),
        uses: Vec::new(),
    };
    let texts = ["Apache-2.0.txt", "MIT.txt"].map(|file| library.join(file));
    let mut packages = vec![package("rust-std", release, "MIT OR Apache-2.0", texts)];
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if env::var("CARGO_CFG_TARGET_ENV")? == "gnu"
        && features.split(',').any(|feature| feature == "crt-static")
    {
        let libc = said("getconf", &["GNU_LIBC_VERSION"])?;
        let libc = libc.trim().rsplit(' ').next().unwrap_or_default();
        let texts = ["doc/libc6-dev/copyright", "common-licenses/LGPL-2.1"]
            .map(|file| Path::new("/usr/share").join(file));
        packages.push(package("glibc", libc, "LGPL-2.1-or-later", texts));
        let gcc = said("gcc", &["-dumpfullversion"])?;
        let texts = ["GPL-3.0-or-later.txt", "GCC-exception-3.1.txt"].map(|file| library.join(file));
        packages.push(package("libgcc", gcc.trim(), "GPL-3.0-or-later WITH GCC-exception-3.1", texts));
    }
    Ok(packages)
}

fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn uses(node: &Json) -> impl Iterator<Item = &str> {
    let normal =
        |dependency: &&Json| items(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    items(&node["deps"]).iter().filter(normal).map(|dependency| text(&dependency["pkg"]))
}

fn is_macro(package: &Json) -> bool {
    items(&package["targets"]).iter().any(|target| target["kind"][0] == "proc-macro")
}

fn items(list: &Json) -> &[Json] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// The registry's checksum of each package, by name and version.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let lock = fs::read_to_string("Cargo.lock")?;
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|line| line.strip_suffix('"')).map(str::to_owned)
    };
    let package =
        |block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?));
    Ok(lock.split("[[package]]").filter_map(package).collect())
}

fn spdx(linked: &[Package], checksums: &BTreeMap<(String, String), String>) -> Json {
    let id = |index: usize| {
        format!("SPDXRef-{}-{}", linked[index].name, linked[index].version).replace(['_', '+'], "-")
    };
    let package = |(index, package): (usize, &Package)| {
        let checksum = checksums.get(&(package.name.clone(), package.version.clone()));
        json!({
            "SPDXID": id(index),
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": package.licence,
            "copyrightText": "NOASSERTION",
            "checksums": checksum.map(|sum| json!({"algorithm": "SHA256", "checksumValue": sum})).into_iter().collect::<Vec<_>>(),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.locator,
            }],
        })
    };
    let relation = |from: String, kind: &str, to: String| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let describes = relation("SPDXRef-DOCUMENT".to_owned(), "DESCRIBES", id(0));
    let depends = linked
        .iter()
        .enumerate()
        .flat_map(|(index, package)| package.uses.iter().map(move |used| (index, *used)));
    let depends = depends.map(|(from, to)| relation(id(from), "DEPENDS_ON", id(to)));
    let relationships: Vec<_> = [describes].into_iter().chain(depends).collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", linked[0].name, linked[0].version),
        "documentNamespace": format!("urn:{}:spdx:{}", linked[0].name, linked[0].version),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Organization: Strongroom"]},
        "packages": linked.iter().enumerate().map(package).collect::<Vec<_>>(),
        "relationships": relationships,
    })
}

/// Every licence text once, under the packages that it is of.
fn licences(linked: &[Package]) -> Result<String> {
    let (mut texts, mut without) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
    for package in linked {
        let name = format!("{} {} ({})", package.name, package.version, package.licence);
        if package.texts.is_empty() {
            without.push(name.clone());
        }
        for file in &package.texts {
            let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut all = String::from("The licences of what is linked into this program.\n");
    for (text, packages) in texts {
        write!(all, "\n{}\n{}\n\n{}\n", "=".repeat(80), packages.join("\n"), text.trim_end())?;
    }
    write!(all, "\n{}\nWithout a text of their own:\n{}\n", "=".repeat(80), without.join("\n"))?;
    Ok(all)
}

fn licence_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        file.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"]
                .iter()
                .any(|start| name.starts_with(start))
    });
    files.sort();
    Ok(files)
}

fn compress(path: &Path, text: &str) -> Result<()> {
    let mut file = GzEncoder::new(File::create(path)?, Compression::best());
    file.write_all(text.as_bytes())?;
    file.finish()?;
    Ok(())
}
