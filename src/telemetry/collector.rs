//! Where traces go: an OpenTelemetry collector, by OTLP over HTTP with protobuf. All is set by the standard OTEL_*
//! variables, which the library reads itself, from the real environment.

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

/// For what is left at the end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Of an answer, which nobody reads.
const MAX_ANSWER: u64 = 1 << 20;

/// A collector that spans are sent to, in batches by a thread of its own.
#[derive(Debug)]
pub struct Collector(SdkTracerProvider);

/// Why there is none.
#[derive(Debug, Error)]
#[error("the OTEL_* variables do not name a collector of traces (OTLP over HTTP) that can be used")]
pub struct CollectorError(#[from] ExporterBuildError);

impl Collector {
    /// That of the OTEL_* variables; an export may take as long as `limit`, answer included.
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

    /// Sends what is left.
    pub fn stop(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(SHUTDOWN_LIMIT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// What is sent is of this service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has another name for it.
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
    /// Blocks the thread that exports, which has nothing else to do.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, mut body) = self.0.run(request.map(|body| body.to_vec()))?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}
