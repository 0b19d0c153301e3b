//! Every command and snippet of README.md, CONTRIBUTING.md and docs/: commands run with the real tools, snippets are what they
//! seem to be, and messages are ones that the program has.
//!
//! In a block of the language `console` a line behind `$` is a command, and other lines are among what it prints, in this
//! order; `…` stands for anything. A block with a file's name behind its language is that file. The commands of a page run
//! in one shell, from the top of a copy of this repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use serde_json::{Value as Json, json};
use strongroom::config::{Cli, application};
use strongroom::render::plan::Plan;

use support::helm::helm_bare;
use support::kubernetes::assert_valid;
use support::moto::{REGION, moto};
use support::openbao::Openbao;
use support::process::Run;
use support::product::program;
use support::repository::{Repository, copy};
use support::tools::{on_path, tool, top};

/// What cannot run here: the page, how the command begins, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "git clone ", "has no address: it is your copy"),
    (
        "README.md",
        "make demo",
        "builds the release program, which takes minutes; e2e/static_binary.rs renders the same example",
    ),
    ("CONTRIBUTING.md", "cargo test --lib", "is how these tests are run"),
    ("CONTRIBUTING.md", "make set-up", "comes before these tests"),
    ("CONTRIBUTING.md", "cargo test --test", "is how these tests are run"),
    ("docs/install.md", "helm upgrade ", "needs a cluster; e2e/install.rs renders the files"),
    (
        "docs/install.md",
        "kubectl -n argocd patch argocd argocd --type merge --patch-file argocd-values/operator/base.yaml",
        "needs a cluster; e2e/install.rs checks the file",
    ),
    (
        "docs/install.md",
        "kubectl -n argocd patch argocd argocd --type merge --patch-file argocd-values/operator/age.yaml",
        "needs a cluster; e2e/install.rs checks the file",
    ),
    ("docs/first-secret.md", "git add hello", "pushes to your repository"),
    ("docs/first-secret.md", "kubectl apply ", "needs a cluster"),
    ("docs/first-secret.md", "vault write auth/kubernetes/config", "needs a server inside of a cluster"),
];

/// What is there before the commands of a page run, beside the repository.
const BEFORE: &[(&str, &str)] = &[
    (
        "README.md",
        "aws secretsmanager create-secret --name team/database --secret-string '{\"password\": \"x\"}' >/dev/null",
    ),
    (
        "docs/keys.md",
        "age-keygen -o old.txt 2>/dev/null; echo 'password: change-me' >secrets.yaml\n\
         sops encrypt --age \"$(age-keygen -y old.txt)\" --in-place secrets.yaml",
    ),
];

/// Blocks that are drawings and messages: the page, and what they begin with.
const TEXTS: &[(&str, &str)] = &[
    ("docs/check.md", "leaks    ConfigMap settings: data[\"app.conf\"]\n"),
    ("docs/how-it-works.md", "   git"),
    ("docs/policy.md", "app \"shop\" of project \"team-b\" may not open"),
];

/// One fenced block.
#[derive(Debug)]
struct Block {
    page: String,
    line: usize,
    language: String,
    file: Option<String>,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

fn pages() -> Vec<String> {
    let docs = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut pages: Vec<_> = docs.map(|name| format!("docs/{}", name.to_str().unwrap())).collect();
    pages.extend(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    pages.sort();
    pages
}

fn text_of(page: &str) -> String {
    fs::read_to_string(top().join(page)).unwrap()
}

fn blocks(page: &str) -> Vec<Block> {
    let text = text_of(page);
    let mut lines = text.lines().enumerate();
    let mut blocks = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let (language, file) =
            info.split_once(' ').map_or((info, None), |(language, file)| (language, Some(file)));
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start() != "```");
        let text: String =
            inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
        let (language, file) = (language.to_owned(), file.map(str::to_owned));
        blocks.push(Block { page: page.to_owned(), line: number + 1, language, file, text });
    }
    blocks
}

/// One command and what it prints.
#[derive(Debug)]
struct Command {
    place: String,
    text: String,
    printed: Vec<String>,
}

/// The commands of a page that run here, in a script that tells them apart, and those that do not.
fn script(page: &str) -> (String, Vec<Command>, Vec<String>) {
    let before = BEFORE.iter().find(|(of, _)| *of == page).map_or("", |(_, before)| before);
    let mut script =
        format!("set -eu -o pipefail\ntrap 'gpgconf --kill all 2>/dev/null' EXIT\n{before}\nexec 2>&1\n");
    let (mut commands, mut left_out) = (Vec::new(), Vec::new());
    for block in blocks(page) {
        if let Some(file) = &block.file {
            let folder = Path::new(file).parent().unwrap().display().to_string();
            script +=
                &format!("mkdir -p './{folder}'\ncat >'{file}' <<'END-OF-FILE'\n{}END-OF-FILE\n", block.text);
        }
        if block.language != "console" {
            continue;
        }
        let mut runs = false;
        for line in block.text.lines() {
            let Some(text) = line.strip_prefix("$ ") else {
                if runs {
                    let command: &mut Command = commands.last_mut().unwrap();
                    command.printed.push(line.to_owned());
                }
                continue;
            };
            runs = !NOT_RUN.iter().any(|(of, begin, _)| *of == page && text.starts_with(begin));
            if runs {
                script += &format!("printf '\\n@@@\\n'\n{text}\n");
                commands.push(Command { place: block.place(), text: text.to_owned(), printed: Vec::new() });
            } else {
                left_out.push(text.to_owned());
            }
        }
    }
    (script, commands, left_out)
}

/// The programs that the pages use, and `kubectl` without a cluster.
fn programs(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for name in ["helm", "sops", "age-keygen", "aws", "bao"] {
        symlink(tool(name), folder.join(name)).unwrap();
    }
    // OpenBao's command line is Vault's under another name.
    symlink(tool("bao"), folder.join("vault")).unwrap();
    symlink(program(), folder.join("strongroom")).unwrap();
    let kubectl = folder.join("kubectl");
    let dry =
        format!("#!/bin/sh\nexec '{}' \"$@\" --dry-run=client --output name\n", tool("kubectl").display());
    fs::write(&kubectl, dry).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a script in a copy of this repository, with stores to talk to.
fn run(script: &str, bao: &Openbao) -> support::process::Output {
    let world = tempfile::Builder::new().prefix("docs-").tempdir_in("/tmp").unwrap();
    let at = |name: &str| world.path().join(name);
    programs(&at("bin"));
    fs::create_dir(at("home")).unwrap();
    for part in ["examples", "argocd-values"] {
        copy(&top().join(part), &at("repository").join(part));
    }
    fs::create_dir(at("repository/.git")).unwrap();
    let path = format!("{}:/usr/bin:/bin", at("bin").display());
    Run::new(on_path("bash"))
        .directory(at("repository"))
        .env("PATH", path)
        .env("HOME", at("home"))
        .env("STRONGROOM_KEYS_DIR", at("repository/examples/keys"))
        .env("SOPS_DISABLE_VERSION_CHECK", "1")
        .envs(moto().environment())
        .env("AWS_DEFAULT_REGION", REGION)
        .envs(bao.environment())
        .stdin(script)
        .output()
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let mut rest = line;
    let first = pieces.next().unwrap_or_default();
    let Some(behind) = rest.strip_prefix(first) else { return false };
    rest = behind;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    pattern.ends_with('…') || rest.is_empty()
}

#[test]
fn every_command_runs_and_prints_what_its_page_says() {
    let bao = Openbao::start();
    let mut left_out = Vec::new();
    for page in pages() {
        let (script, commands, without) = script(&page);
        left_out.extend(without.into_iter().map(|command| (page.clone(), command)));
        if commands.is_empty() {
            continue;
        }
        let output = run(&script, &bao);
        let printed: Vec<&str> = output.stdout.split("\n@@@\n").skip(1).collect();
        let last =
            commands.get(printed.len().saturating_sub(1)).map(|command| (&command.place, &command.text));
        assert!(output.status.success(), "{last:?} failed:\n{}{}", output.stdout, output.stderr);
        assert_eq!(printed.len(), commands.len(), "{page}: not every command ran");
        for (command, printed) in commands.iter().zip(printed) {
            let mut lines = printed.lines();
            for expected in &command.printed {
                assert!(lines.any(|line| matches(expected, line)), "{command:?} printed\n{printed}");
            }
        }
    }
    for (page, begin, why) in NOT_RUN {
        let found = left_out.iter().any(|(of, command)| of == page && command.starts_with(begin));
        assert!(found, "{page} has no `{begin}` any more, which {why}");
    }
}

#[test]
fn a_line_is_matched_whole() {
    assert!(matches("a…c", "abc") && matches("a…", "abc") && matches("…", "") && matches("abc", "abc"));
    assert!(!matches("a…c", "abcd") && !matches("ab", "abc") && !matches("b…", "abc"));
}

#[test]
fn every_snippet_is_what_it_seems_to_be() {
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let place = block.place();
        match (block.language.as_str(), &block.file) {
            ("console", None) => assert!(block.text.starts_with("$ "), "{place}: it begins with a command"),
            ("yaml" | "hcl", Some(_)) => {
                let runs = blocks(&block.page).iter().any(|other| other.language == "console");
                assert!(runs, "{place}: no command of the page uses the file");
            }
            ("yaml", None) => assert_snippet(&place, &block.text),
            ("json", None) => {
                let entry: Json = serde_json::from_str(&block.text).unwrap();
                assert_eq!(entry["target"], strongroom::observe::audit::TARGET, "{place}");
            }
            ("text", None) => {
                let known =
                    TEXTS.iter().any(|(page, begin)| *page == block.page && block.text.starts_with(begin));
                assert!(known, "{place}: only drawings and messages are text");
            }
            (language, _) => panic!("{place}: nothing is known of {language:?}"),
        }
    }
}

/// A snippet of YAML: of an Application, of a kustomization, or values of the argo-cd chart.
fn assert_snippet(place: &str, text: &str) {
    let snippet: Json = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"));
    if snippet["kind"] == "Application" {
        assert_application(place, &snippet);
    } else if snippet["source"]["helm"].is_object() {
        assert!(text.starts_with("# before\n"), "{place}: only what is to be replaced is of helm");
    } else if snippet["source"].is_object() || snippet["plugin"].is_object() {
        let mut application = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application"});
        application["metadata"] = json!({"name": "snippet"});
        let alone = snippet["source"].is_null();
        application["spec"] = if alone { json!({"source": with_path(snippet)}) } else { snippet };
        assert_application(place, &application);
    } else if let Some(components) = snippet["components"].as_array() {
        for component in components {
            let path = component.as_str().unwrap().strip_prefix("strongroom/").unwrap();
            assert!(top().join(path).join("kustomization.yaml").exists(), "{place}: {path}");
        }
    } else if snippet["configs"].is_object() {
        assert_chart_values(place, text);
    } else {
        panic!("{place}: nothing is known of this snippet\n{text}");
    }
}

fn with_path(mut source: Json) -> Json {
    source["path"] = json!("app");
    source
}

/// Strongroom's own parser has to make a plan of it.
fn assert_application(place: &str, application: &Json) {
    let sources =
        application::sources(&application.to_string()).unwrap_or_else(|error| panic!("{place}: {error}"));
    for source in sources {
        Plan::from_argocd(&source.environment, None).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

fn assert_chart_values(place: &str, text: &str) {
    let repository = Repository::new();
    let values = repository.write("values.yaml", text);
    let rendered = helm_bare("helm", top().join("e2e/fixtures/argo-chart")).arg("-f").arg(values).ok();
    for document in serde_yaml::Deserializer::from_str(&rendered) {
        assert_valid(&<Json as serde::Deserialize>::deserialize(document).unwrap(), place);
    }
}

#[test]
fn every_command_named_in_a_text_exists_with_its_flags() {
    let mut cli = Cli::command();
    cli.build();
    let mut found = 0;
    for page in pages() {
        let text = text_of(&page);
        for code in text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("strongroom ")) {
            let mut words = code.split_whitespace().skip(1).take_while(|word| *word != "|");
            let name = words.next().unwrap();
            let known = cli.find_subcommand(name);
            if name.starts_with('-') || !name.chars().all(|c| c.is_ascii_lowercase()) {
                continue;
            }
            let known = known.unwrap_or_else(|| panic!("{page}: there is no `{code}`"));
            for flag in words.filter_map(|word| word.strip_prefix("--")) {
                let flag = flag.split(['=', ']']).next().unwrap();
                let has = known.get_arguments().any(|argument| {
                    argument.get_long() == Some(flag)
                        || argument.get_all_aliases().unwrap_or_default().contains(&flag)
                });
                assert!(flag.is_empty() || has, "{page}: `{code}` has no --{flag}");
            }
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn every_message_of_the_troubleshooting_page_is_one_of_the_program() {
    let mut files = Vec::new();
    support::repository::list(&top().join("src"), &mut files);
    let source: String = files.iter().map(|(_, content)| String::from_utf8_lossy(content)).collect();
    // A literal goes on behind a line break that is escaped.
    let joined: String = source.split("\\\n").map(str::trim_start).collect();
    let program: BTreeSet<&str> = [source.as_str(), joined.as_str()].into();
    let page = text_of("docs/troubleshooting.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10);
    for row in rows {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        let messages: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!messages.is_empty(), "no message is quoted in: {row}");
        for piece in messages.iter().flat_map(|message| message.split('…')).map(str::trim) {
            assert!(program.iter().any(|text| text.contains(piece)), "{piece:?} is not in src/");
        }
    }
}

#[test]
fn every_link_between_pages_leads_to_a_file() {
    for page in pages() {
        let folder: PathBuf = top().join(&page).parent().unwrap().to_owned();
        for target in text_of(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap();
            if !target.contains("://") && !path.is_empty() {
                assert!(folder.join(path).exists(), "{page}: {target}");
            }
        }
    }
}
