//! `strongroom check`: which keys and references a chart or an Application needs, whether all can be opened here, and where what
//! was opened would stand outside of Secrets.
//!
//! Everything is opened and rendered as for `template`. What is printed are names and results, never a value.

use std::fmt::Write as _;

use anstyle::AnsiColor;
use serde::Serialize;

use crate::commands::Failure;
use crate::commands::template::{Job, jobs};
use crate::commands::terminal::Terminal;
use crate::config::{Check, Output};
use crate::fault;
use crate::observe::Observer;
use crate::observe::audit::Entry;
use crate::redact::Redactor;
use crate::render::Renderer;
use crate::render::leaks::{Leak, leaks};
use crate::render::set::Sets;
use crate::secret::Secret;

/// Exit code where all opens and renders, and something opened would stand outside of Secrets.
const LEAKS: u8 = 3;

/// What is known of all renders.
#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    renders: Vec<Finding>,
}

/// What is known of one render.
#[derive(Debug, Serialize)]
struct Finding {
    /// Name of the release.
    name: String,
    /// Whether it can be deployed.
    ok: bool,
    /// Each key and reference that was asked for, once.
    accesses: Vec<Entry>,
    /// Why it fails.
    problems: Vec<String>,
    /// Where something opened would stand outside of Secrets.
    leaks: Vec<Leak>,
}

/// Prints what was found; fails where anything does, and where something opened would be seen.
pub(super) async fn run(
    args: &Check,
    renderer: &Renderer,
    observer: &Observer,
    terminal: Terminal,
) -> Result<Secret<Vec<u8>>, Failure> {
    let mut renders = Vec::new();
    for job in jobs(&args.chart, renderer, observer)? {
        renders.push(finding(&job, renderer).await);
    }
    let findings = Findings { ok: renders.iter().all(|finding| finding.ok), renders };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&findings).map_err(Failure::internal)? + "\n",
        Output::Text => findings.text(terminal),
    };
    let output = Secret::new(text.into_bytes());
    let all = findings.renders.len();
    let count = |of: fn(&Finding) -> bool| findings.renders.iter().filter(|finding| of(finding)).count();
    let failure = match (count(|finding| !finding.ok), count(|finding| !finding.leaks.is_empty())) {
        (0, 0) => return Ok(output),
        (0, leak) => {
            Failure::new(format!("{leak} of {all} would show opened values outside of Secrets"), LEAKS)
        }
        (failed, _) => Failure::new(format!("{failed} of {all} would fail"), 1),
    };
    Err(Failure { output, ..failure })
}

async fn finding(job: &Job, renderer: &Renderer) -> Finding {
    let (problems, leaks) = match job.render(renderer).await {
        Ok(rendered) => (Vec::new(), leaks(rendered.manifests.expose(), &Redactor::new(&rendered.opened))),
        Err(failure) => {
            let each = problems(job, renderer).await;
            (if each.is_empty() { vec![failure.to_string()] } else { each }, Vec::new())
        }
    };
    let mut accesses = job.scope.observer.trail();
    accesses.sort();
    accesses.dedup();
    Finding { name: job.plan.release_name.clone(), ok: problems.is_empty(), accesses, problems, leaks }
}

/// A render ends at the first source that does not open. This goes on, to say all of them at once.
async fn problems(job: &Job, renderer: &Renderer) -> Vec<String> {
    let (plan, scope, opener) = (&job.plan, &job.scope, &renderer.opener);
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for source in &plan.values {
        match opener.open(std::slice::from_ref(source), scope).await {
            Ok(opened) => documents.extend(opened),
            Err(error) => problems.push(fault::report(&error)),
        }
    }
    for file in &plan.set_files {
        let opened = opener.open_contents(std::slice::from_ref(file), scope).await;
        problems.extend(opened.err().map(|error| fault::report(&error)));
    }
    let Ok(mut sets) = Sets::parse(&plan.sets) else { return problems };
    let defaults = opener.open_defaults(scope);
    let resolved = opener.resolve(defaults, &mut documents, &mut sets, scope).await;
    problems.extend(resolved.err().map(|error| fault::report(&error)));
    problems
}

impl Findings {
    fn text(&self, terminal: Terminal) -> String {
        let mut text = String::new();
        for finding in &self.renders {
            for access in &finding.accesses {
                let _ = writeln!(text, "{}  {}", column(access.result, terminal), subject(access));
            }
            for problem in &finding.problems {
                let _ = writeln!(
                    text,
                    "{}  {}",
                    column("problem", terminal),
                    problem.replace('\n', "\n         ")
                );
            }
            for Leak { object, path } in &finding.leaks {
                let _ = writeln!(text, "{}  {object}: {path}", column("leaks", terminal));
            }
            let verdict = if finding.ok { "everything opens, and it renders" } else { "it would fail" };
            let _ = writeln!(text, "{}: {verdict}", finding.name);
        }
        text
    }
}

fn subject(access: &Entry) -> String {
    match access {
        Entry { reference: Some(reference), .. } => reference.clone(),
        Entry { file, key_type, key_id, .. } => {
            let parts = [key_type, key_id, file].into_iter().flatten();
            parts.map(String::as_str).collect::<Vec<_>>().join("  ")
        }
    }
}

/// In a column of its own; green for what opens, else red.
fn column(result: &str, terminal: Terminal) -> String {
    let colour = if result == "opened" { AnsiColor::Green } else { AnsiColor::Red };
    terminal.paint(colour.on_default(), &format!("{result:7}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn findings() -> Findings {
        let reference = Entry {
            reference: Some("ref+sops:///a.yaml".to_owned()),
            file: None,
            key_type: None,
            key_id: None,
            result: "denied",
        };
        let key = Entry {
            reference: None,
            file: Some("b.yaml".to_owned()),
            key_type: Some("age".to_owned()),
            key_id: Some("age1x".to_owned()),
            result: "opened",
        };
        let problems = vec!["one\nhelp: two".to_owned()];
        let leaks = vec![Leak { object: "ConfigMap a".to_owned(), path: "data.b".to_owned() }];
        let accesses = vec![key, reference];
        let finding = Finding { name: "shop".to_owned(), ok: false, accesses, problems, leaks };
        Findings { ok: false, renders: vec![finding] }
    }

    #[test]
    fn lines_name_each_key_and_reference_with_its_result() {
        let expected = "opened   age  age1x  b.yaml\ndenied   ref+sops:///a.yaml\n\
                        problem  one\n         help: two\nleaks    ConfigMap a: data.b\nshop: it would fail\n";
        assert_eq!(findings().text(Terminal::of(&Environment::default())), expected);
    }

    #[test]
    fn the_document_leaves_out_what_is_not_there() {
        let document = serde_json::to_value(findings()).unwrap();
        let access = &document["renders"][0]["accesses"][1];
        assert_eq!(*access, serde_json::json!({"reference": "ref+sops:///a.yaml", "result": "denied"}));
        assert_eq!(document["ok"], false);
    }
}
