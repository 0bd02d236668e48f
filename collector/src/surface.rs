//! Devices and branches as every surface writes them: the list, the detail, and the live feed.

use serde_json::{Value, json};
use shared::message::Watched;
use shared::{Evidence, Millis, Minute};

use crate::fleet::{BranchState, Counts, Fleet, View};
use crate::outage::{Interval, Outage};

/// What is told of a device, in this order.
#[rustfmt::skip]
pub const DEVICE_FIELDS: [&str; 18] = [
    "id", "name", "branch", "region", "device_type", "ip", "status", "cause", "since", "down_since", "last_ok",
    "is_flapping", "in_maintenance", "rtt_ms", "packet_loss", "flags", "verdict", "is_provisional",
];

/// Some of [`DEVICE_FIELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u32);

impl Fields {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// Those of a list with commas, or the first that is none.
    ///
    /// # Errors
    /// With the name that is no field.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let bit = |name| DEVICE_FIELDS.iter().position(|field| *field == name).map(|at| 1 << at).ok_or(name);
        text.split(',').try_fold(Self(0), |all, name| Ok(Self(all.0 | bit(name)?)))
    }

    /// The id, and what differs between two views of a device. Both fields of the newest minute go together: who has a
    /// snapshot may have seen one of a minute that was told to nobody else.
    pub fn changed(before: &View, after: &View, is_measured: bool) -> Self {
        // Whoever adds something to a view has to say here in which field it is told.
        let View { status, since, down_since, last_ok, is_flapping, in_maintenance, flags, verdict, is_provisional } = *before;
        let differs = [
            (0, true),
            (6, status.as_str() != after.status.as_str()),
            (7, status.cause() != after.status.cause()),
            (8, since != after.since),
            (9, down_since != after.down_since),
            (10, last_ok != after.last_ok),
            (11, is_flapping != after.is_flapping),
            (12, in_maintenance != after.in_maintenance),
            (13, is_measured),
            (14, is_measured),
            (15, flags != after.flags),
            (16, verdict != after.verdict),
            (17, is_provisional != after.is_provisional),
        ];
        Self(differs.iter().filter(|(_, differs)| *differs).fold(0, |all, (at, _)| all | 1 << at))
    }

    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }
}

/// A device.
pub fn device_json(fleet: &Fleet, at: usize) -> Value {
    let mut text = Vec::new();
    write_device(&mut text, fleet, at, Fields::ALL);
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes a device, without a tree in between: there may be 100,000.
pub fn write_device(out: &mut Vec<u8>, fleet: &Fleet, at: usize, wanted: Fields) {
    let device = &fleet.devices[at];
    let branch = &fleet.branches[device.branch].info;
    let view = &device.view;
    let quality = device.quality;
    let mut separator = b'{';
    let mut field = |at: usize, value: &dyn Fn(&mut Vec<u8>)| {
        if wanted.has(at) {
            out.push(separator);
            separator = b',';
            write(out, DEVICE_FIELDS[at]);
            out.push(b':');
            value(out);
        }
    };
    field(0, &|out| write(out, device.info.id.as_str()));
    field(1, &|out| write(out, &device.info.name));
    field(2, &|out| write(out, branch.id.as_str()));
    field(3, &|out| write(out, branch.region.as_str()));
    field(4, &|out| write(out, &device.info.device_type));
    field(5, &|out| write(out, &device.info.ip));
    field(6, &|out| write(out, view.status.as_str()));
    field(7, &|out| write(out, &view.status.cause().map(shared::Cause::as_str)));
    field(8, &|out| write(out, &view.since));
    field(9, &|out| write(out, &view.down_since));
    field(10, &|out| write(out, &view.last_ok));
    field(11, &|out| write(out, &view.is_flapping));
    field(12, &|out| write(out, &view.in_maintenance));
    field(13, &|out| write(out, &quality.and_then(|q| q.rtt_us).map(|us| f64::from(us) / 1000.0)));
    field(14, &|out| write(out, &quality.map(|q| q.loss)));
    field(15, &|out| write(out, &view.flags.names().collect::<Vec<_>>()));
    field(16, &|out| write(out, &view.verdict.map(shared::Verdict::as_str)));
    field(17, &|out| write(out, &view.is_provisional));
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn write(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing to memory can't fail, and no value here has a key that isn't text.
    let _ = serde_json::to_writer(out, value);
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
        "config_wanted": branch.config_wanted,
        "config_trial": branch.config_trial.as_ref().map(|tried| json!({
            "version": tried.version,
            "is_held": tried.is_held,
            "answered": tried.answered,
            "silent_total": tried.silent_total,
            "silent": tried.silent.iter().map(shared::DeviceId::as_str).collect::<Vec<_>>(),
        })),
        "cut": cut_json(branch),
        "uplinks": uplinks_json(fleet, at),
        "waiting": health.map(|health| health.waiting),
        "buffer_bytes": health.map(|health| health.buffer_bytes),
        "buffer_volatile": health.map(|health| health.buffer_volatile),
        "ticks_missed": health.map(|health| health.ticks_missed),
        "send_errors": health.map(|health| health.send_errors),
        "receive_drops": health.map(|health| health.receive_drops),
        "stray_replies": health.map(|health| health.stray_replies),
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

/// A branch's lines to its providers. `is_on_backup` is where another than the first is in use.
fn uplinks_json(fleet: &Fleet, branch: usize) -> Value {
    let (uplinks, active) = fleet.uplinks(branch);
    let uplink = |(at, device): (usize, &&crate::fleet::DeviceState)| {
        json!({
            "name": device.uplink,
            "device_id": device.info.id.as_str(),
            "status": device.view.status.as_str(),
            "since_ms": ms(device.view.since),
            "is_active": active == Some(at),
            "is_backup": at > 0,
        })
    };
    uplinks.iter().enumerate().map(uplink).collect()
}

/// The time in which a branch can't be heard, or the last such time; null where there was none since the collector began.
fn cut_json(branch: &BranchState) -> Value {
    branch.newest_cut().map_or(Value::Null, |cut| {
        json!({
            "from_ms": cut.from.0,
            "to_ms": ms(cut.to),
            "verdict": cut.verdict.map(shared::Verdict::as_str),
            "is_provisional": !cut.is_settled,
            "reason": cut.reason,
        })
    })
}

/// What an agent saw around a transition. `at` is when it was sure.
pub fn evidence_json(evidence: &Evidence, at: Millis) -> Value {
    let probes = evidence.probes.iter().map(|probe| {
        let rtt_ms = probe.seen.rtt_us().map(|us| f64::from(us) / 1000.0);
        json!({ "at_ms": at.plus(-i64::from(probe.ago_ms)).0, "outcome": probe.seen.as_str(), "rtt_ms": rtt_ms })
    });
    json!({
        "probes": probes.collect::<Vec<_>>(),
        "gateway": evidence.gateway.map(shared::evidence::Seen::as_str),
        "gateway_rtt_ms": evidence.gateway.and_then(|seen| seen.rtt_us()).map(|us| f64::from(us) / 1000.0),
        "neighbours": {
            "up": evidence.neighbours.up, "down": evidence.neighbours.down, "unknown": evidence.neighbours.unknown,
        },
        "carrier": evidence.carrier,
        "mac": evidence.mac.map(|mac| mac.to_string()),
    })
}

/// A branch's agent: as in [`branch_json`], without what the inventory says.
pub fn agent_json(fleet: &Fleet, at: usize) -> Value {
    let mut body = branch_json(fleet, at);
    if let Some(fields) = body.as_object_mut() {
        for name in ["name", "region_name", "devices"] {
            fields.remove(name);
        }
        if let Some(id) = fields.remove("id") {
            fields.insert("branch".to_owned(), id);
        }
    }
    body
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_the_fields_in_which_a_device_differs() {
        let text = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                    a,A,vake,Vake,t,T,atm,10.0.0.1\n";
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&crate::inventory::parse_csv("e", text).expect("good"), &[1]);
        fleet.refresh(Millis(0));
        let shown = |fleet: &Fleet, fields| {
            let mut out = Vec::new();
            write_device(&mut out, fleet, 0, fields);
            serde_json::from_slice::<Value>(&out).expect("JSON")
        };
        let before = fleet.devices[0].view;
        let views: [&dyn Fn(&mut View); 9] = [
            &|view| view.status = shared::Status::Down,
            &|view| view.since = Some(Millis(5)),
            &|view| view.down_since = Some(Millis(6)),
            &|view| view.last_ok = Some(Millis(7)),
            &|view| view.is_flapping = true,
            &|view| view.in_maintenance = true,
            &|view| view.flags = shared::Flags::DEGRADED_LOSS,
            &|view| view.verdict = Some(shared::Verdict::LanFault),
            &|view| view.is_provisional = true,
        ];
        for change in views {
            // Whatever differs in the whole is in the part, and nothing else.
            let whole = shown(&fleet, Fields::ALL);
            change(&mut fleet.devices[0].view);
            let (after, part) =
                (shown(&fleet, Fields::ALL), shown(&fleet, Fields::changed(&before, &fleet.devices[0].view, false)));
            let differs = DEVICE_FIELDS.iter().filter(|field| **field == "id" || whole[**field] != after[**field]);
            let expected: Value = differs.map(|field| ((*field).to_owned(), after[*field].clone())).collect();
            assert_eq!(part, expected);
            assert!(part.as_object().is_some_and(|part| part.len() > 1), "{part}");
            fleet.devices[0].view = before;
        }
        let minute = shown(&fleet, Fields::changed(&before, &before, true));
        assert_eq!(minute, json!({"id": "a", "rtt_ms": null, "packet_loss": null}));
    }

    #[test]
    fn fields_are_those_that_were_asked_for() {
        let text = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                    a,\"A \"\"quoted\"\" \u{200b}name\",vake,Vake,t,T,atm,10.0.0.1\n";
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&crate::inventory::parse_csv("e", text).expect("good"), &[1]);
        fleet.refresh(Millis(0));
        let check = |fields: Fields, expected: &str| {
            let mut out = Vec::new();
            write_device(&mut out, &fleet, 0, fields);
            assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
        };
        check(Fields::parse("status,id").expect("known"), "{\"id\":\"a\",\"status\":\"unknown\"}");
        check(Fields(0), "{}");
        assert_eq!(Fields::parse("id,colour"), Err("colour"));
        assert_eq!(Fields::parse(""), Err(""));
        let all = device_json(&fleet, 0);
        assert_eq!(all.as_object().expect("an object").len(), DEVICE_FIELDS.len());
        assert!(DEVICE_FIELDS.iter().all(|field| all.get(field).is_some()));
        assert_eq!(all["name"], "A \"quoted\" \u{200b}name");
    }
}
