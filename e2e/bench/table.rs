//! Times of ways to do a thing, their ratios, and what is promised of these.
//!
//! The ways that are compared take turns, so that whatever else the machine does hits them alike; a row shows medians and
//! their ratio. Only ratios are promised.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One way of doing a thing: commands that run one after the other.
pub type Way<'a> = &'a dyn Fn() -> Vec<Command>;

/// The promise of a row: our median, divided by theirs, is no greater.
#[derive(Clone, Copy)]
pub struct AtMost(pub f64);

/// What one theme measured.
pub struct Table {
    rounds: usize,
    rows: String,
    notes: String,
    broken: Vec<String>,
}

impl Table {
    /// An empty one, whose rows are measured so many times.
    pub fn of_rounds(rounds: usize) -> Self {
        Self { rounds, rows: String::new(), notes: String::new(), broken: Vec::new() }
    }

    /// How often each way is to be measured.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Measures one row.
    pub fn compare(&mut self, name: &str, ours: Way<'_>, theirs: Way<'_>, promise: AtMost) {
        let times = time_each(self.rounds, &[ours, theirs]);
        self.hold(name, milliseconds(median(&times[0])), milliseconds(median(&times[1])), promise);
    }

    /// Adds one row that was measured.
    pub fn hold(&mut self, name: &str, ours: f64, theirs: f64, promise: AtMost) {
        let ratio = ours / theirs;
        writeln!(self.rows, "| {name} | {ours:.1} | {theirs:.1} | {ratio:.2} | {:.2} |", promise.0).unwrap();
        if ratio > promise.0 {
            self.broken.push(format!("{name}: {ratio:.2}"));
        }
    }

    /// A row that is no comparison.
    pub fn note(&mut self, name: &str, value: &str) {
        writeln!(self.notes, "| {name} | {value} |").unwrap();
    }

    /// A row of bytes.
    pub fn note_bytes(&mut self, name: &str, bytes: u64) {
        self.note(name, &format!("{:.1} MiB", mebibytes(bytes)));
    }

    /// Shows all rows.
    pub fn print(&self) {
        println!("\nMedians of {} rounds, taking turns, in milliseconds.\n", self.rounds);
        println!("| | Strongroom | the other | ratio | at most |\n|---|---|---|---|---|\n{}", self.rows);
        if !self.notes.is_empty() {
            println!("| | |\n|---|---|\n{}", self.notes);
        }
    }

    /// Fails when a promise is not kept.
    pub fn assert_kept(&self) {
        assert!(self.broken.is_empty(), "not kept: {}", self.broken.join("; "));
    }
}

/// Runs the ways in turns, and returns the times of each. The first round warms caches and is not counted.
pub fn time_each(rounds: usize, ways: &[Way<'_>]) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (way, times) in ways.iter().zip(&mut times) {
            let commands = way();
            let begun = Instant::now();
            commands.into_iter().for_each(run);
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
    }
    times
}

/// What a program prints goes where Argo CD's would: into a pipe that somebody reads.
fn run(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", command.get_program().display());
}

/// The most memory that it held, in bytes: the kernel's own record (`ru_maxrss`), read until the process ends: the last reading is at most 1 ms old.
pub fn peak(mut command: Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|kilobytes| kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()).max(peak);
        std::thread::sleep(Duration::from_millis(1));
    }
    peak.expect("a process runs for longer than a millisecond") * 1024
}

/// The middle one.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// As a number to print.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// As a number to print.
#[expect(clippy::cast_precision_loss, reason = "it is printed with one decimal")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
