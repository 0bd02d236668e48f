//! Questions to agents, boxes and cuts.

use serde_json::{Map, Value, json};

use super::{changes, count, flag, get, list, ms, number, object, or_null, path, status, text, words};

/// The routes.
pub(super) fn paths() -> Map<String, Value> {
    let probe = object([("sequence", count()), ("outcome", text()), ("rtt_ms", or_null(number()))]);
    let probed = object([
        ("device", text()),
        ("status", status()),
        ("explanation", text()),
        ("probes", list(probe)),
        ("gateway", or_null(text())),
        ("gateway_rtt_ms", or_null(number())),
        ("neighbours", object([("up", count()), ("down", count()), ("unknown", count())])),
        ("carrier", or_null(flag())),
        ("mac", or_null(text())),
    ]);
    let hop = object([("ttl", count()), ("address", or_null(text())), ("rtt_ms", or_null(number()))]);
    let route = object([("device", text()), ("hops", list(hop)), ("reached", flag())]);
    let found = object([("ip", text()), ("mac", or_null(text()))]);
    let discovered = object([
        ("branch", text()),
        ("asked", count()),
        ("answered_unknown", list(found)),
        ("never_answered", or_null(list(text()))),
    ]);
    let identity = object([
        ("at_ms", ms()),
        ("ip", text()),
        ("mac", text()),
        ("before", or_null(text())),
        ("is_contested", flag()),
        ("accepted_ms", or_null(ms())),
    ]);
    let verdict = words(&["device_down", "lan_fault", "agent_isolated", "wan_cut", "power_cut"]);
    let cut = object([("from_ms", ms()), ("to_ms", ms()), ("verdict", verdict), ("reason", text())]);
    let wanted = json!({
        "type": "object", "additionalProperties": false,
        "properties": { "count": { "type": ["integer", "null"], "minimum": 1, "maximum": 10 } },
    });
    // Neither has a body.
    let ask = |summary: &str, answer: Value| {
        let mut asked = changes("post", summary, vec![path("id")], "200", Some((json!({}), answer)));
        asked["post"].as_object_mut().into_iter().for_each(|described| {
            described.remove("requestBody");
        });
        asked
    };
    let boxes = object([("device", text()), ("identities", list(identity))]);
    let mut boxes = get("Boxes that were found at a device's address", vec![path("id")], boxes);
    boxes["delete"] = changes("delete", "Accepts the box that is there", vec![path("id")], "204", None)["delete"].take();
    let all = [
        (
            "/api/v1/devices/{id}/probe",
            changes("post", "Has a device probed now", vec![path("id")], "200", Some((wanted, probed))),
        ),
        ("/api/v1/devices/{id}/traceroute", ask("Asks for the way from the agent to a device", route)),
        ("/api/v1/branches/{id}/discovery", ask("Asks what answers in a branch", discovered)),
        ("/api/v1/devices/{id}/identity", boxes),
        (
            "/api/v1/branches/{id}/cuts",
            get("Times that a branch was cut off, and why", vec![path("id")], object([("branch", text()), ("cuts", list(cut))])),
        ),
    ];
    all.into_iter().map(|(path, described)| (path.to_owned(), described)).collect()
}
