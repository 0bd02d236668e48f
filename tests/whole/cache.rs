//! Collectors that share a cache, whatever happens to it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shared::Millis;
use ward_collector::settings::SharedCache;
use ward_collector::valkey;
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::program::Probe;
use ward_tests::{Collector, Estate, Net, Pki, Valkey, Victoria, eventually, now_ms};

use crate::world::SOON;

const PASSWORD: &str = "correct-horse";

/// A collector that shares what it is answered in a cache that takes this password.
async fn collector(net: &Net, victoria: &Victoria, cache: &str, password: &Path) -> Collector {
    Collector::start(CollectorSettings {
        broker: Broker::Embedded,
        victoria_metrics: vec![victoria.url()],
        probe: Probe::BRISK,
        silent_after: Duration::from_secs(30),
        report: None,
        estate: Estate::of(net),
        data_dir: None,
        tables: format!("[shared_cache]\n{cache}password_file = \"{}\"\n", password.display()),
    })
    .await
}

async fn is_well(collector: &Collector, is_well: bool, reason: &str) {
    eventually(SOON, "its health tells how the cache is", async || {
        let health = collector.api.json("/health").await?;
        let cache = &health["shared_cache"];
        ensure!(cache["reachable"] == is_well && cache["reason"].to_string().contains(reason), "{health}");
        ensure!((health["status"] == "ok") == is_well, "{health}");
        Ok(())
    })
    .await;
}

async fn answers(collector: &Collector, query: &str) -> Result<String> {
    collector.api.text(&format!("/api/v1/query_range?query={query}&start=1790000000&end=1790003600&step=300")).await
}

#[test]
fn collectors_share_what_they_are_answered_and_a_cache_that_is_gone_is_said_and_costs_nothing() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let (pki, victoria) = (Pki::new(), Victoria::start().await);
        let identity = pki.server(&[Ipv4Addr::LOCALHOST.into()]);
        let mut cache = Valkey::start(identity.clone(), PASSWORD).await;
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("the folder is the test's own");
            folder.path().join(name)
        };
        let (right, wrong) = (file("right", &format!("{PASSWORD}\n")), file("wrong", "horse\n"));
        let lines = format!("url = \"{}\"\nca = \"{}\"\n", cache.url(), identity.ca.display());
        let first = collector(&net, &victoria, &lines, &right).await;
        let second = collector(&net, &victoria, &lines, &right).await;
        is_well(&first, true, "null").await;
        is_well(&second, true, "null").await;
        let told = answers(&first, "vector(1)").await.expect("an answer");
        assert_eq!(answers(&second, "vector(1)").await.expect("an answer"), told);
        let hits = async |collector: &Collector| {
            collector.api.counter("cache_hits_total{cache=\"shared\"}").await.expect("the collector answers")
        };
        assert_eq!((hits(&first).await, hits(&second).await), (0.0, 1.0));
        let asked = second.api.counter("vm_query_duration_seconds_count").await.expect("the collector answers");
        assert_eq!(asked, 0.0, "the second has not asked VictoriaMetrics");

        let stranger = collector(&net, &victoria, &lines, &wrong).await;
        is_well(&stranger, false, "authentication failed").await;
        answers(&stranger, "vector(2)").await.expect("it is answered all the same");
        let tried = stranger.api.counter("cache_requests_total{cache=\"shared\"}").await.expect("the collector answers");
        assert_eq!(tried, 0.0, "no question goes where nobody answers");

        cache.kill();
        is_well(&first, false, "").await;
        answers(&first, "vector(3)").await.expect("it is answered all the same");
        cache.start_again().await;
        is_well(&first, true, "null").await;
        answers(&first, "vector(4)").await.expect("an answer");
        is_well(&second, true, "null").await;
        answers(&second, "vector(4)").await.expect("an answer");
        assert_eq!(hits(&second).await, 2.0);
    });
}

#[test]
fn late_data_that_one_collector_takes_voids_what_another_has_kept() {
    let net = Net::new(0, 0);
    net.at_the_centre(async || {
        let pki = Pki::new();
        let identity = pki.server(&[Ipv4Addr::LOCALHOST.into()]);
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let password_file = folder.path().join("password");
        fs::write(&password_file, PASSWORD).expect("the folder is the test's own");
        let server = Valkey::start(identity.clone(), PASSWORD).await;
        let settings = SharedCache {
            url: server.url(),
            password_file: Some(password_file),
            ca: Some(identity.ca.clone()),
            prefix: "w".to_owned(),
        };
        let connected = async |servers: &str| {
            let cache = Arc::new(valkey::Valkey::new(&settings, servers, Arc::default()));
            tokio::spawn(Arc::clone(&cache).run(settings.clone()));
            eventually(SOON, "it is connected", async || cache.trouble().map_or(Ok(()), |why| bail!("{why}"))).await;
            cache
        };
        let (one, other, stranger) = (connected("http://a").await, connected("http://a").await, connected("http://b").await);
        let (minute, made) = (Duration::from_secs(60), Millis(now_ms() + 1));
        for (question, device) in [("of d", Some("d")), ("of e", Some("e")), ("of all", None)] {
            one.keep(question, question.as_bytes(), made, minute).await;
            let found = other.find(question, device).await.expect("it is kept");
            assert_eq!(found.body, question.as_bytes());
            assert_eq!(stranger.find(question, device).await, None, "another server's answers are others");
        }
        one.mark_late(&[None, Some("d")], made).await;
        assert_eq!(other.find("of d", Some("d")).await, None);
        assert_eq!(other.find("of all", None).await, None);
        assert!(other.find("of e", Some("e")).await.is_some());
        other.keep("of d", b"new", made.plus(1), minute).await;
        assert_eq!(one.find("of d", Some("d")).await.expect("it is newer").body, "new");
        other.keep("of d", b"ahead", Millis(now_ms() + 3_600_000), minute).await;
        assert_eq!(one.find("of d", Some("d")).await, None, "by a clock that is ahead");
    });
}
