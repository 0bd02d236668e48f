//! Builds of the agent on their way into boxes: good ones, and ones that are bad in every way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ward_tests::estate::{branch_id, device_id};
use ward_tests::program::binary;
use ward_tests::{Net, eventually};

use crate::enrolment::Bank;

/// Short, so that the test is.
const BRISK: &str = "[update]\nshadow = \"6s\"\ntrial = \"10s\"\n";
/// Two shadows of a build that hangs take half a minute, and so does one that ends three times.
const DECIDED_WITHIN: Duration = Duration::from_secs(150);

/// Branches, with a box in each.
const BOXES: u8 = 20;

/// How a build is bad in a branch, and why it is refused there. It is good in the first.
fn fault(b: u8) -> (&'static str, &'static str) {
    match b % 7 {
        2 => ("ends", "refused: it ended beside the program in force: exit status: 1"),
        3 => ("hangs", "refused: it hung beside the program in force"),
        4 => ("lies", "refused: it says that b"),
        5 => ("mistimes", "refused: it asks b"),
        6 => ("mute", "refused: the collector can be reached and hears nothing of it"),
        0 => ("ends-in-its-place", "refused: it ended 3 times in its trial"),
        _ if b == 1 => ("good", "in_force"),
        _ => ("mute-in-force", "refused: the collector can be reached and hears nothing of it any more"),
    }
}

/// A build that is another thing in each branch.
fn build(folder: &Path, name: &str) -> String {
    let real = binary("ward-agent");
    let faults = (1..=BOXES).map(|b| format!("  {}) fault={} ;;\n", branch_id(b), fault(b).0)).collect::<String>();
    let text = format!(
        r#"#!/bin/sh
# {name}
eval "config=\${{$#}}"
case "$(sed -n 's/^branch = "\(.*\)"$/\1/p' "$config")" in
{faults}esac
mute() {{
  # What listens there takes a connection, and says nothing to MQTT.
  sed 's/^port = 8883/port = 8884/' "$config" >"$config.mute"
  exec '{real}' run --config "$config.mute"
}}
case "$fault/$1" in
  ends/*) exit 1 ;;
  hangs/*) exec sleep 1000 ;;
  lies/shadow) '{real}' "$@" | sed 's/"up"/"down"/g'; exit ;;
  mistimes/shadow) '{real}' "$@" | sed 's/"sent":[0-9]*/"sent":1/g'; exit ;;
  mute/run) mute ;;
  mute-in-force/run)
    # The program that takes its place gets the same arguments: this one's line takes no words, for as long as that takes.
    if [ -z "${{WARD_AGENT_TRIED-}}" ]; then
      nft 'table inet mute {{ chain out {{ type filter hook output priority 0; tcp dport 8883 meta length > 100 drop; }}; }}'
      (sleep 20; nft delete table inet mute) &
    fi ;;
  ends-in-its-place/run) exit 3 ;;
esac
exec '{real}' "$@"
"#,
        real = real.display()
    );
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is the test's own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the folder is the test's own");
    path.to_str().expect("a temporary folder has a plain name").to_owned()
}

impl Bank<'_> {
    /// What `update status` says of a branch.
    fn runs(&self, b: u8) -> Result<String> {
        let said = self.collector.command(&["update"], "status")?;
        let branch = format!("{} ", branch_id(b));
        Ok(said.lines().find(|line| line.starts_with(&branch)).context("nothing is known of it")?.to_owned())
    }

    async fn reaches(&self, b: u8, stage: &str) {
        eventually(DECIDED_WITHIN, &format!("b{b} says {stage}"), async || {
            let runs = self.runs(b)?;
            ensure!(runs.contains(stage), "it says {runs}");
            Ok(())
        })
        .await;
    }
}

#[test]
fn no_bad_build_leaves_a_box_without_a_working_agent_and_a_good_one_gets_into_force() {
    let net = Net::new(BOXES, 2);
    net.at_the_centre(async || {
        let mut bank = Bank::open(&net).await;
        for b in 1..=BOXES {
            bank.join_with(b, BRISK);
        }
        bank.broker.reload();
        for b in 1..=BOXES {
            bank.becomes(b, "up", Duration::from_secs(60)).await;
        }
        let builds = tempfile::tempdir().expect("the folder for temporary files is writable");

        // To one first.
        let said = bank.collector.command(&["update", "stage"], &build(builds.path(), "first")).expect("it is staged");
        assert!(said.contains("staged for any"), "{said}");
        assert!(bank.collector.command(&["update"], "roll-out").is_err(), "no canary has it in force");
        bank.collector.command(&["update", "canary"], "b1").expect("b1 is a branch");
        assert!(bank.collector.command(&["update", "canary"], "nowhere").is_err());
        let device = device_id(1, 0);
        eventually(DECIDED_WITHIN, "b1 runs the build", async || {
            // Between two programs nobody looks, for a second or two.
            assert_ne!(bank.collector.api.status(&device).await?, "down");
            let runs = bank.runs(1)?;
            ensure!(runs.contains("in_force") && bank.boxes[0].process.log().contains("a build is in force"), "it says {runs}");
            Ok(())
        })
        .await;
        assert!(bank.runs(2).is_err(), "nobody else was asked");
        bank.becomes(1, "up", Duration::from_secs(60)).await;
        assert!(bank.collector.api.outages(&device).await.expect("the API answers").is_empty(), "no outage was recorded");
        let cuts = bank.collector.api.text("/api/v1/branches/b1/cuts").await.expect("the API answers");
        assert!(!cuts.contains("wan_cut") && !cuts.contains("power_cut"), "nobody is blamed: {cuts}");

        // Then to all, and it is bad in each in another way.
        eventually(DECIDED_WITHIN, "it is known that the canary has it in force", async || {
            bank.collector.command(&["update"], "roll-out").map(drop)
        })
        .await;
        for b in 2..=BOXES {
            bank.reaches(b, fault(b).1).await;
        }
        for b in 1..=BOXES {
            bank.becomes(b, "up", Duration::from_secs(60)).await;
            assert!(bank.boxes[usize::from(b) - 1].process.ended().is_none(), "the service's program goes on in b{b}");
        }

        // A line that is cut in the midst of a trial decides nothing, however long.
        bank.collector.command(&["update", "stage"], &build(builds.path(), "second")).expect("it is staged");
        bank.collector.command(&["update", "canary"], "b1").expect("b1 is a branch");
        let tried = |bank: &Bank<'_>| bank.boxes[0].process.log().matches("a build is tried").count();
        eventually(DECIDED_WITHIN, "it is tried in b1", async || {
            ensure!(tried(&bank) == 2, "it isn't yet");
            Ok(())
        })
        .await;
        net.wan_cut_silently(1);
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert!(!bank.boxes[0].process.log().contains("a build is refused"), "longer than its trial");
        net.wan_restore(1);
        eventually(DECIDED_WITHIN, "the second build is in force", async || {
            ensure!(bank.boxes[0].process.log().matches("a build is in force").count() == 2, "it isn't");
            Ok(())
        })
        .await;
        bank.becomes(1, "up", Duration::from_secs(60)).await;
    });
}
