//! The laboratory itself: its servers serve and its faults are felt.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::ensure;
use socket2::{Domain, Protocol, Socket, Type};
use ward_tests::namespace::inside;
use ward_tests::{Identity, Mosquitto, Mqtt, Net, Pki, Victoria, eventually, now_ms};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn mosquitto_delivers_over_mtls_and_holds_a_branch_to_its_own_topics() {
    let pki = Pki::new();
    let broker = Mosquitto::start(Ipv4Addr::LOCALHOST.into(), &pki.server(&[])).await;
    let mut centre = Mqtt::connect("centre", &broker.access(&pki.client("collector"))).await.expect("the collector is let in");
    let mut branch = Mqtt::connect("branch", &broker.access(&pki.client("b1"))).await.expect("a branch is let in");

    centre.subscribe("ward/1/+/up").await.expect("subscribed");
    for (topic, text) in
        [("ward/1/b1/up", "mine"), ("ward/1/b2/up", "another's"), ("ward/1/b1/ack", "no lane of mine"), ("ward/1/b1/up", "last")]
    {
        branch.publish(topic, false, text).await.expect("even a denied message is acknowledged");
    }
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "last") {
        heard.push(String::from_utf8_lossy(&centre.next().await.expect("the last one is allowed").payload).into_owned());
    }
    assert_eq!(heard, ["mine", "last"]);

    branch.subscribe("ward/1/+/config").await.expect("subscribed");
    for (topic, text) in [("ward/1/b2/config", "another's"), ("ward/1/b1/config", "mine")] {
        centre.publish(topic, true, text).await.expect("published");
    }
    assert_eq!(&branch.next().await.expect("its own config").payload[..], b"mine");
}

#[tokio::test]
async fn mosquitto_refuses_a_certificate_of_another_authority() {
    let (pki, other) = (Pki::new(), Pki::new());
    let broker = Mosquitto::start(Ipv4Addr::LOCALHOST.into(), &pki.server(&[])).await;
    let foreign = Identity { ca: pki.client("b1").ca, ..other.client("b1") };
    assert!(Mqtt::connect("branch", &broker.access(&foreign)).await.is_err());
    assert!(Mqtt::connect("branch", &broker.access(&pki.client("b1"))).await.is_ok());
}

#[tokio::test]
async fn mosquitto_comes_back_on_its_port() {
    let mut broker = Mosquitto::start_plain().await;
    let access = broker.access(&Pki::new().client("b1"));
    let mut before = Mqtt::connect("before", &access).await.expect("it runs");
    broker.kill();
    assert!(before.next().await.is_err(), "a killed broker ends its connections");
    assert!(Mqtt::connect("while", &access).await.is_err());
    broker.restart().await;
    Mqtt::connect("after", &access).await.expect("it runs again");
}

#[tokio::test]
async fn victoria_metrics_takes_samples_and_keeps_them_over_a_restart() {
    let mut server = Victoria::start().await;
    let minute = now_ms() / 60_000 * 60_000 - 60_000;
    let lines = format!("lab_status{{device_id=\"d1\"}} 1 {minute}\nlab_status{{device_id=\"d1\"}} 0 {}\n", minute + 30_000);
    server.import(&lines).await.expect("imported");
    for run in ["first", "second"] {
        let found = eventually(SOON, "both samples are in VictoriaMetrics", async || {
            let series = server.export("lab_status").await?;
            ensure!(series.len() == 1 && series[0].1.len() == 2, "{series:?}");
            Ok(series)
        })
        .await;
        assert_eq!(found[0].1, [(minute, 1.0), (minute + 30_000, 0.0)], "{run} run");
        let range = server.query_range("lab_status{device_id=\"d1\"}", minute, minute + 30_000, 1).await.expect("a good query");
        assert_eq!((range[0].1.first(), range[0].1.last()), (Some(&(minute, 1.0)), Some(&(minute + 30_000, 0.0))), "{run} run");
        assert_eq!(server.series("lab_status").await.expect("a good selector")[0]["device_id"], "d1");
        if run == "first" {
            server.stop().await;
            assert!(server.flush().await.is_err());
            server.start_again().await;
        }
    }
    server.kill();
    assert!(server.flush().await.is_err());
}

#[test]
fn a_silenced_address_does_not_answer_and_comes_back() {
    let net = Net::new(2, 3);
    let answers = |b: u8, i: u8| answers(&net.branch(b), net.address(b, i));
    assert!(answers(1, 0) && answers(1, 2) && answers(2, 0));
    let change = net.silence(1, 0);
    assert!(change.before_ms <= change.after_ms);
    assert!(!answers(1, 0));
    assert!(answers(1, 1) && answers(2, 0), "only that one is silent");
    net.restore(1, 0);
    assert!(answers(1, 0));
}

#[test]
fn worlds_live_side_by_side_and_end_with_their_value() {
    let (one, other) = (Net::new(1, 1), Net::new(1, 1));
    one.silence(1, 0);
    assert!(answers(&other.branch(1), other.address(1, 0)));
    let name = one.branch(1);
    let path = format!("/run/netns/{name}");
    assert!(std::fs::exists(&path).expect("readable"));
    drop(one);
    assert!(!std::fs::exists(&path).expect("readable"));
}

#[test]
fn a_cut_wan_loses_what_is_sent_and_comes_back() {
    let net = Net::new(2, 1);
    net.at_the_centre(async || {
        let listener = TcpListener::bind((Net::CENTRE, 0)).expect("the centre's own address");
        let centre = listener.local_addr().expect("it is bound");
        let connects = |b: u8| inside(&net.branch(b), || TcpStream::connect_timeout(&centre, Duration::from_millis(300)).is_ok());
        assert!(connects(1) && connects(2));
        for cut in [Net::wan_cut, Net::wan_cut_silently] {
            cut(&net, 1);
            assert!(!connects(1));
            assert!(connects(2), "only that one is cut");
            net.wan_restore(1);
            eventually(SOON, "the branch reaches the centre again", async || {
                ensure!(connects(1), "it doesn't");
                Ok(())
            })
            .await;
        }
    });
}

/// Whether an address answers one echo request, sent from a namespace as an unprivileged program sends it.
fn answers(namespace: &str, address: Ipv4Addr) -> bool {
    inside(namespace, || {
        let mut socket =
            Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).expect("the namespace permits ICMP sockets");
        socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a timeout");
        // Echo request; the kernel fills in the checksum and the identifier.
        let request = [8, 0, 0, 0, 0, 0, 0, 1];
        let to = SocketAddr::new(IpAddr::from(address), 0);
        socket.send_to(&request, &to.into()).expect("the address has a route");
        let mut reply = [0; 64];
        socket.read(&mut reply).is_ok_and(|len| len >= 8 && reply[0] == 0)
    })
}
