//! Traces by OpenTelemetry, for an operator who names a collector; without one nothing is started.
//!
//! Spans are those of a request and of the stages of its render. They hold names and durations; no event and no message
//! becomes part of a trace. A request joins the trace of its client by the W3C headers `traceparent` and `tracestate`.

use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use crate::environment::Environment;
use crate::fault::{Class, Fault};

/// Where the collector is, the first one that is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How long the last spans may take to the collector when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Traces cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
#[error("send traces as {ENDPOINT_NAMES} says\nhelp: name a collector that takes OTLP over gRPC without TLS, such as http://collector:4317", ENDPOINT_NAMES = ENDPOINTS[1])]
pub struct TracesError(#[source] ExporterBuildError);

impl Fault for TracesError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Sends spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Prepares to send to the collector that `environment` names, where it names one. To be called inside the runtime.
    pub fn start(environment: &Environment) -> Result<Option<Self>, TracesError> {
        let endpoint = ENDPOINTS.iter().find_map(|name| environment.get(name));
        let disabled =
            environment.get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let Some(endpoint) = endpoint.filter(|_| !disabled) else { return Ok(None) };
        let exporter =
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().map_err(TracesError)?;
        let service = environment.get("OTEL_SERVICE_NAME").unwrap_or("strongroom").to_owned();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(service).with_attribute(version).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        Ok(Some(Self(provider.build())))
    }

    /// Takes in the program's own spans, and no event.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours =
            FilterFn::new(|metadata| metadata.is_span() && metadata.target().starts_with("strongroom"));
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer("strongroom"));
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        layer.with_filter(ours.with_max_level_hint(tracing::Level::INFO))
    }

    /// Sends what was not sent yet.
    pub fn end(self) {
        // A collector that is away is told of while the process runs, and takes nothing with it.
        let _ = self.0.shutdown_with_timeout(LAST_SPANS);
    }
}

/// The W3C headers of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parent<'a> {
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
}

impl Parent<'_> {
    /// Makes `span`, which nobody entered yet, a part of the client's trace.
    pub fn adopt(&self, span: &Span) {
        if self.traceparent.is_some() {
            let context = TraceContextPropagator::new().extract_with_context(&Context::new(), self);
            // Fails where no traces are sent, which is where it does not matter.
            let _ = span.set_parent(context);
        }
    }

    /// The name of the client's trace, in hex.
    pub fn trace(&self) -> Option<&str> {
        let name = self.traceparent?.split('-').nth(1)?;
        (name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
    }
}

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::report;

    #[test]
    fn without_a_collector_nothing_starts() {
        let none: [(&str, &str); 0] = [];
        assert!(Traces::start(&none.into_iter().collect()).unwrap().is_none());
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "true")];
        assert!(Traces::start(&disabled.into_iter().collect()).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_collector_behind_tls_is_refused_and_not_sent_to_in_the_clear() {
        let tls = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")];
        let error = Traces::start(&tls.into_iter().collect()).unwrap_err();
        assert!(report(&error).starts_with("send traces as OTEL_EXPORTER_OTLP_ENDPOINT says: "), "{error}");
        assert_eq!(error.class(), Class::Invalid);
    }

    #[test]
    fn a_span_becomes_part_of_the_client_s_trace() {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_subscriber::layer::SubscriberExt as _;
        let traces = Traces(SdkTracerProvider::builder().build());
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let parent = Parent {
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                tracestate: None,
            };
            let span = tracing::error_span!("call");
            parent.adopt(&span);
            let trace = span.context().span().span_context().trace_id().to_string();
            assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        });
    }

    #[test]
    fn the_client_s_trace_is_named_only_when_it_is_one() {
        let of = |text| Parent { traceparent: Some(text), tracestate: None }.trace().map(str::to_owned);
        let name = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(), Some(name));
        for broken in ["", "00", "00-x-y-z", "00-4bf92f3577b34da6a3ce929d0e0e473\n-00f067aa0ba902b7-01"] {
            assert_eq!(of(broken), None, "{broken}");
        }
    }
}
