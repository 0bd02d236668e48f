//! Boxes that join by a code, and what one branch's box can't do to another.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared::message::{Host, PresenceState};
use shared::wire::{decode, encode};
use shared::{Config, Lane, Presence, ProbeRule, StreamId, Target};
use tempfile::TempDir;
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::estate::{branch_id, device_id};
use ward_tests::mosquitto::Access;
use ward_tests::process::Process;
use ward_tests::program::{Probe, binary};
use ward_tests::{Collector, Estate, Identity, Mosquitto, Mqtt, Net, eventually};

use crate::world::SOON;

/// A branch must be shut out within a minute.
const REVOKED_WITHIN: Duration = Duration::from_secs(60);

/// A collector with its own authority, mosquitto as it says, and boxes that have joined.
pub struct Bank<'net> {
    net: &'net Net,
    /// Its boxes, as they have joined.
    pub boxes: Vec<BranchBox>,
    /// The collector.
    pub collector: Collector,
    /// The broker.
    pub broker: Mosquitto,
    data: TempDir,
}

/// A branch's box.
pub struct BranchBox {
    /// What runs there.
    pub process: Process,
    folder: TempDir,
}

impl BranchBox {
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn identity(&self) -> String {
        fs::read_to_string(self.state().join("identity.pem")).expect("a box that has joined has an identity")
    }
}

impl<'net> Bank<'net> {
    /// Opens it; nobody has joined yet.
    pub async fn open(net: &'net Net) -> Self {
        let data = tempfile::tempdir().expect("the folder for temporary files is writable");
        let settings = CollectorSettings {
            tables: String::new(),
            broker: Broker::Authority(Net::CENTRE.into()),
            victoria_metrics: Vec::new(),
            probe: Probe::BRISK,
            silent_after: Duration::from_secs(10),
            report: None,
            estate: Estate::of(net),
            data_dir: Some(data.path().to_owned()),
        };
        let collector = Collector::start(settings).await;
        eventually(SOON, "mosquitto's files are there", async || {
            ensure!(data.path().join("mosquitto/crl.pem").exists(), "they aren't");
            Ok(())
        })
        .await;
        let broker = Mosquitto::start_of(&collector, data.path(), Net::CENTRE.into()).await;
        Self { net, boxes: Vec::new(), collector, broker, data }
    }

    /// The code for a branch's box.
    fn code(&self, branch: &str) -> String {
        let said = self.collector.command(&["branch", "add"], branch).expect("the inventory has the branch");
        let line = said.lines().find_map(|line| line.trim().strip_prefix("sudo ward-agent join "));
        line.expect("the command for the box is shown").to_owned()
    }

    /// What `ward-agent join` says in a branch.
    fn try_to_join(&self, b: u8, folder: &Path, code: &str, more: &[&str]) -> Result<String> {
        let mut command = self.in_branch(b);
        command.args(["join", code, "--no-start", "--config"]).arg(folder.join("agent.toml")).arg("--state-dir");
        let output = command.arg(folder.join("state")).args(more).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{said}");
        Ok(said)
    }

    fn in_branch(&self, b: u8) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.net.branch(b)]).arg(binary("ward-agent"));
        command
    }

    fn run(&self, b: u8, folder: &Path) -> Process {
        let mut command = self.in_branch(b);
        command.args(["run", "--config"]).arg(folder.join("agent.toml"));
        Process::spawn(&mut command, &folder.join("agent.log"))
    }

    /// A box joins and begins.
    fn join(&mut self, b: u8) {
        self.join_with(b, "");
    }

    /// A box joins and begins, with more in its config.
    pub fn join_with(&mut self, b: u8, more: &str) {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        self.try_to_join(b, folder.path(), &self.code(&branch_id(b)), &[]).expect("a code that counts");
        let config = folder.path().join("agent.toml");
        let text = fs::read_to_string(&config).expect("it was just written");
        fs::write(&config, format!("{text}\n{more}")).expect("the folder is the test's own");
        let process = self.run(b, folder.path());
        self.boxes.push(BranchBox { process, folder });
    }

    /// A branch's first device gets a status.
    pub async fn becomes(&self, b: u8, status: &str, within: Duration) {
        let device = device_id(b, 0);
        eventually(within, &format!("{device} is {status}"), async || {
            let is = self.collector.api.status(&device).await?;
            ensure!(is == status, "it is {is}");
            Ok(())
        })
        .await;
    }

    /// The broker as somebody reaches it who has taken a box's card.
    fn stolen(&self, b: u8) -> Access {
        let state = self.boxes[usize::from(b) - 1].state();
        let pem = state.join("identity.pem");
        let identity = Identity { ca: state.join("ca.pem"), certificate: pem.clone(), key: pem };
        Access { host: Net::CENTRE.into(), port: 8883, identity: Some(identity) }
    }
}

#[test]
fn a_box_joins_by_a_code_renews_by_itself_and_is_shut_out_when_its_branch_is_revoked() {
    let net = Net::new(2, 2);
    net.at_the_centre(async || {
        let mut bank = Bank::open(&net).await;

        // Nothing but the right code of the right collector.
        let elsewhere = tempfile::tempdir().expect("the folder for temporary files is writable");
        let says = |code: &str| bank.try_to_join(1, elsewhere.path(), code, &[]).expect_err("refused").to_string();
        let code = bank.code("b1");
        let mut bent = code.clone();
        let last = bent.pop().expect("a code has characters");
        bent.push(if last == '7' { '8' } else { '7' });
        assert!(says(&bent).contains("a character of the join code is wrong"));
        let newer = bank.code("b1");
        assert!(says(&code).contains("the code is not known"), "a newer code replaces the one before");
        assert!(bank.collector.command(&["branch", "add"], "nowhere").is_err(), "the inventory has no such branch");
        let mut foreign: shared::enrolment::JoinCode = newer.parse().expect("a code");
        foreign.authority[0] ^= 1;
        assert!(says(&foreign.to_string()).contains("is not the collector that it should be"), "no trust at first sight");
        let joined = bank.try_to_join(1, elsewhere.path(), &newer, &[]).expect("the right code");
        assert!(joined.contains("speaks for branch b1"), "{joined}");
        assert!(says(&newer).contains("has joined before"));
        let again = bank.try_to_join(1, elsewhere.path(), &newer, &["--again"]).expect_err("spent").to_string();
        assert!(again.contains("the code was used before"), "{again}");

        bank.join(1);
        bank.join(2);
        bank.broker.reload();
        for b in [1, 2] {
            bank.becomes(b, "up", Duration::from_secs(40)).await;
        }
        let (state, identity) = (bank.boxes[0].state(), bank.boxes[0].identity());
        let mode = fs::metadata(state.join("identity.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = identity.split("PRIVATE KEY").nth(1).expect("a key stands beside the certificate");
        for entry in walk(bank.data.path()) {
            let bytes = fs::read(&entry).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(key), "the box's key has left it: {}", entry.display());
        }

        // A certificate that is due is renewed, with a new key.
        let due = identity.lines().next().expect("it says when");
        fs::write(state.join("identity.pem"), identity.replacen(due, "renew-after: 1", 1)).expect("the test's own folder");
        bank.boxes[0].process.kill_hard();
        bank.boxes[0].process = bank.run(1, bank.boxes[0].folder.path());
        eventually(SOON, "the box has renewed", async || {
            let now = bank.boxes[0].identity();
            ensure!(!now.contains("renew-after: 1\n") && !now.contains(key), "it is as it was");
            Ok(())
        })
        .await;
        bank.boxes[0].process.kill_hard();
        bank.boxes[0].process = bank.run(1, bank.boxes[0].folder.path());
        bank.becomes(1, "up", SOON).await;

        // Whoever has the card is connected when the branch is revoked.
        bank.boxes[0].process.kill_hard();
        let thief = bank.stolen(1);
        let mut connection = Mqtt::connect("ward-agent-b1", &thief).await.expect("nobody knows yet");
        let list = bank.data.path().join("mosquitto/crl.pem");
        let before = fs::read(&list).expect("there");
        bank.collector.command(&["branch", "revoke"], "b1").expect("b1 has certificates");
        eventually(REVOKED_WITHIN, "the list for mosquitto is new", async || {
            ensure!(fs::read(&list)? != before, "it is the same");
            Ok(())
        })
        .await;
        bank.broker.reload();
        assert!(connection.ends(REVOKED_WITHIN).await, "the open connection is ended");
        eventually(REVOKED_WITHIN, "the stolen card opens no connection", async || {
            ensure!(Mqtt::connect("ward-agent-b1", &thief).await.is_err(), "it does");
            Ok(())
        })
        .await;
        bank.boxes[0].process = bank.run(1, bank.boxes[0].folder.path());
        bank.becomes(1, "unknown", REVOKED_WITHIN).await;
        assert_eq!(bank.collector.api.status(&device_id(2, 0)).await.expect("the API answers"), "up", "the other is untouched");

        // A new code opens the branch again, for a new key.
        bank.boxes[0].process.kill_hard();
        let (code, folder) = (bank.code("b1"), bank.boxes[0].folder.path().to_owned());
        bank.try_to_join(1, &folder, &code, &["--again"]).expect("a code that counts");
        bank.boxes[0].process = bank.run(1, &folder);
        bank.becomes(1, "up", Duration::from_secs(40)).await;
    });
}

#[test]
fn with_one_branchs_credentials_nothing_can_be_done_to_another() {
    let net = Net::new(2, 2);
    net.at_the_centre(async || {
        let mut bank = Bank::open(&net).await;
        bank.join(1);
        bank.join(2);
        for b in [1, 2] {
            bank.becomes(b, "up", Duration::from_secs(40)).await;
        }
        bank.boxes[0].process.kill_hard();
        let (thief, victim) = (bank.stolen(1), "b2".parse().expect("a valid id"));

        // Without a certificate, or with the name alone, there is no way in.
        let bare = Access { identity: None, ..thief.clone() };
        assert!(Mqtt::connect("ward-agent-b2", &bare).await.is_err());

        // Client-id takeover: the common name is the id, whatever the client says.
        let connected = bank.boxes[1].process.log().matches("connected to the broker").count();
        let mut attacker = Mqtt::connect("ward-agent-b2", &thief).await.expect("a good certificate");

        // Wildcards and the neighbour's lanes bring nothing of the neighbour's, while the own config arrives.
        for filter in ["#", "ward/1/+/config", "ward/1/b2/#", "ward/1/b2/ack", "$SYS/#", "ward/1/b1/config"] {
            // Some are refused, some are granted and bring nothing.
            let _ = attacker.subscribe(filter).await;
        }
        let read = attacker.all(Duration::from_secs(3)).await;
        let topics: Vec<&str> = read.iter().map(|message| message.topic.as_str()).collect();
        assert!(topics.contains(&"ward/1/b1/config"), "{topics:?}");
        assert!(topics.iter().all(|topic| topic.starts_with("ward/1/b1/")), "{topics:?}");

        // Publishing: a state that would turn devices, a goodbye, an order, an ack that would empty the buffer.
        let goodbye = encode(&Presence { stream: StreamId(0), state: PresenceState::Stopped }).expect("small");
        let target = Target {
            device: "b2-evil".parse().expect("a valid id"),
            host: Host::Address([192, 168, 1, 200].into()),
            probe: shared::message::Probe::Icmp,
            via: None,
            parent: None,
            rule: 0,
        };
        let order = Config {
            version: u64::MAX >> 1,
            heartbeat_ms: 3_600_000,
            report_ms: 3_600_000,
            rules: vec![ProbeRule::default()],
            targets: vec![target],
        };
        for lane in Lane::ALL {
            let payload = if lane == Lane::Config { encode(&order).expect("small") } else { goodbye.clone() };
            attacker
                .publish(&lane.topic(&victim), lane == Lane::Config || lane == Lane::Presence, payload)
                .await
                .expect("a PUBACK");
        }
        // Its own config, which nobody but the collector may give.
        attacker.publish("ward/1/b1/config", true, encode(&order).expect("small")).await.expect("a PUBACK");

        // A last will in the neighbour's name.
        let will = Some(("ward/1/b2/presence", goodbye.clone()));
        if let Ok(with_will) = Mqtt::connect_with("whoever", &thief, will).await {
            drop(with_will);
        }

        // The neighbour has noticed nothing: no connection was lost, no config came, nothing was refused in its name.
        tokio::time::sleep(Duration::from_secs(3)).await;
        bank.becomes(2, "up", SOON).await;
        let log = bank.boxes[1].process.log();
        assert_eq!(log.matches("connected to the broker").count(), connected, "{log}");
        assert!(!log.contains("a config is refused") && !log.contains("an ack can't be read"), "{log}");
        let metrics = bank.collector.api.text("/metrics").await.expect("the API answers");
        assert!(!metrics.contains("ward_payloads_refused_total{"), "something reached the collector: {metrics}");
        let denied = bank.broker.log().matches("Denied PUBLISH from b1").count();
        assert!(denied > Lane::ALL.len(), "mosquitto says of {denied} publishes that it denied them");

        // What mosquitto retains is what the collector has signed.
        bank.boxes[1].process.kill_hard();
        let kept = retained(&bank.stolen(2), "ward/1/b2/config").await.expect("it retains the config");
        let sealed: shared::message::Sealed = decode(&kept).expect("a signed config");
        let config: Config = decode(&sealed.config).expect("a config");
        assert!(config.version < order.version && config.targets.len() == 2, "{config:?}");

        // Whoever holds the broker itself can't give orders either: a config that isn't signed for the branch is refused.
        let collector = bank.data.path().join("authority/collector.pem");
        let root = Identity { ca: bank.data.path().join("authority/ca.pem"), certificate: collector.clone(), key: collector };
        bank.collector.process().kill_hard();
        let mut broker = Mqtt::connect("whoever", &Access { identity: Some(root), ..thief }).await.expect("the collector's own");
        broker.publish("ward/1/b2/config", true, encode(&order).expect("small")).await.expect("a PUBACK");
        bank.boxes[1].process = bank.run(2, bank.boxes[1].folder.path());
        eventually(SOON, "the box refuses the order", async || {
            ensure!(bank.boxes[1].process.log().contains("a config is refused"), "it has not said so");
            Ok(())
        })
        .await;
    });
}

async fn retained(access: &Access, topic: &str) -> Result<Vec<u8>> {
    let mut reader = Mqtt::connect("reader", access).await?;
    reader.subscribe(topic).await?;
    Ok(reader.next().await.context("nothing is retained")?.payload.to_vec())
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
