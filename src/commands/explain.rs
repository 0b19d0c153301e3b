//! `strongroom explain`: each final value of a chart or an Application, and where it comes from.
//!
//! Everything is opened as for `template`. Opened values are masked.

use std::fmt::Write as _;

use anstyle::Style;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::commands::Failure;
use crate::commands::template::jobs;
use crate::commands::terminal::Terminal;
use crate::config::{Explain, Output};
use crate::observe::Observer;
use crate::redact::Redactor;
use crate::refs::scan;
use crate::render::Renderer;
use crate::render::explain::{Explained, Explanation, Place};
use crate::render::mask;
use crate::secret::Secret;

/// Longer values are cut in lines for people.
const SHOWN: usize = 100;

/// One final value, fit to be shown.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    value: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Place>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over: Vec<Place>,
}

/// All final values of one render.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    values: Vec<Line>,
}

/// Prints the final values of every render.
pub(super) async fn run(
    args: &Explain,
    renderer: &Renderer,
    observer: &Observer,
    terminal: Terminal,
) -> Result<Secret<Vec<u8>>, Failure> {
    let jobs = jobs(&args.chart, renderer, observer)?;
    let mut explanations = Vec::new();
    for job in &jobs {
        explanations.push(job.explain(renderer).await?);
    }
    let mut reports = Vec::new();
    for (job, Explanation { values, opened }) in jobs.iter().zip(&explanations) {
        let lines = values.iter().map(|value| Line::of(value, opened)).collect::<Result<_, _>>();
        reports.push(Report { name: &job.plan.release_name, values: lines.map_err(Failure::internal)? });
    }
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&reports).map_err(Failure::internal)? + "\n",
        Output::Text => reports.iter().map(|report| report.text(terminal)).collect(),
    };
    Ok(text.into_bytes().into())
}

impl Line {
    fn of(explained: &Explained, opened: &Redactor) -> Result<Self, serde_json::Error> {
        let json = explained.value.expose();
        let secret = explained.is_secret() || opened.occurs_in(json);
        let shown = if secret { masked(json)? } else { json.clone() };
        // A reference can hold what it opens to, or stand in an encrypted value.
        let shown_place = |place: &Place| Place {
            references: place.references.iter().map(|reference| opened.redact(reference)).collect(),
            ..place.clone()
        };
        Ok(Self {
            path: opened.redact(&scan::spell(&explained.path)),
            value: RawValue::from_string(shown)?,
            from: explained.from.as_ref().map(shown_place),
            over: explained.over.iter().map(shown_place).collect(),
        })
    }
}

/// What `template` shows in the place of the same value.
fn masked(json: &str) -> Result<String, serde_json::Error> {
    let text = serde_json::from_str::<String>(json).map(Secret::new);
    serde_json::to_string(&mask::placeholder(text.as_ref().map_or(json, |text| text.expose())))
}

impl Report<'_> {
    fn text(&self, terminal: Terminal) -> String {
        let comment = |text: &str| terminal.paint(Style::new().dimmed(), text);
        let mut text = comment(&format!("# {}", self.name)) + "\n";
        for Line { path, value, from, over } in &self.values {
            let value = value.get();
            let shown: String = value.chars().take(SHOWN).collect();
            let cut = if shown.len() < value.len() { "…" } else { "" };
            let mut origin = from.as_ref().map_or_else(|| "helm".to_owned(), told);
            for (index, place) in over.iter().enumerate() {
                let _ = write!(origin, "{} {}", if index == 0 { "; over" } else { "," }, told(place));
            }
            let _ = writeln!(text, "{path}: {shown}{cut}  {}", comment(&format!("# {origin}")));
        }
        text
    }
}

/// A place as a person reads it: `values.yaml:3, encrypted`.
fn told(place: &Place) -> String {
    let mut told = place.source.clone();
    if let Some(line) = place.line {
        let _ = write!(told, ":{line}");
    }
    let notes = place.encrypted.then_some("encrypted").into_iter();
    let notes: Vec<_> = notes.chain(place.references.iter().map(String::as_str)).collect();
    if !notes.is_empty() {
        let _ = write!(told, " ({})", notes.join(", "));
    }
    told
}
