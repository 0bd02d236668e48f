//! A collector without a broker, and those who ask it.

#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use ward_agent::settings::Broker;
use ward_collector::api::auth::Token;
use ward_collector::collector::Collector;
use ward_collector::feed::Notes;
use ward_collector::inventory::parse_csv;
use ward_collector::settings::{Api, BrokerChoice, CertificateFiles, Rollout, Settings};
use ward_collector::store::{self, Store};

/// The token of the file.
pub(crate) const TOKEN: &str = "the-token-of-the-file";
/// Two regions with a branch each; what is of the other has `hidden` in it.
pub(crate) const ESTATE: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
    seen-1,Seen 1,seen-branch,Seen,seen,Seen,atm,10.0.0.1\n\
    seen-2,Seen 2,seen-branch,Seen,seen,Seen,router,10.0.0.2\n\
    hidden-1,hidden 1,hidden-branch,hidden,hidden,hidden,atm,10.0.0.1\n";

/// A collector that serves until it is dropped.
pub(crate) struct Counter {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    scheme: &'static str,
    stop: CancellationToken,
    http: reqwest::Client,
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Counter {
    /// One that serves [`ESTATE`].
    pub(crate) async fn open() -> Self {
        // Already installed by another client is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        Self::shows(None, reqwest::Client::builder()).await
    }

    /// One that speaks TLS, and what its certificate is in DER: it is for `localhost` and vouches for itself.
    pub(crate) async fn open_by_tls() -> (Self, Vec<u8>) {
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("ring makes keys");
        let folder = tempfile::tempdir().expect("a folder");
        let files = CertificateFiles { certificate: folder.path().join("api.pem"), key: folder.path().join("api.key") };
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        let der = made.cert.der().to_vec();
        let trusted = reqwest::Certificate::from_der(&der).expect("a certificate");
        let http = reqwest::Client::builder().tls_certs_only([trusted]);
        (Self::shows(Some(files), http).await, der)
    }

    async fn shows(certificate: Option<CertificateFiles>, http: reqwest::ClientBuilder) -> Self {
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let folder = tempfile::tempdir().expect("a folder");
        let inventory = parse_csv("e.csv", ESTATE).expect("good");
        Store::open(folder.path()).and_then(|mut store| store.transaction(|db| store::import(db, &inventory))).expect("imported");
        let settings = Settings {
            data_dir: folder.path().to_owned(),
            enrolment: None,
            // Nobody listens there, and nobody has to.
            broker: BrokerChoice::External(Broker { host: "127.0.0.1".into(), port: 9, tls: None }),
            api: Api {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                certificate,
                token_file: None,
                time_zone: "UTC".into(),
                trusted_proxies: vec!["127.0.0.1".parse().expect("an address")],
            },
            victoria_metrics: None,
            shared_cache: None,
            silent_after_ms: 30_000,
            rollout: Rollout::default(),
        };
        let token = Token::chosen(TOKEN).expect("a token");
        let collector = Collector::bind(settings, Some(token), Notes::default()).await.expect("a free port");
        let (address, stop) = (collector.address().expect("an address"), CancellationToken::new());
        tokio::spawn(collector.run(stop.clone()));
        // Its certificate is for a name.
        let http = http.no_proxy().redirect(reqwest::redirect::Policy::none()).resolve("localhost", address).build();
        Self { address, folder, scheme, stop, http: http.expect("a client") }
    }

    /// A request without a word of who asks.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method: Method = method.parse().expect("a method");
        let host = if self.scheme == "https" { format!("localhost:{}", self.address.port()) } else { self.address.to_string() };
        self.http.request(method, format!("{}://{host}{path}", self.scheme))
    }

    /// A request by a token.
    pub(crate) fn by(&self, token: &str, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).bearer_auth(token)
    }

    /// What an admin's change answers: its status and its body.
    pub(crate) async fn change(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        said(self.by(TOKEN, method, path).json(body)).await
    }

    /// A token of a role and some regions.
    pub(crate) async fn token(&self, role: &str, regions: Value) -> String {
        let body = json!({ "name": role, "role": role, "regions": regions });
        let (status, made) = self.change("POST", "/api/v1/tokens", &body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().expect("a token").to_owned()
    }
}

/// The status and the body of an answer; what is no JSON is a text.
pub(crate) async fn said(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a text");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
