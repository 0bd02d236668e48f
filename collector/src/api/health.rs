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
    let endpoints: Vec<(f64, f64, Value)> = api
        .victoria
        .iter()
        .flat_map(|victoria| victoria.endpoints())
        .map(|endpoint| {
            let of = |name| api.metrics.value(name, endpoint.label());
            let (queue_bytes, is_failing) = (of("ward_remote_write_queue_bytes"), of("ward_remote_write_failing") > 0.0);
            let lost = of("ward_remote_write_dropped_total") + of("ward_remote_write_rejected_total");
            let told = json!({
                "endpoint": endpoint.name(), "takes_samples": !is_failing, "queue_bytes": queue_bytes, "samples_lost": lost,
            });
            (queue_bytes, lost, told)
        })
        .collect();
    let queue_bytes = endpoints.iter().map(|(bytes, ..)| *bytes).fold(0.0, f64::max);
    let lost: f64 = endpoints.iter().map(|(_, lost, _)| lost).sum();
    let endpoints: Vec<Value> = endpoints.into_iter().map(|(.., told)| told).collect();
    let ledger_errors = value("ward_ledger_errors_total");
    let is_failing = value("ward_ledger_failing") > 0.0;
    let is_doubted = value("ward_clock_doubted") > 0.0;
    let (is_behind, has_old_inventory) = (value("ward_clock_behind") > 0.0, value("ward_inventory_failing") > 0.0);
    let (contending, undatable) = (value("ward_agents_contending"), value("ward_batches_undatable_total"));
    let ok = file.is_ok();
    let shared = api.victoria.as_ref().and_then(|victoria| victoria.shared());
    let trouble = shared.and_then(|shared| shared.trouble());
    let has_old_certificate = value("ward_api_certificate_failing") > 0.0;
    let is_lossy = lost > 0.0 || undatable > 0.0;
    let is_degraded = is_lossy
        || has_old_certificate
        || is_failing
        || is_behind
        || is_doubted
        || has_old_inventory
        || contending > 0.0
        || trouble.is_some();
    let body = json!({
        "status": if !ok { "failed" } else if is_degraded { "degraded" } else { "ok" },
        "version": crate::VERSION,
        "ledger": { "readable": ok, "writable": !is_failing, "failed_commits": ledger_errors },
        "clock": { "behind_ledger": is_behind, "doubted": is_doubted },
        "certificate": if api.is_tls { json!({ "current": !has_old_certificate }) } else { Value::Null },
        "inventory": { "current": !has_old_inventory },
        "agents": { "contending_branches": contending, "undatable_batches": undatable },
        "victoria_metrics": if api.victoria.is_some() {
            json!({ "queue_bytes": queue_bytes, "samples_lost": lost, "endpoints": endpoints })
        } else {
            Value::Null
        },
        "shared_cache": shared.map(|_| json!({ "reachable": trouble.is_none(), "reason": trouble })),
    });
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "name": "ward-collector", "version": crate::VERSION }))
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.metrics.render()).into_response()
}
