//! Devices that are asked more than whether they are there: ports, web servers, name servers, and devices behind names.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use ward_tests::estate::device_id;
use ward_tests::namespace::inside;
use ward_tests::program::run_to_end;
use ward_tests::service::NOTHING;
use ward_tests::{Net, Service, eventually};

use crate::world::{Fault, SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(60);
/// A router, a switch, and three devices on it.
const DEVICES: u8 = 5;

/// Waits until devices have a status, a cause and a verdict.
async fn are(world: &World<'_>, devices: impl IntoIterator<Item = u8>, status: &str, cause: Option<&str>, verdict: Option<&str>) {
    for device in devices {
        eventually(SOON, &format!("device {device} is {status}, {cause:?}, {verdict:?}"), async || {
            let device = world.api().device(&device_id(1, device)).await?;
            let is = (device["cause"].as_str(), device["verdict"].as_str()) == (cause, verdict) && device["status"] == status;
            ensure!(is, "{device}");
            Ok(())
        })
        .await;
    }
}

/// What the newest probe before a device's newest transition came to.
async fn last_outcome(world: &World<'_>, device: u8) -> serde_json::Value {
    let path = format!("/api/v1/devices/{}/transitions?limit=1", device_id(1, device));
    let told = world.api().json(&path).await.expect("transitions");
    told["transitions"][0]["evidence"]["probes"].as_array().and_then(|probes| probes.last()).expect("probes")["outcome"].clone()
}

#[test]
fn a_closed_port_a_bad_status_and_a_failing_name_server_are_down_and_recover() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let mut port = Some(Service::web(&net, 1, 2, 22));
        let web = Service::web(&net, 1, 3, 8080);
        let names = Service::names(&net, 1, 4, net.address(1, 0));
        let tables = "[probe.device.b1-d02]\nkind = \"tcp\"\nport = 22\n\
                      [probe.device.b1-d03]\nkind = \"http\"\nport = 8080\nstatus = \"200-299\"\n\
                      [probe.device.b1-d04]\nkind = \"dns\"\nquery = \"atm.example\"\n";
        let world = World::start_with(&net, SILENT_AFTER, |collector| collector.tables = tables.into(), |_| {}).await;

        port.take();
        web.says(503);
        names.says(3);
        are(&world, [2, 3, 4], "down", None, Some("device_down")).await;
        for device in [2, 3, 4] {
            assert_eq!(last_outcome(&world, device).await, "unreachable", "device {device} is there and says no");
        }
        are(&world, [0, 1], "up", None, None).await;
        port = Some(Service::web(&net, 1, 2, 22));
        web.says(204);
        names.says(0);
        are(&world, [2, 3, 4], "up", None, None).await;

        // They are there and hang.
        web.says(NOTHING);
        names.says(NOTHING);
        are(&world, [3, 4], "down", None, Some("device_down")).await;
        assert_eq!((last_outcome(&world, 3).await, last_outcome(&world, 4).await), (json!("timeout"), json!("timeout")));
        are(&world, [2], "up", None, None).await;
        web.says(200);
        names.says(0);
        are(&world, [3, 4], "up", None, None).await;
        drop(port);
        world.surfaces_agree().await;
    });
}

#[test]
fn a_device_that_is_unplugged_is_down_whatever_it_is_asked() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let _port = Service::web(&net, 1, 2, 22);
        let _web = Service::web(&net, 1, 3, 8080);
        let _names = Service::names(&net, 1, 4, net.address(1, 0));
        // One that is patient until the kernel itself gives up asking who has the address.
        let tables = "[probe.device.b1-d02]\nkind = \"tcp\"\nport = 22\n\
                      [probe.device.b1-d03]\nkind = \"http\"\nport = 8080\ninterval = \"4s\"\ntimeout = \"4s\"\nfall = 2\n\
                      [probe.device.b1-d04]\nkind = \"dns\"\nquery = \"atm.example\"\n";
        let world = World::start_with(&net, SILENT_AFTER, |collector| collector.tables = tables.into(), |_| {}).await;
        let began: Vec<_> = (1..DEVICES).map(|device| net.unplug(1, device)).collect();
        are(&world, 1..DEVICES, "down", None, Some("lan_fault")).await;
        are(&world, [0], "up", None, None).await;
        let ended: Vec<_> = (1..DEVICES).map(|device| net.plug(1, device)).collect();
        are(&world, 1..DEVICES, "up", None, None).await;
        for device in [1, 2, 4] {
            let at = usize::from(device) - 1;
            world.has_one_outage(&device_id(1, device), &Fault { began: began[at], ended: ended[at] }).await;
        }
        world.only_these_had_outages(&["b1-d01", "b1-d02", "b1-d03", "b1-d04"]).await;
    });
}

#[test]
fn a_device_whose_name_does_not_resolve_is_unknown_and_never_down() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let names = Service::names(&net, 1, 2, net.address(1, 4));
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let resolver = folder.path().join("resolv.conf");
        std::fs::write(&resolver, format!("nameserver {}\noptions timeout:1 attempts:1\n", net.address(1, 2))).expect("ours");
        let mount = "f=$0 && mount --bind $f /etc/resolv.conf && exec \"$@\"";
        let wrapper = ["sh", "-c", mount, resolver.to_str().expect("a temporary folder has a plain name")].map(str::to_owned);
        let tables = "[probe.device.b1-d04]\nhost = \"nvr.branch.example\"\n";
        let by_name = |agent: &mut ward_tests::agent::AgentSettings| agent.wrapper = wrapper.to_vec();
        let mut world = World::start_with(&net, SILENT_AFTER, |collector| collector.tables = tables.into(), by_name).await;

        // The last good address goes on being asked.
        names.says(3);
        net.silence(1, 4);
        are(&world, [4], "unknown", Some("dns_failure"), None).await;
        net.restore(1, 4);
        are(&world, [4], "up", None, None).await;
        // An agent that begins has none.
        world.agents[0].start_again();
        are(&world, [4], "unknown", Some("dns_failure"), None).await;
        are(&world, 0..4, "up", None, None).await;
        names.says(0);
        are(&world, [4], "up", None, None).await;
        world.only_these_had_outages(&[]).await;
        // With a name that resolves its silence is its own fault.
        net.silence(1, 4);
        are(&world, [4], "down", None, Some("device_down")).await;
    });
}

/// What `ward-agent probe` says in the branch, and whether anything answered.
async fn probe(net: &Net, arguments: &[&str]) -> (bool, String) {
    let (branch, line) = (net.branch(1), arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    // Beside the servers, which are tasks of this thread.
    let ran = tokio::task::spawn_blocking(move || {
        let line: Vec<&str> = ["probe", "--count", "1"].into_iter().chain(line.iter().map(String::as_str)).collect();
        inside(&branch, || run_to_end("ward-agent", &line))
    });
    let (status, said) = ran.await.expect("it runs");
    (status.success(), said)
}

#[test]
fn a_probe_by_hand_asks_what_a_config_would_and_explains_the_answer() {
    let net = Net::new(1, DEVICES);
    net.at_the_centre(async || {
        let web = Service::web(&net, 1, 1, 8080);
        let names = Service::names(&net, 1, 2, net.address(1, 0));
        let [web_at, names_at] = [1, 2].map(|device| net.address(1, device).to_string());
        let check = async |arguments: &[&str], answers: bool, expected: &str| {
            let (did, said) = probe(&net, arguments).await;
            assert_eq!((did, said.contains(expected)), (answers, true), "{arguments:?} said {said}");
        };
        check(&[&web_at], true, "verdict    it is up").await;
        check(&[&web_at, "--kind", "tcp", "--port", "8080"], true, "verdict    it is up").await;
        check(&[&web_at, "--kind", "tcp", "--port", "8081"], false, "nobody listens at port 8081").await;
        check(&[&web_at, "--kind", "tcp"], false, "port missing").await;
        check(&[&web_at, "--kind", "http", "--port", "8080", "--path", "/live"], true, "it is up").await;
        web.says(500);
        check(&[&web_at, "--kind", "http", "--port", "8080"], false, "a status of 200 to 399").await;
        check(&[&web_at, "--kind", "http", "--port", "8080", "--status", "500"], true, "it is up").await;
        check(&[&names_at, "--kind", "dns", "--query", "atm.example", "--interface", "lan"], true, "it is up").await;
        names.says(3);
        check(&[&names_at, "--kind", "dns", "--query", "atm.example"], false, "knows no atm.example").await;
        names.says(NOTHING);
        check(&[&names_at, "--kind", "dns", "--query", "atm.example"], false, "no answer within 500 ms").await;
        check(&[&names_at, "--source", "10.255.255.254"], false, "no probe left this machine").await;
        check(&["no/name"], false, "host must be a name").await;
    });
}
