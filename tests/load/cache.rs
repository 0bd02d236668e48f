//! How many of the reads of open dashboards are answered from what is at hand.

use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use tokio::task::JoinSet;
use ward_tests::Figure;

use crate::asker::Asker;
use crate::world::World;

const DASHBOARDS: usize = 50;
/// How often each asks.
const EVERY: Duration = Duration::from_secs(5);
const LASTS: Duration = Duration::from_secs(40);
/// What a dashboard asks for.
const QUESTIONS: [&str; 3] = ["/api/v1/dashboard/stats", "/api/v1/devices?limit=10000", "/api/v1/branches"];
/// A device changes so often: more than in the bank, where a third of the fleet is steadily down.
const CHANGE_EVERY: Duration = Duration::from_secs(2);
const GOAL: f64 = 95.0;

pub(crate) async fn measure(world: &World) -> Result<Figure> {
    eprintln!("{DASHBOARDS} dashboards ask every {EVERY:?} for {LASTS:?}");
    let counters = async || -> Result<(f64, f64)> {
        let of = async |name: &str| world.api.counter(&format!("{name}{{cache=\"answers\"}}")).await;
        Ok((of("cache_hits_total").await?, of("cache_requests_total").await?))
    };
    let before = counters().await?;
    let mut dashboards = JoinSet::new();
    for _ in 0..DASHBOARDS {
        let host = world.api.address().to_owned();
        let begins = EVERY.mul_f64(rand::rng().random());
        dashboards.spawn(async move {
            tokio::time::sleep(begins).await;
            let mut asker = Asker::connect(&host).await?;
            for _ in 0..LASTS.as_secs() / EVERY.as_secs() {
                for question in QUESTIONS {
                    asker.get(question).await?;
                }
                tokio::time::sleep(EVERY).await;
            }
            anyhow::Ok(())
        });
    }
    let all = async {
        while let Some(one) = dashboards.join_next().await {
            one??;
        }
        anyhow::Ok(())
    };
    let changes = async {
        loop {
            tokio::time::sleep(CHANGE_EVERY).await;
            if let Err(error) = world.turn().await {
                return error;
            }
        }
    };
    tokio::select! {
        asked = all => asked?,
        error = changes => return Err(error),
    }
    let after = counters().await?;
    let ratio = 100.0 * (after.0 - before.0) / (after.1 - before.1);
    Ok(Figure::high(format!("cache_hits_{}", world.devices), ratio, "%", Some(GOAL)))
}
