//! What a render tells about itself while it runs: numbers, timings, spans, and who opened what.
//!
//! An [`Observer`] goes with each render in its [`Scope`](crate::scope::Scope), so that nothing that opens or runs
//! something needs to know who counts it, logs it or exports it. It is told names, kinds and durations, never a value.

pub mod audit;
pub mod meters;
pub mod traces;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Instrument, Span};

use crate::fault::Class;

pub use meters::Meters;

/// The target of the spans of stages, which are for traces and not for log lines.
pub const STAGES: &str = "strongroom::stage";

/// The stages of a render, in their order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Waiting for a slot.
    #[default]
    Queue,
    /// Receiving and unpacking the repository.
    Receive,
    /// Reading settings and the chart.
    Plan,
    /// Reading and decrypting value files.
    Open,
    /// Fetching what references name.
    Resolve,
    /// Running helm.
    Helm,
    /// Looking through helm's output.
    Check,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Queue, Self::Receive, Self::Plan, Self::Open, Self::Resolve, Self::Helm, Self::Check];

    /// As labels, log lines and traces spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Receive => "receive",
            Self::Plan => "plan",
            Self::Open => "open",
            Self::Resolve => "resolve",
            Self::Helm => "helm",
            Self::Check => "check",
        }
    }
}

/// Follows one render. Clones follow the same.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    /// Where it is counted.
    pub meters: Meters,
    /// What log lines call the request, where there is one.
    pub request: Option<Arc<str>>,
    timings: Arc<Mutex<Timings>>,
    trail: Option<Arc<Mutex<Vec<audit::Entry>>>>,
}

/// How long each stage took, and which one came last.
#[derive(Clone, Copy, Debug, Default)]
struct Timings {
    took: [Option<Duration>; Stage::ALL.len()],
    last: Stage,
}

impl Observer {
    /// Follows a request that counts in `meters`.
    pub fn new(meters: Meters, request: impl Into<Arc<str>>) -> Self {
        Self { meters, request: Some(request.into()), ..Self::default() }
    }

    /// Keeps what is opened, for [`Self::trail`].
    pub fn keeping_trail() -> Self {
        Self { trail: Some(Arc::default()), ..Self::default() }
    }

    /// What was opened or not so far, where that is kept.
    pub fn trail(&self) -> Vec<audit::Entry> {
        let trail = self.trail.as_ref();
        trail.map(|trail| std::mem::take(&mut *lock(trail))).unwrap_or_default()
    }

    /// Notes what was opened, or why not.
    pub fn opened(&self, access: audit::Access<'_>, outcome: Result<(), Class>) {
        if let Some(trail) = &self.trail {
            lock(trail).push(audit::Entry::of(access, outcome));
        }
    }

    /// Awaits a stage in a span of its own, and takes its time, also when it is given up.
    pub async fn stage<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let _timing = self.begin(stage);
        let span = tracing::info_span!(target: STAGES, "stage", otel.name = stage.name());
        work.instrument(span).await
    }

    /// Does a stage that waits for nothing.
    pub fn step<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let _timing = self.begin(stage);
        tracing::info_span!(target: STAGES, "stage", otel.name = stage.name()).in_scope(work)
    }

    fn begin(&self, stage: Stage) -> Timing<'_> {
        self.change(|timings| timings.last = stage);
        Timing { observer: self, stage, started: Instant::now() }
    }

    /// The stage that began last.
    pub fn last(&self) -> Stage {
        self.change(|timings| timings.last)
    }

    /// Writes what each stage took into the fields `queue_ms` to `check_ms` of `span`.
    pub fn record(&self, span: &Span) {
        let took = self.change(|timings| timings.took);
        for (stage, took) in Stage::ALL.into_iter().zip(took) {
            if let Some(took) = took {
                span.record(&*format!("{}_ms", stage.name()), milliseconds(took));
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Timings) -> T) -> T {
        change(&mut lock(&self.timings))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With one decimal.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// A stage that runs as long as this lives.
struct Timing<'a> {
    observer: &'a Observer,
    stage: Stage,
    started: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.observer.meters.took(self.stage, took);
        self.observer.change(|timings| {
            let of_stage = &mut timings.took[self.stage as usize];
            *of_stage = Some(of_stage.unwrap_or_default() + took);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_counts_also_when_it_is_given_up() {
        let observer = Observer::default();
        let forever = observer.stage(Stage::Helm, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(2), forever).await.is_err());
        assert_eq!(observer.last(), Stage::Helm);
        assert!(observer.clone().change(|timings| timings.took[Stage::Helm as usize]).is_some());
        assert_eq!(observer.step(Stage::Check, || 7), 7);
        assert_eq!(observer.last(), Stage::Check);
    }

    #[test]
    fn stages_stand_in_their_order() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index, "{}", stage.name());
        }
    }
}
