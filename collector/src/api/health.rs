//! Whether the collector is well, which it is, and what it counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;

/// 200 with each part's state. A part that is not well is said; only a file that can't be read makes it 503.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let file = api.read(|db| Ok(db.query_row("select count(*) from stream", [], |row| row.get::<_, i64>(0))?)).await;
    let value = |name| api.metrics.value(name, "");
    let queue_bytes = value("ward_remote_write_queue_bytes");
    let dropped = value("ward_remote_write_dropped_total") + value("ward_remote_write_rejected_total");
    let ledger_errors = value("ward_ledger_errors_total");
    let is_failing = value("ward_ledger_failing") > 0.0;
    let ok = file.is_ok();
    let body = json!({
        "status": if !ok { "failed" } else if dropped > 0.0 || is_failing { "degraded" } else { "ok" },
        "version": crate::VERSION,
        "ledger": { "readable": ok, "writable": !is_failing, "failed_commits": ledger_errors },
        "victoria_metrics": if api.victoria.is_some() {
            json!({ "queue_bytes": queue_bytes, "samples_lost": dropped })
        } else {
            Value::Null
        },
    });
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "name": "ward-collector", "version": crate::VERSION }))
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.metrics.render()).into_response()
}
