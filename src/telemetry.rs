//! The log: lines on stderr. And traces, where a collector is set: spans of each request and of its parts.
//!
//! Spans of the log are at level info, those of traces at debug: so lines stay short, and without a collector traces
//! cost nothing.

mod collector;
pub mod metrics;
pub mod minutes;

use opentelemetry::trace::{FutureExt, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_http::HeaderExtractor;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter};

use crate::config::LogFormat;

pub use collector::{Collector, CollectorError};

/// Starts the log, and the traces where a collector is set. The program calls this once.
pub fn start(level: Level, format: LogFormat, collector: Option<&Collector>) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let traces = collector.map(|collector| {
        let traced = filter::filter_fn(|metadata| {
            let level = *metadata.level();
            let is_traced = if metadata.is_span() { level == Level::DEBUG } else { level <= Level::WARN };
            // The exporter's own messages go to the log.
            is_traced && metadata.target().starts_with("youtube_serverless")
        });
        let traced = traced.with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(collector.provider().tracer("youtube-serverless"))
            .with_filter(traced)
    });
    tracing_subscriber::registry().with(lines.with_filter(LevelFilter::from_level(level))).with(traces).init();
}

/// The span of a request in its trace. A client's `traceparent` decides on the trace.
pub fn request(method: &str, route: &str, headers: &http::HeaderMap) -> Span {
    let name = format_args!("{method} {route}");
    let span = tracing::debug_span!("http", otel.name = %name, otel.kind = "server", http.request.method = method,
        http.route = route);
    if !span.is_disabled() {
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
        });
        // Only a span that has begun already takes no parent.
        let _ = span.set_parent(parent);
    }
    span
}

/// Wraps a future for a task of its own, which goes on in the caller's trace and span of the log.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    future.in_current_span().with_current_context()
}

/// Notes the answer to a request in its span.
pub fn answered(span: &Span, status: u16, request_id: &str) {
    if !span.is_disabled() {
        span.set_attribute("http.response.status_code", i64::from(status));
        span.set_attribute("request.id", request_id.to_owned());
        if status >= 500 {
            span.set_status(opentelemetry::trace::Status::error(status.to_string()));
        }
    }
}
