//! Traces by OpenTelemetry, for an operator who names a collector; without one nothing is started.
//!
//! Spans are those of a request and of the stages of its render. They hold names and durations; no event and no message
//! becomes part of a trace. A request joins the trace of its client by the W3C headers `traceparent` and `tracestate`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use crate::environment::Environment;
use crate::fault::{Class, Fault};

/// Where the collector is, the first one that is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The file of the certificates that are trusted instead of the system's, the first one that is set.
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
/// How long the last spans may take to the collector when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// What is told of a failure to send is cut here, in characters.
const REASON_LIMIT: usize = 300;

/// Traces cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The endpoint is none.
    #[error("send traces as {endpoints} says\nhelp: name a collector that takes OTLP over gRPC, such as https://collector:4317", endpoints = ENDPOINTS[1])]
    Endpoint(#[source] ExporterBuildError),
    /// The file of certificates holds none, or cannot be read.
    #[error(
        "trust the certificates of {path}, as {variable} says\nhelp: it is the absolute path of a file in PEM"
    )]
    Certificates {
        /// The variable that names it.
        variable: &'static str,
        /// Where it should be.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

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
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https://") {
            exporter = exporter.with_tls_config(tls(environment)?);
        }
        let exporter = exporter.build().map_err(TracesError::Endpoint)?;
        let exporter = Telling { exporter, endpoint: endpoint.to_owned(), failing: AtomicBool::new(false) };
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
        // A collector that is away is told of by the exporter, and takes nothing with it.
        let _ = self.0.shutdown_with_timeout(LAST_SPANS);
    }
}

/// The system's certificates are trusted, which `SSL_CERT_FILE` may name, or those of the operator's file.
fn tls(environment: &Environment) -> Result<ClientTlsConfig, TracesError> {
    // Whoever is first; it is the same provider everywhere in this program.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let said = CERTIFICATES.iter().find_map(|name| Some((*name, environment.get(name)?)));
    let Some((variable, path)) = said else { return Ok(ClientTlsConfig::new().with_native_roots()) };
    let pem = certificates(Path::new(path));
    let pem = pem.map_err(|source| TracesError::Certificates { variable, path: path.to_owned(), source })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

fn certificates(path: &Path) -> io::Result<Vec<u8>> {
    if !path.is_absolute() {
        return Err(io::Error::other("not an absolute path, so a repository could bring its own"));
    }
    let pem = fs::read(path)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(io::Error::other("no certificate is in it")),
    }
}

/// Sends spans, and says once that the collector does not take them, until it does again.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let failed = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed => {
                let reason = error.to_string();
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_LIMIT).collect();
                tracing::warn!(
                    endpoint = self.endpoint,
                    reason,
                    "the collector does not take traces; renders go on"
                );
            }
            Ok(()) if failed => tracing::info!(endpoint = self.endpoint, "the collector takes traces again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
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
    async fn an_endpoint_that_is_none_is_refused() {
        let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a b")];
        let error = Traces::start(&wrong.into_iter().collect()).unwrap_err();
        let said = report(&error);
        assert!(said.starts_with("send traces as OTEL_EXPORTER_OTLP_ENDPOINT says: "), "{said}");
        assert!(said.contains("help: name a collector"), "{said}");
        assert_eq!(error.class(), Class::Invalid);
    }

    #[tokio::test]
    async fn a_file_of_certificates_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        fs::write(&path, "STRONGROOM-MARKER").unwrap();
        for (variable, path, why) in [
            (CERTIFICATES[0], path.to_str().unwrap(), "no certificate is in it"),
            (CERTIFICATES[1], path.to_str().unwrap(), "no certificate is in it"),
            (CERTIFICATES[1], "ca.pem", "not an absolute path, so a repository could bring its own"),
            (CERTIFICATES[1], "/nonexistent/ca.pem", "No such file or directory"),
        ] {
            let variables = [(ENDPOINTS[1], "https://127.0.0.1:1"), (variable, path)];
            let said = report(&Traces::start(&variables.into_iter().collect()).unwrap_err());
            let start = format!("trust the certificates of {path}, as {variable} says: {why}");
            assert!(said.starts_with(&start) && !said.contains("MARKER"), "{said}");
        }
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
