//! The messages of OTLP that the exporter writes and reads, by their field numbers.
//!
//! Only the fields in use are declared. A receiver uses defaults for absent fields. `tests/traces`
//! reads them with the protocol's own package.

use prost::{Message, Oneof};

use super::span::{FinishedSpan, SpanKind, SpanValue};
use crate::clock::{Duration, Instant};

/// The version of the semantic conventions that the names of the attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// `Status.code` of a span that failed.
const STATUS_ERROR: i32 = 2;
/// `Span.flags`: sampled.
const SAMPLED: u32 = 1;
/// `Span.flags`: it is known whether the parent is in another process, and it is.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanExport {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<WireSpan>,
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<WireStatus>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WireStatus {
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Kinds", tags = "1, 2, 3")]
    pub value: Option<Kinds>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kinds {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Exported {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Kinds::Text(value.into()))
}

fn attribute(key: &str, value: Kinds) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// Returns the attributes that all spans of this process share.
pub(super) fn resource(instance: &str) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", "msp-gateway"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
        ],
    }
}

/// Returns an export of `spans`. `now` and the nanoseconds since 1970 are the same moment.
pub(super) fn export(
    resource: &Resource,
    spans: &[FinishedSpan],
    now: Instant,
    wall_ns: i128,
) -> Vec<u8> {
    let spans = spans
        .iter()
        .map(|span| wire_span(span, now, wall_ns))
        .collect();
    let scope = Scope {
        name: "msp-gateway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let export = SpanExport {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    };
    export.encode_to_vec()
}

fn wire_span(span: &FinishedSpan, now: Instant, wall_ns: i128) -> WireSpan {
    let draft = &span.draft;
    let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    let start = wall_ns.saturating_sub(nanos(now.saturating_duration_since(draft.begun)));
    let end = start.saturating_add(nanos(draft.took));
    let at = |ns: i128| u64::try_from(ns).unwrap_or(0);
    let remote = match (draft.kind, span.parent) {
        (SpanKind::Server, Some(_)) => IS_REMOTE,
        _ => 0,
    };
    WireSpan {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |id| id.bytes().to_vec()),
        name: draft.name.clone().into_owned(),
        kind: match draft.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: at(start),
        end_time_unix_nano: at(end),
        attributes: draft
            .attributes
            .iter()
            .map(|(key, value)| attribute(key, wire_value(value)))
            .collect(),
        status: draft.failed.then_some(WireStatus { code: STATUS_ERROR }),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
    }
}

fn wire_value(value: &SpanValue) -> Kinds {
    match value {
        SpanValue::Word(word) => Kinds::Text((*word).to_owned()),
        SpanValue::Name(name) => Kinds::Text(name.to_string()),
        SpanValue::Number(number) => Kinds::Number(*number),
        SpanValue::Flag(flag) => Kinds::Flag(*flag),
        SpanValue::Address(address) => Kinds::Text(address.to_string()),
    }
}
