//! What the service counts. Labels are methods and classes of failure, never names from a request.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Bounds of histograms of durations, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The service's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Labels<2>, Counter>,
    stages: Family<Labels<1>, Histogram>,
    received: Counter,
    /// Requests that wait for a free slot.
    pub(super) queued: Gauge,
    /// Requests that have one.
    pub(super) running: Gauge,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            stages: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            received: Counter::default(),
            queued: Gauge::default(),
            running: Gauge::default(),
        };
        registry.register(
            "strongroom_requests",
            "Requests of Argo CD, by method and result",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "strongroom_stage_duration",
            "How long the stages of a render took",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register_with_unit(
            "strongroom_received",
            "Size of the archives received, compressed",
            Unit::Bytes,
            metrics.received.clone(),
        );
        registry.register(
            "strongroom_queued_requests",
            "Requests that wait for a free slot",
            metrics.queued.clone(),
        );
        registry.register(
            "strongroom_running_requests",
            "Requests that have a slot",
            metrics.running.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, method: &'static str, result: &'static str) {
        self.requests.get_or_create(&[("method", method), ("result", result)]).inc();
    }

    pub(super) fn took(&self, stage: &'static str, duration: Duration) {
        self.stages.get_or_create(&[("stage", stage)]).observe(duration.as_secs_f64());
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }
}

/// Counts in a gauge as long as it lives.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
