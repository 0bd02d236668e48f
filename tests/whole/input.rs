//! What a person writes and gets wrong: each mistake is named, and nothing is half-applied.

use std::fs;
use std::time::Duration;

use ward_tests::estate::Estate;
use ward_tests::program::run_to_end;
use ward_tests::{Net, eventually};

use crate::world::{World, statuses};

#[test]
fn a_config_with_mistakes_is_refused_with_each_line() {
    let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
    let path = folder.path().join("agent.toml");
    let path = path.to_str().expect("UTF-8");
    let check = |text: &str, expected: &[&str]| {
        fs::write(path, text).expect("the folder is the test's own");
        for arguments in [&["check", path][..], &["run", "--config", path]] {
            let (status, said) = run_to_end("ward-agent", arguments);
            assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
            for line in expected {
                assert!(said.contains(&format!("agent.toml:{line}")), "{arguments:?} doesn't say {line:?}: {said}");
            }
        }
    };
    check("", &["1: the file is empty"]);
    check(
        "branch = \"b 1\"\nstate_dir = \"/tmp\"\ncolour = 3\n[broker]\nhost = \"127.0.0.1\"\n[[device]]\nid = \"a\"\naddress = \"10.0.0.300\"\n",
        &["1: branch", "3: colour", "8: device[1].address"],
    );
    // Without TLS only on loopback.
    check("branch = \"b1\"\nstate_dir = \"/tmp\"\n[broker]\nhost = \"10.77.0.1\"\nport = 1883\n", &["4: broker.host"]);
}

#[test]
fn an_inventory_is_imported_whole_or_not_at_all_and_reaches_the_agent() {
    let net = Net::new(1, 4);
    net.at_the_centre(async || {
        let mut estate = Estate::of(&net);
        let world = World::start(&net, Duration::from_secs(30)).await;
        let before = statuses(world.api()).await.expect("the API answers");
        let good = estate.csv();
        let with = |row: &str| format!("{good}{row}\n");
        let bad = [
            (with("b1-d90,New,b1,Branch b1,r1,Region 1,atm,192.168.1.10"), "estate.csv:6"),
            (with("b1-d00,Twice,b1,Branch b1,r1,Region 1,atm,192.168.1.99"), "estate.csv:6"),
            (with("b1-d90,New,b1,Branch b1,r1,Region 1,atm,192.168.1"), "estate.csv:6"),
            (with("b1/d90,New,b1,Branch b1,r1,Region 1,atm,192.168.1.99"), "estate.csv:6"),
            (with("b1-d90,New,b1"), "estate.csv:6"),
            (good.replacen("device_type", "kind", 1), "estate.csv:1"),
            (good.replacen("b1-d00,", "b1-other,", 1), "estate.csv:2: ip: 192.168.1.10"),
            (String::new(), "estate.csv"),
        ];
        for (csv, place) in bad {
            let said = world.collector.import(&csv).expect_err("an inventory with a mistake").to_string();
            assert!(said.contains(place), "{place} is not in: {said}");
            assert_eq!(statuses(world.api()).await.expect("the API answers"), before);
        }

        // The last address was there all the time; from now on it is probed.
        let added = "b1-new";
        let mut row = estate.rows[3].clone();
        row.device = added.to_owned();
        row.ip = std::net::Ipv4Addr::new(192, 168, 1, 1).into();
        estate.rows.push(row);
        world.collector.import(&estate.csv()).expect("a good inventory");
        eventually(Duration::from_secs(30), "the added device is up", async || {
            let status = world.api().status(added).await?;
            anyhow::ensure!(status == "up", "it is {status}");
            Ok(())
        })
        .await;
    });
}
