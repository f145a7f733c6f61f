//! The export of traces to an OpenTelemetry collector, by OTLP over HTTP with protobuf. The library itself reads the
//! standard OTEL_* variables from the real environment.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Key;
use opentelemetry::global;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use ureq::Agent;

/// The time limit of the last export, at the end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// The largest answer of a collector, in bytes. The service does not read the content.
const MAX_ANSWER: u64 = 1 << 20;

/// A collector. A thread of its own sends spans in batches.
#[derive(Debug)]
pub struct Collector(SdkTracerProvider);

/// The reason for no collector.
#[derive(Debug, Error)]
#[error("the OTEL_* variables do not name a collector of traces (OTLP over HTTP) that can be used")]
pub struct CollectorError(#[from] ExporterBuildError);

impl Collector {
    /// The collector of the OTEL_* variables. `limit` bounds an export with its answer.
    pub fn from_environment(limit: Duration) -> Result<Self, CollectorError> {
        let config = Agent::config_builder().timeout_global(Some(limit)).http_status_as_error(false);
        let exporter = SpanExporter::builder().with_http().with_http_client(Client(config.build().into())).build()?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter);
        Ok(Self(provider.build()))
    }

    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.0
    }

    /// Sends the remaining spans.
    pub fn stop(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(SHUTDOWN_LIMIT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// The resource of all spans: this service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES gives another name.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::new("service.name")).map(|name| name.to_string());
    match name {
        Some(name) if !name.starts_with("unknown_service") => found,
        Some(_) | None => Resource::builder().with_service_name("youtube-serverless").build(),
    }
}

#[derive(Debug)]
struct Client(Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    /// Blocks the exporter's thread, which has no other work.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, mut body) = self.0.run(request.map(|body| body.to_vec()))?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}
