//! Devices and branches as every surface writes them: the list, the detail, and the live feed.

use serde_json::{Value, json};
use shared::message::Watched;
use shared::{Millis, Minute};

use crate::fleet::{Counts, Fleet};
use crate::outage::{Interval, Outage};

/// A device.
pub fn device_json(fleet: &Fleet, at: usize) -> Value {
    let device = &fleet.devices[at];
    let branch = &fleet.branches[device.branch].info;
    let view = &device.view;
    json!({
        "id": device.info.id.as_str(),
        "name": device.info.name,
        "branch": branch.id.as_str(),
        "region": branch.region.as_str(),
        "device_type": device.info.device_type,
        "ip": device.info.ip,
        "status": view.status.as_str(),
        "cause": view.status.cause().map(shared::Cause::as_str),
        "since": ms(view.since),
        "down_since": ms(view.down_since),
        "last_ok": ms(view.last_ok),
        "is_flapping": view.is_flapping,
        "in_maintenance": view.in_maintenance,
        "rtt_ms": device.quality.and_then(|q| q.rtt_us).map(|us| f64::from(us) / 1000.0),
        "packet_loss": device.quality.map(|q| q.loss),
    })
}

/// A branch and its agent.
pub fn branch_json(fleet: &Fleet, at: usize) -> Value {
    let branch = &fleet.branches[at];
    // Nothing is made up of an agent that has not said how it is.
    let health = branch.health.as_ref();
    json!({
        "id": branch.info.id.as_str(),
        "name": branch.info.name,
        "region": branch.info.region.as_str(),
        "region_name": branch.info.region_name,
        "contact": branch.contact.as_str(),
        "last_contact": ms(branch.last_contact),
        "observed_through": ms(branch.known_through()),
        "logged_through": ms(branch.observed),
        "silent_after_ms": branch.silent_after_ms,
        "devices": branch.devices.len(),
        "agent_version": if branch.version.is_empty() { Value::Null } else { json!(branch.version) },
        "config_version": health.map(|health| health.config),
        "waiting": health.map(|health| health.waiting),
        "buffer_bytes": health.map(|health| health.buffer_bytes),
        "buffer_volatile": health.map(|health| health.buffer_volatile),
        "ticks_missed": health.map(|health| health.ticks_missed),
        "send_errors": health.map(|health| health.send_errors),
        "receive_drops": health.map(|health| health.receive_drops),
        "probe_age_ms": health.map(|health| health.probe_age_ms),
        "clock_synchronised": health.map(|health| health.clock_synchronised),
        "clock_ahead_ms": health.and_then(|health| health.clock_ahead_ms),
        "spent": health.map(|health| json!({
            "over_ms": health.spent.over_ms,
            "disk_bytes": health.spent.disk_bytes,
            "flushes": health.spent.flushes,
            "sent_bytes": health.spent.sent_bytes,
            "received_bytes": health.spent.received_bytes,
        })),
    })
}

/// How many devices are what.
pub fn counts_json(counts: &Counts) -> Value {
    let Counts { total, up, down, unknown, flapping, maintenance } = *counts;
    json!({
        "total_devices": total, "up": up, "down": down, "unknown": unknown, "flapping": flapping,
        "maintenance": maintenance,
    })
}

/// How a watched device has answered over the last seconds.
pub fn watched_json(watched: &Watched) -> Value {
    let Minute { sent, lost, rtt } = watched.quality;
    json!({
        "id": watched.device.as_str(),
        "span_ms": watched.span_ms,
        "sent": sent,
        "lost": lost,
        "rtt_ms": rtt.map(|rtt| f64::from(rtt.avg_us) / 1000.0),
        "rtt_min_ms": rtt.map(|rtt| f64::from(rtt.min_us) / 1000.0),
        "rtt_max_ms": rtt.map(|rtt| f64::from(rtt.max_us) / 1000.0),
    })
}

/// A status interval.
pub fn interval_json(interval: &Interval) -> Value {
    json!({
        "status": interval.status.as_str(),
        "cause": interval.status.cause().map(shared::Cause::as_str),
        "from_ms": interval.from.0,
        "to_ms": interval.to.0,
    })
}

/// An outage.
pub fn outage_json(outage: &Outage) -> Value {
    json!({
        "from": outage.from.to_string(),
        "from_ms": outage.from.0,
        "to": outage.to.map(|to| to.to_string()),
        "to_ms": ms(outage.to),
        "last_ok_ms": ms(outage.last_ok),
        "unobserved_ms": outage.unobserved_ms,
        "error_ms": outage.error_ms,
    })
}

fn ms(at: Option<Millis>) -> Value {
    at.map_or(Value::Null, |at| json!(at.0))
}
