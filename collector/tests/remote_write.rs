//! From the outbox to servers that take samples, refuse them, or aren't there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use ward_collector::inbox::{Inbox, inbox};
use ward_collector::metrics::Metrics;
use ward_collector::remote_write;
use ward_collector::settings::Endpoint;
use ward_collector::store::{Outbox, Queue, Readers, Store};
use ward_collector::victoria::Victoria;

const SOON: Duration = Duration::from_secs(20);

/// A server that answers as a script says, and then well; and what it was sent.
async fn server(script: &[u16]) -> (Endpoint, Arc<Mutex<Vec<Bytes>>>) {
    let taken: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (script, writes) = (Arc::new(Mutex::new(VecDeque::from(script.to_vec()))), Arc::clone(&taken));
    let answer = move |body: Bytes| async move {
        let status = script.lock().expect("nobody panics").pop_front().unwrap_or(204);
        writes.lock().expect("nobody panics").push(body);
        StatusCode::from_u16(status).expect("a status")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/api/v1/write", post(answer))).await });
    (url.parse().expect("a URL"), taken)
}

/// Writers to some servers, with requests that wait for them.
struct Desk {
    metrics: Arc<Metrics>,
    victoria: Arc<Victoria>,
    _inbox: Inbox,
    _folder: tempfile::TempDir,
}

impl Desk {
    fn open(servers: &[Endpoint], bodies: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = Queue { readers: servers.iter().map(|server| server.name().to_owned()).collect(), limit_bytes: 1 << 20 };
        let push = |db: &_| {
            let mut outbox = Outbox::open(db, queue)?;
            bodies.iter().try_for_each(|body| outbox.push(db, 10, body.as_bytes()))
        };
        let mut store = Store::open(folder.path()).expect("a new file");
        store.transaction(|db| push(db)).expect("written");
        let metrics = Arc::<Metrics>::default();
        let victoria = Arc::new(Victoria::new(servers, None, Arc::clone(&metrics)));
        let (sender, inbox) = inbox(Arc::clone(&metrics));
        let readers = Arc::new(Readers::new(folder.path()));
        for index in 0..servers.len() {
            let (victoria, readers) = (Arc::clone(&victoria), Arc::clone(&readers));
            tokio::spawn(remote_write::run(victoria, index, readers, sender.clone(), Arc::clone(&metrics)));
        }
        Self { metrics, victoria, _inbox: inbox, _folder: folder }
    }

    async fn counts(&self, server: usize, metric: &'static str, wanted: f64) {
        let label = self.victoria.endpoints()[server].label();
        let is = async {
            while self.metrics.value(metric, label) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(SOON, is).await;
        assert!(found.is_ok(), "{metric} of {label} is {} and not {wanted}", self.metrics.value(metric, label));
    }
}

#[tokio::test]
async fn what_a_server_refuses_for_good_is_counted_and_what_follows_is_not_held_back() {
    let (at, taken) = server(&[400]).await;
    let desk = Desk::open(&[at], &["first", "second"]);
    desk.counts(0, "ward_remote_write_samples_total", 10.0).await;
    desk.counts(0, "ward_remote_write_rejected_total", 10.0).await;
    assert_eq!(*taken.lock().expect("nobody panics"), ["first", "second"]);
    desk.counts(0, "ward_remote_write_errors_total", 0.0).await;
}

#[tokio::test]
async fn what_a_server_can_not_take_now_is_sent_again() {
    let (at, taken) = server(&[204, 503]).await;
    let desk = Desk::open(&[at], &["first", "second"]);
    desk.counts(0, "ward_remote_write_errors_total", 1.0).await;
    // With what was taken shortly before: it may be lost.
    desk.counts(0, "ward_remote_write_samples_total", 30.0).await;
    desk.counts(0, "ward_remote_write_failing", 0.0).await;
    assert_eq!(*taken.lock().expect("nobody panics"), ["first", "second", "first", "second"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_says_so_and_the_other_gets_everything() {
    let (at, taken) = server(&[]).await;
    let dead: Endpoint = "http://127.0.0.1:1".parse().expect("a URL");
    let desk = Desk::open(&[dead, at], &["first", "second", "third"]);
    desk.counts(1, "ward_remote_write_samples_total", 30.0).await;
    desk.counts(0, "ward_remote_write_failing", 1.0).await;
    desk.counts(1, "ward_remote_write_failing", 0.0).await;
    assert_eq!(*taken.lock().expect("nobody panics"), ["first", "second", "third"]);
    desk.counts(0, "ward_remote_write_samples_total", 0.0).await;
}
