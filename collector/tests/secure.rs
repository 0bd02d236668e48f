//! A whole collector that speaks TLS, asked by those who speak it and by those who don't.

#[path = "counter/mod.rs"]
mod counter;

use std::sync::Arc;

use counter::{Counter, TOKEN, said};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn connect(counter: &Counter, trusted: &[u8], version: &'static SupportedProtocolVersion) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.to_vec())).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("ring knows both")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(counter.address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("they agree")
}

#[tokio::test]
async fn answers_and_the_feed_come_by_tls() {
    let (counter, trusted) = Counter::open_by_tls().await;
    let (status, stats) = said(counter.by(TOKEN, "GET", "/api/v1/dashboard/stats")).await;
    assert_eq!((status, &stats["total_devices"]), (200, &json!(3)));
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let stream = connect(&counter, &trusted, version).await;
        let session = stream.get_ref().1;
        assert_eq!((session.protocol_version(), session.alpn_protocol()), (Some(expected), Some(&b"http/1.1"[..])));
        let mut request = "wss://localhost/ws/updates".into_client_request().expect("an address");
        request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().expect("a header"));
        request.headers_mut().insert("origin", "https://localhost".parse().expect("a header"));
        let (mut feed, _) = tokio_tungstenite::client_async(request, stream).await.expect("a feed");
        let first = feed.next().await.expect("a message").expect("no error");
        let first: Value = serde_json::from_str(first.to_text().expect("a text")).expect("JSON");
        assert_eq!((first["type"].as_str(), first["devices"].as_array().map(Vec::len)), (Some("snapshot"), Some(3)));
    }
    let mut plain = TcpStream::connect(counter.address).await.expect("it listens");
    plain.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.expect("an answer, and then the end");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn cookies_are_for_this_host_by_tls_alone() {
    let (counter, _) = Counter::open_by_tls().await;
    let entered = counter.request("POST", "/login").json(&json!({ "token": TOKEN })).send().await.expect("an answer");
    let cookie = entered.headers()["set-cookie"].to_str().expect("a text").to_owned();
    // What a browser asks of this prefix.
    assert!(cookie.starts_with(&format!("__Host-ward_token={TOKEN}; Path=/; HttpOnly; SameSite=Strict")), "{cookie}");
    assert!(cookie.ends_with("; Secure") && !cookie.contains("Domain"), "{cookie}");
    let me = async |name: &str| said(counter.request("GET", "/api/v1/me").header("cookie", format!("{name}={TOKEN}"))).await.0;
    assert_eq!((me("__Host-ward_token").await, me("ward_token").await), (200, 401), "another host may have set the second");
}

#[tokio::test]
async fn a_browser_is_told_to_come_by_tls_alone_where_that_hides_no_other_port() {
    let (counter, _) = Counter::open_by_tls().await;
    let told = async |counter: &Counter, host: &str| {
        let answer = counter.request("GET", "/version").header("host", host).send().await.expect("an answer");
        answer.headers().contains_key("strict-transport-security")
    };
    assert!(told(&counter, "ward.example.bank").await && told(&counter, "[::1]").await);
    assert!(!told(&counter, "ward.example.bank:8443").await && !told(&counter, "[::1]:8443").await);
    assert!(!told(&Counter::open().await, "ward.example.bank").await);
}
