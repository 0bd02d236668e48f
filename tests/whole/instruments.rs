//! What the laboratory breaks things with: cards, slow lines, relays and clocks do what they say.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use ward_tests::branch::QUEUE_MS;
use ward_tests::clocks::other_boot;
use ward_tests::namespace::inside;
use ward_tests::{Card, Mosquitto, Mqtt, Net, Pki, Relay, WrongClock, eventually};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_power_cut_leaves_what_was_synced_and_takes_the_rest() {
    let card = Card::new(32);
    let before = card.written_bytes();
    let mut file = File::create(card.path().join("synced")).expect("a new card has room");
    file.write_all(&[7; 100_000]).expect("a new card has room");
    file.sync_all().expect("a good card");
    File::open(card.path()).and_then(|folder| folder.sync_all()).expect("a good card");
    assert!(card.written_bytes() - before >= 100_000, "{} bytes", card.written_bytes() - before);
    fs::write(card.path().join("not-synced"), "lost").expect("a new card has room");
    let copy = card.power_cut();
    assert_eq!(fs::read(copy.path().join("synced")).expect("it is there"), [7; 100_000]);
    assert!(!copy.path().join("not-synced").exists());
    assert!(card.path().join("not-synced").exists(), "the first one goes on");
    fs::write(copy.path().join("new"), "kept").expect("the copy is a card of its own");
    assert!(!card.path().join("new").exists());
}

#[test]
fn a_full_card_takes_nothing_until_it_has_room() {
    let card = Card::new(32);
    let mut open = File::create(card.path().join("open")).expect("a new card has room");
    card.fill();
    assert_eq!(open.write_all(&[1; 8_192]).expect_err("it is full").kind(), ErrorKind::StorageFull);
    card.free_up();
    open.write_all(&[1; 8_192]).expect("there is room again");
}

#[test]
fn a_failing_card_and_a_read_only_one_fail_open_files_too_until_replaced() {
    for (harm, kind) in [(Card::fail as fn(&Card), None), (Card::read_only, Some(ErrorKind::ReadOnlyFilesystem))] {
        let mut card = Card::new(32);
        let path = card.path().join("file");
        let mut open = File::create(&path).expect("a new card has room");
        open.write_all(b"good").and_then(|()| open.sync_all()).expect("a good card");
        harm(&card);
        let error = open.write_all(b"bad").and_then(|()| open.sync_all()).expect_err("it fails");
        assert!(kind.is_none_or(|kind| kind == error.kind()), "{error}");
        File::create(card.path().join("new")).expect_err("it fails");
        card.replace();
        assert_eq!(fs::read(&path).expect("it is what it was"), b"good");
        fs::write(&path, "better").expect("it is good again");
        open.write_all(b"worse").and_then(|()| open.sync_all()).expect_err("the old one is not");
    }
}

#[test]
fn a_frozen_card_makes_writers_wait() {
    let card = Card::new(32);
    let path = card.path().join("file");
    let frozen = card.freeze();
    let writer = thread::spawn({
        let path = path.clone();
        move || fs::write(path, "late")
    });
    thread::sleep(Duration::from_millis(200));
    assert!(!writer.is_finished());
    drop(frozen);
    writer.join().expect("it doesn't panic").expect("a thawed card is good");
    assert_eq!(fs::read(&path).expect("it was written"), b"late");
}

#[test]
fn cards_are_gone_when_their_values_are() {
    let card = Card::new(32);
    let copy = card.power_cut();
    let (one, other) = (card.path().to_owned(), copy.path().to_owned());
    let _open = File::create(one.join("open")).expect("a new card has room");
    let mounted = || fs::read_to_string("/proc/self/mounts").expect("readable");
    let shelf = one.parent().expect("cards lie in a folder").to_str().expect("UTF-8").to_owned();
    assert!(mounted().contains(&shelf));
    drop(card);
    assert!(other.exists(), "what lies on the same disk goes on");
    drop(copy);
    assert!(!mounted().contains(&shelf) && !one.exists());
}

#[test]
fn a_slow_wan_link_carries_what_it_should_and_counts_it() {
    const BYTES: u32 = 64_000;
    let net = Net::new(2, 1);
    net.at_the_centre(async || {
        let listener = TcpListener::bind((Net::CENTRE, 0)).expect("the centre's own address");
        let centre = listener.local_addr().expect("it is bound");
        let sends = |b: u8| {
            let started = Instant::now();
            let taken = thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    inside(&net.branch(b), || {
                        let mut stream = TcpStream::connect_timeout(&centre, SOON).expect("the centre listens");
                        stream.write_all(&vec![1; BYTES as usize]).expect("the line carries it");
                    });
                });
                let (mut stream, _) = listener.accept().expect("the branch connects");
                stream.read_to_end(&mut Vec::new()).expect("the line carries it");
                sender.join().expect("it doesn't panic");
                started.elapsed()
            });
            taken.as_secs_f64()
        };
        let before = net.wan_bytes(1);
        net.wan_rate(1, 256);
        // Two seconds of payload, and headers; the queue swallows some of it.
        let slow = sends(1);
        assert!(slow > 2.0 - f64::from(QUEUE_MS) / 1_000.0, "{slow} s");
        assert!(sends(2) < slow, "only that one is slow");
        let after = net.wan_bytes(1);
        let up_bytes = after.up_bytes - before.up_bytes;
        // Headers are 4 % of full packets, and a queue that overflows costs repetitions.
        assert!((u64::from(BYTES) * 102 / 100..u64::from(BYTES) * 3 / 2).contains(&up_bytes), "{up_bytes} bytes up");
        assert!(after.down_bytes > before.down_bytes);
        net.wan_full_rate(1);
        assert!(sends(1) < slow, "it is fast again");
    });
}

#[tokio::test]
async fn a_relay_cuts_connections_and_lets_new_ones_through() {
    let broker = Mosquitto::start_plain().await;
    let direct = broker.access(&Pki::new().client("b1"));
    let mut relay = Relay::start(&direct);
    let access = relay.access(&direct);
    let mut mqtt = Mqtt::connect("through", &access).await.expect("it carries");
    mqtt.publish("t", false, "x").await.expect("it carries");
    relay.cut();
    assert!(mqtt.next().await.is_err(), "it is cut");
    let mut mqtt = Mqtt::connect("again", &access).await.expect("it carries again");
    mqtt.publish("t", false, "x").await.expect("it carries again");
    relay.cut_every(Duration::from_millis(100));
    assert!(mqtt.next().await.is_err(), "it is cut");
    relay.leave_in_peace();
    let mut mqtt = eventually(SOON, "it is left in peace", async || Mqtt::connect("at last", &access).await).await;
    mqtt.publish("t", false, "x").await.expect("it carries");
    assert!(relay.accepted() >= 3, "{}", relay.accepted());
}

#[tokio::test]
async fn a_wrong_clock_is_believed_and_can_be_set() {
    let clock = WrongClock::at_the_epoch();
    let wrapper = clock.wrapper();
    let year = || {
        let output = Command::new(&wrapper[0]).args(&wrapper[1..]).args(["date", "--utc", "+%Y"]).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(year(), "1970");
    clock.set(0);
    eventually(SOON, "it is right", async || {
        let year = year();
        ensure!(year.parse::<u32>().is_ok_and(|year| year >= 2025), "{year}");
        Ok(())
    })
    .await;
}

#[test]
fn another_boot_has_another_name_and_another_uptime() {
    let net = Net::new(1, 1);
    let wrapper = other_boot("00000000-0000-0000-0000-00000000cafe", SOON);
    let output = Command::new("ip")
        .args(["netns", "exec", &net.branch(1)])
        .args(&wrapper)
        .args(["cat", "/proc/sys/kernel/random/boot_id", "/proc/uptime"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), Some("00000000-0000-0000-0000-00000000cafe"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let uptime_s = words.next().and_then(|word| word.parse::<f64>().ok()).expect("an uptime");
    assert!((SOON.as_secs_f64()..SOON.as_secs_f64() + 20.0).contains(&uptime_s), "{said}");
}
