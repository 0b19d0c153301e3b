//! What the process counts. Labels are stages, schemes, kinds and classes of failure, never names from a request, but
//! where the operator asks for the apps' names.
//!
//! [`Meters`] is a handle on numbers that all clones share. Whoever has one counts; `http` alone shows the registry.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Stage;
use crate::fault::Class;

/// Bounds of histograms of durations, in seconds.
const SECONDS: [f64; 15] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The stage of a render that passed them all.
const DONE: &str = "done";
/// The result of what did not fail.
const OK: &str = "ok";
/// The result of a request whose client went away.
pub const CANCELLED: &str = "cancelled";

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Durations<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// The process's numbers; clones count in the same.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    requests: Family<Labels<2>, Counter>,
    renders: Family<Labels<2>, Counter>,
    app_renders: Family<AppLabels, Counter>,
    by_app: bool,
    stages: Durations<1>,
    received: Counter,
    queued: Gauge,
    running: Gauge,
    cache_lookups: Family<Labels<2>, Counter>,
    cache_size: Family<Labels<1>, Gauge>,
    unkept: Family<Labels<1>, Counter>,
    reloads: Family<Labels<2>, Counter>,
    fetches: Family<Labels<2>, Counter>,
    fetch_durations: Durations<1>,
    decryptions: Family<Labels<2>, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AppLabels {
    app: String,
    project: String,
    result: &'static str,
}

impl Default for Numbers {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            requests: Family::default(),
            renders: Family::default(),
            app_renders: Family::default(),
            by_app: false,
            stages: Family::new_with_constructor(seconds),
            received: Counter::default(),
            queued: Gauge::default(),
            running: Gauge::default(),
            cache_lookups: Family::default(),
            cache_size: Family::default(),
            unkept: Family::default(),
            reloads: Family::default(),
            fetches: Family::default(),
            fetch_durations: Family::new_with_constructor(seconds),
            decryptions: Family::default(),
        }
    }
}

/// The result of something that may fail with `Class`.
fn result(outcome: Result<(), Class>) -> &'static str {
    outcome.map_or_else(Class::label, |()| OK)
}

impl Meters {
    /// Meters that `registry` shows. With `by_app`, renders are counted by the apps' names too.
    pub fn register(registry: &mut Registry, by_app: bool) -> Self {
        let meters = Self(Arc::new(Numbers { by_app, ..Numbers::default() }));
        let numbers = &meters.0;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("strongroom_build", "What is running", version);
        registry.register(
            "strongroom_requests",
            "Requests of Argo CD, by method and result",
            numbers.requests.clone(),
        );
        registry.register(
            "strongroom_renders",
            "Renders, by result and the stage that they ended in; those that passed all ended in `done`",
            numbers.renders.clone(),
        );
        // From zero on, so that a first denial is an increase, which an alert waits for.
        for stage in Stage::ALL {
            drop(
                numbers.renders.get_or_create(&[("result", Class::Denied.label()), ("stage", stage.name())]),
            );
        }
        if by_app {
            registry.register(
                "strongroom_app_renders",
                "Renders, by app, project and result",
                numbers.app_renders.clone(),
            );
        }
        registry.register_with_unit(
            "strongroom_stage_duration",
            "How long the stages of a render took",
            Unit::Seconds,
            numbers.stages.clone(),
        );
        registry.register_with_unit(
            "strongroom_received",
            "Size of the archives received, compressed",
            Unit::Bytes,
            numbers.received.clone(),
        );
        registry.register(
            "strongroom_queued_requests",
            "Requests that wait for a free slot",
            numbers.queued.clone(),
        );
        registry.register(
            "strongroom_running_requests",
            "Requests that have a slot",
            numbers.running.clone(),
        );
        meters.register_access(registry);
        meters
    }

    /// What is opened, and what is kept.
    fn register_access(&self, registry: &mut Registry) {
        registry.register(
            "strongroom_cache_lookups",
            "Lookups in a cache, by cache and result: hit or miss",
            self.0.cache_lookups.clone(),
        );
        registry.register_with_unit(
            "strongroom_cache_size",
            "What a cache holds",
            Unit::Bytes,
            self.0.cache_size.clone(),
        );
        registry.register(
            "strongroom_unkept_renders",
            "Runs of helm whose result could not be kept, by reason",
            self.0.unkept.clone(),
        );
        registry.register(
            "strongroom_reloads",
            "Times that the operator's files changed and were read anew, by what they hold and result: ok or failed",
            self.0.reloads.clone(),
        );
        registry.register(
            "strongroom_fetches",
            "Documents asked of secret stores, by scheme and result",
            self.0.fetches.clone(),
        );
        registry.register_with_unit(
            "strongroom_fetch_duration",
            "How long secret stores took to answer, by scheme; documents that are asked for together count once",
            Unit::Seconds,
            self.0.fetch_durations.clone(),
        );
        registry.register(
            "strongroom_decryptions",
            "Data keys of SOPS files asked of master keys, by kind of key and result",
            self.0.decryptions.clone(),
        );
    }

    /// A request was answered; `result` is [`CANCELLED`] when nobody was left to be answered.
    pub fn answered(&self, method: &'static str, outcome: Option<Result<(), Class>>) {
        let result = outcome.map_or(CANCELLED, result);
        self.0.requests.get_or_create(&[("method", method), ("result", result)]).inc();
    }

    /// A render ended, in the stage `ended` unless it passed all.
    pub fn rendered(
        &self,
        app: &str,
        project: Option<&str>,
        ended: Stage,
        outcome: Option<Result<(), Class>>,
    ) {
        let result = outcome.map_or(CANCELLED, result);
        let stage = if result == OK { DONE } else { ended.name() };
        self.0.renders.get_or_create(&[("result", result), ("stage", stage)]).inc();
        if self.0.by_app {
            let (app, project) = (app.to_owned(), project.unwrap_or_default().to_owned());
            self.0.app_renders.get_or_create(&AppLabels { app, project, result }).inc();
        }
    }

    /// A stage took so long.
    pub fn took(&self, stage: Stage, duration: Duration) {
        self.0.stages.get_or_create(&[("stage", stage.name())]).observe(duration.as_secs_f64());
    }

    /// An archive arrived.
    pub fn received(&self, bytes: u64) {
        self.0.received.inc_by(bytes);
    }

    /// Something was looked up in `cache`, and was there or not.
    pub fn looked_up(&self, cache: &'static str, hit: bool) {
        let result = if hit { "hit" } else { "miss" };
        self.0.cache_lookups.get_or_create(&[("cache", cache), ("result", result)]).inc();
    }

    /// `cache` holds so many bytes now.
    pub fn holds(&self, cache: &'static str, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.cache_size.get_or_create(&[("cache", cache)]).set(bytes);
    }

    /// What helm prints cannot be kept, for `reason`.
    pub fn unkept(&self, reason: &'static str) {
        self.0.unkept.get_or_create(&[("reason", reason)]).inc();
    }

    /// Files that hold `what` are watched: shows their numbers from zero on, so that a first failure is an increase.
    pub fn watches(&self, what: &'static str) {
        for ok in [true, false] {
            self.reloads(what, ok);
        }
    }

    /// Files that hold `what` changed, and could be read or could not.
    pub fn reloaded(&self, what: &'static str, ok: bool) {
        self.reloads(what, ok).inc();
    }

    fn reloads(&self, what: &'static str, ok: bool) -> Counter {
        let result = if ok { OK } else { "failed" };
        self.0.reloads.get_or_create_owned(&[("what", what), ("result", result)])
    }

    /// A secret store was asked for a document.
    pub fn fetched(&self, scheme: &'static str, outcome: Result<(), Class>) {
        self.0.fetches.get_or_create(&[("scheme", scheme), ("result", result(outcome))]).inc();
    }

    /// A secret store took so long.
    pub fn fetch_took(&self, scheme: &'static str, duration: Duration) {
        self.0.fetch_durations.get_or_create(&[("scheme", scheme)]).observe(duration.as_secs_f64());
    }

    /// A master key was asked for a data key.
    pub fn decrypted(&self, key_type: &'static str, outcome: Result<(), Class>) {
        self.0.decryptions.get_or_create(&[("key_type", key_type), ("result", result(outcome))]).inc();
    }

    /// Counts a request that waits for a slot as long as the answer lives.
    pub fn queued(&self) -> Counted {
        Counted::new(&self.0.queued)
    }

    /// How many requests wait for a slot.
    pub fn queue_length(&self) -> i64 {
        self.0.queued.get()
    }

    /// Counts a request that has a slot as long as the answer lives.
    pub fn running(&self) -> Counted {
        Counted::new(&self.0.running)
    }
}

/// Counts in a gauge as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown(by_app: bool) -> String {
        let mut registry = Registry::default();
        let meters = Meters::register(&mut registry, by_app);
        meters.answered("GenerateManifest", Some(Ok(())));
        meters.rendered("shop", Some("web"), Stage::Check, Some(Ok(())));
        meters.rendered("shop", Some("web"), Stage::Open, Some(Err(Class::Denied)));
        meters.rendered("shop", None, Stage::Helm, None);
        meters.took(Stage::Helm, Duration::from_millis(20));
        meters.received(12);
        meters.looked_up("render", true);
        meters.holds("render", 77);
        meters.unkept("chance");
        meters.watches("keys");
        meters.reloaded("keys", true);
        meters.fetched("vault", Err(Class::NotFound));
        meters.fetch_took("vault", Duration::from_millis(3));
        meters.decrypted("age", Ok(()));
        let running = meters.running();
        drop(meters.queued());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        drop(running);
        text
    }

    #[test]
    fn everything_that_is_counted_is_shown_and_no_app_is_named() {
        let text = shown(false);
        for line in [
            r#"strongroom_build_info{version="0.1.0"} 1"#,
            r#"strongroom_requests_total{method="GenerateManifest",result="ok"} 1"#,
            r#"strongroom_renders_total{result="ok",stage="done"} 1"#,
            r#"strongroom_renders_total{result="denied",stage="open"} 1"#,
            r#"strongroom_renders_total{result="cancelled",stage="helm"} 1"#,
            r#"strongroom_stage_duration_seconds_bucket{le="0.025",stage="helm"} 1"#,
            "strongroom_received_bytes_total 12",
            r#"strongroom_cache_lookups_total{cache="render",result="hit"} 1"#,
            r#"strongroom_cache_size_bytes{cache="render"} 77"#,
            r#"strongroom_unkept_renders_total{reason="chance"} 1"#,
            r#"strongroom_reloads_total{what="keys",result="ok"} 1"#,
            r#"strongroom_reloads_total{what="keys",result="failed"} 0"#,
            r#"strongroom_fetches_total{scheme="vault",result="not_found"} 1"#,
            r#"strongroom_fetch_duration_seconds_count{scheme="vault"} 1"#,
            r#"strongroom_decryptions_total{key_type="age",result="ok"} 1"#,
            "strongroom_queued_requests 0",
            "strongroom_running_requests 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        assert!(!text.contains("shop") && !text.contains("web"), "{text}");
    }

    #[test]
    fn a_first_denial_is_an_increase() {
        let mut registry = Registry::default();
        let meters = Meters::register(&mut registry, false);
        let denied = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let renders = text.lines().filter(|line| line.starts_with("strongroom_renders_total{"));
            let mut renders: Vec<_> = renders.map(str::to_owned).collect();
            renders.sort();
            renders
        };
        let expected = |open: u8| {
            let line = |stage: &str| {
                let number = if stage == "open" { open } else { 0 };
                format!(r#"strongroom_renders_total{{result="denied",stage="{stage}"}} {number}"#)
            };
            ["check", "helm", "open", "plan", "queue", "receive", "resolve"].map(line)
        };
        assert_eq!(denied(), expected(0));
        meters.rendered("shop", None, Stage::Open, Some(Err(Class::Denied)));
        assert_eq!(denied(), expected(1));
    }

    #[test]
    fn apps_are_named_where_the_operator_asks_for_it() {
        let line = r#"strongroom_app_renders_total{app="shop",project="web",result="denied"} 1"#;
        let text = shown(true);
        assert!(text.contains(line), "{text}");
    }
}
