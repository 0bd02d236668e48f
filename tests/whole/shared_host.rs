//! Two agents on one host that ask the same devices: each takes its own replies and no other's.

use std::time::Duration;

use anyhow::{Context, ensure};
use ward_tests::agent::AgentSettings;
use ward_tests::collector::CollectorSettings;
use ward_tests::estate::{branch_id, device_id};
use ward_tests::{Estate, Net, eventually, lasting};

use crate::world::{Fault, SOON, World};

const SILENT_AFTER: Duration = Duration::from_secs(60);
const DEVICES: u8 = 5;

/// Silences a device and restores it: both agents say so, each by what it asked itself.
async fn both_see_an_outage(world: &World<'_>, net: &Net, device: u8) {
    let began = net.silence(1, device);
    for branch in [1, 2] {
        world.becomes(&device_id(branch, device), "down").await;
    }
    let ended = net.restore(1, device);
    for branch in [1, 2] {
        world.becomes(&device_id(branch, device), "up").await;
        world.has_one_outage(&device_id(branch, device), &Fault { began, ended }).await;
    }
}

fn two_agents_keep_apart(net: &Net) {
    net.at_the_centre(async || {
        let mut estate = Estate::of(net);
        let first = |i: usize| net.address(1, u8::try_from(i).expect("a branch has few devices")).into();
        estate.rows.iter_mut().enumerate().for_each(|(i, row)| row.ip = first(i % usize::from(DEVICES)));
        let one_host = |agent: &mut AgentSettings| agent.namespace = Some(net.branch(1));
        let one_place = |collector: &mut CollectorSettings| collector.estate = estate;
        let mut world = World::start_with(net, SILENT_AFTER, one_place, one_host).await;
        both_see_an_outage(&world, net, 0).await;
        // What isn't the one's own is no reply that came too late either.
        lasting(Duration::from_secs(2)).await;
        for branch in [1, 2] {
            eventually(SOON, "both say how they are", async || {
                let told = world.api().json(&format!("/api/v1/branches/b{branch}")).await?;
                let strays = told["stray_replies"].as_u64().context("an agent says how it is")?;
                ensure!(strays == 0, "{}: {strays} strays", branch_id(u8::try_from(branch)?));
                Ok(())
            })
            .await;
        }
        // The one that stays has lost nothing with the other.
        world.agents[1].process().kill_hard();
        let began = net.silence(1, 1);
        world.becomes(&device_id(1, 1), "down").await;
        let ended = net.restore(1, 1);
        world.becomes(&device_id(1, 1), "up").await;
        world.has_one_outage(&device_id(1, 1), &Fault { began, ended }).await;
        for device in 2..DEVICES {
            assert_eq!(world.api().outages(&device_id(1, device)).await.expect("the API answers"), [], "device {device}");
        }
    });
}

#[test]
fn two_agents_on_one_host_take_their_own_replies() {
    two_agents_keep_apart(&Net::new(2, DEVICES));
}

#[test]
fn two_agents_with_raw_sockets_on_one_host_take_their_own_replies() {
    let net = Net::new(2, DEVICES);
    // On such sockets every program sees every reply.
    net.raw_sockets_only(1);
    two_agents_keep_apart(&net);
}
