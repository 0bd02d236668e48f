//! Builds of the agent on their way to the boxes: which branch is offered what, and what the boxes say to it.

pub mod command;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::message::Ask;
use shared::update::{Offer, Running, Stage};
use shared::{BranchId, Millis, StreamId};
use tokio::sync::mpsc;

use crate::clock;
use crate::feed::Live;
use crate::ingest::Outgoing;
use crate::store::{self, Reach, Readers, Store, StoreError};

/// How often it is looked what is staged and what boxes have told.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A box that is not where it should be is asked again after so long, in ms.
const ASK_EVERY_MS: i64 = 60_000;
/// Most boxes that are asked in one look: what people ask comes first.
const ASKED_LIMIT: usize = 16;

/// What is known of one box, and what it should be. Pure.
#[derive(Debug, Default)]
struct Box {
    told: Option<(Running, Option<StreamId>)>,
    written: Option<Running>,
    /// What it was last offered, and when.
    asked: Option<(Millis, Vec<Offer>)>,
}

impl Box {
    /// What to offer it now, if anything. Nothing at all is offered where it should leave what it is about.
    fn due(&self, offers: &[Offer], is_meant: bool, stream: Option<StreamId>, now: Millis) -> Option<Vec<Offer>> {
        // Another run may be another box: it has to say it itself.
        let told = self.told.as_ref().filter(|(_, of)| *of == stream).map(|(running, _)| running);
        let wants = |running: &Running| {
            let fits = |offer: &&Offer| offer.is_for(&running.machine);
            offers.iter().filter(fits).max_by_key(|offer| (offer.machine == running.machine, offer.staged))
        };
        let wish = match (is_meant, told) {
            (true, None) => Some(offers.to_vec()),
            (true, Some(running)) => {
                let is_done = wants(running).is_none_or(|offer| match running.stage {
                    Stage::InForce => running.build == offer.build,
                    Stage::Refused { .. } => running.offered == Some(offer.build),
                    Stage::Fetching { .. } | Stage::Shadow | Stage::Waiting { .. } | Stage::Trial => false,
                });
                (!is_done).then(|| offers.to_vec())
            }
            (false, Some(Running { stage: Stage::Fetching { .. } | Stage::Shadow | Stage::Waiting { .. }, .. })) => {
                Some(Vec::new())
            }
            (false, _) => None,
        };
        wish.filter(|wish| match &self.asked {
            // To leave something is told as long as it is about it.
            Some((asked, before)) if before == wish && !wish.is_empty() => now.since(*asked) >= ASK_EVERY_MS || now < *asked,
            Some(_) | None => true,
        })
    }
}

/// Whether a branch's box is to have what is staged.
fn is_meant(reach: &Reach, metered: &BTreeSet<BranchId>, branch: &BranchId) -> bool {
    let by_all = if metered.contains(branch) { reach.metered } else { reach.everybody };
    by_all || reach.canaries.contains(branch.as_str())
}

/// What the rounds need.
pub struct Ends {
    /// What boxes have told.
    pub live: Arc<Live>,
    /// The collector's file.
    pub readers: Arc<Readers>,
    /// Where questions go.
    pub asks: mpsc::Sender<Outgoing>,
    /// Branches on lines where each kilobyte costs money.
    pub metered: BTreeSet<BranchId>,
    /// The folder of the collector's file.
    pub data_dir: PathBuf,
}

/// Offers builds and writes down what boxes say to it, for as long as the collector runs.
pub async fn run(ends: Ends) {
    let mut boxes: HashMap<BranchId, Box> = HashMap::new();
    let ends = Arc::new(ends);
    let mut said = false;
    loop {
        let (looked, at) = (Arc::clone(&ends), std::mem::take(&mut boxes));
        match tokio::task::spawn_blocking(move || look(&looked, at)).await {
            Ok((kept, Ok(()))) => (boxes, said) = (kept, false),
            Ok((kept, Err(error))) => {
                boxes = kept;
                if !said {
                    tracing::error!(%error, "updates can't be looked after");
                    said = true;
                }
            }
            Err(error) => tracing::error!(%error, "updates can't be looked after"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

type Looked = (HashMap<BranchId, Box>, Result<(), StoreError>);

fn look(ends: &Ends, mut boxes: HashMap<BranchId, Box>) -> Looked {
    let outcome = round(ends, &mut boxes);
    (boxes, outcome)
}

fn round(ends: &Ends, boxes: &mut HashMap<BranchId, Box>) -> Result<(), StoreError> {
    let now = clock::now();
    let (offers, reach) = ends.readers.read(|db| Ok((store::builds(db)?, store::reach(db)?)))?;
    let offers: Vec<Offer> = offers.into_iter().map(|(offer, _)| offer).collect();
    let branches: Vec<(BranchId, Option<StreamId>)> =
        ends.live.fleet().branches.iter().map(|branch| (branch.info.id.clone(), branch.stream())).collect();
    let mut news = Vec::new();
    let mut due = Vec::new();
    for (branch, stream) in branches {
        let known = boxes.entry(branch.clone()).or_default();
        if let Some((running, told, of)) = ends.live.boxes.of(&branch).running {
            if known.written.as_ref() != Some(&running) {
                news.push((branch.clone(), running.clone(), told));
            }
            known.told = Some((running, of));
        }
        if !offers.is_empty()
            && let Some(wish) = known.due(&offers, is_meant(&reach, &ends.metered, &branch), stream, now)
        {
            due.push((known.asked.as_ref().map(|(asked, _)| *asked), branch, wish));
        }
    }
    due.sort_by_key(|(asked, ..)| *asked);
    for (_, branch, offers) in due.into_iter().take(ASKED_LIMIT) {
        if ends.asks.try_send(Outgoing::Ask(branch.clone(), Ask::Update { offers: offers.clone() })).is_err() {
            break;
        }
        boxes.entry(branch).or_default().asked = Some((now, offers));
    }
    if news.is_empty() {
        return Ok(());
    }
    let mut store = Store::open(&ends.data_dir)?;
    store.transaction(|db| news.iter().try_for_each(|(branch, running, told)| store::put_program(db, branch, running, *told)))?;
    for (branch, running, _) in news {
        let (stage, why) = store::stage_words(&running.stage);
        tracing::info!(%branch, build = shared::update::short(&running.build), stage, why, "a box says what it runs");
        boxes.entry(branch).or_default().written = Some(running);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(machine: &str, n: u8) -> Offer {
        Offer { machine: machine.into(), build: [n; 32], size: 1, staged: Millis(i64::from(n)), signature: vec![] }
    }

    fn told(build: u8, offered: Option<u8>, stage: Stage) -> Box {
        let running = Running {
            machine: "arm".into(),
            build: [build; 32],
            version: "0.1.0".into(),
            offered: offered.map(|n| [n; 32]),
            stage,
        };
        Box { told: Some((running, Some(StreamId(1)))), written: None, asked: None }
    }

    const NOW: Millis = Millis(1_795_442_400_000);

    #[test]
    fn a_box_is_asked_until_it_runs_or_refuses_what_it_should() {
        let offers = [offer("arm", 2), offer("aarch64", 3)];
        let is_asked = |known: &Box| known.due(&offers, true, Some(StreamId(1)), NOW).is_some();
        assert!(is_asked(&Box::default()), "nobody knows what it runs");
        assert!(is_asked(&told(1, Some(2), Stage::InForce)));
        assert!(is_asked(&told(1, Some(2), Stage::Shadow)), "it may be gone since");
        assert!(!is_asked(&told(2, Some(2), Stage::InForce)));
        assert!(!is_asked(&told(1, Some(2), Stage::Refused { why: String::new() })));
        assert!(is_asked(&told(1, Some(1), Stage::Refused { why: String::new() })), "it was another");
        let done = told(2, Some(2), Stage::InForce);
        assert!(done.due(&offers, true, Some(StreamId(2)), NOW).is_some(), "another run may be another box");
        assert!(done.due(&[offer("aarch64", 3)], true, Some(StreamId(1)), NOW).is_none(), "nothing is for its machine");
        let asked = |ago_ms: i64, offers: &[Offer]| {
            let asked = Some((NOW.plus(-ago_ms), offers.to_vec()));
            is_asked(&Box { asked, ..told(1, None, Stage::InForce) })
        };
        assert!(!asked(30_000, &offers));
        assert!(asked(60_000, &offers));
        assert!(asked(1, &offers[1..]), "something else is staged now");
    }

    #[test]
    fn what_is_halted_is_left() {
        let offers = [offer("arm", 2)];
        let wish = |known: &Box| known.due(&offers, false, Some(StreamId(1)), NOW);
        assert_eq!(wish(&told(1, Some(2), Stage::Fetching { have: 1 })), Some(Vec::new()));
        assert_eq!(wish(&told(1, Some(2), Stage::Waiting { why: String::new() })), Some(Vec::new()));
        assert_eq!(wish(&told(1, Some(2), Stage::Trial)), None, "it has a guardian");
        assert_eq!(wish(&told(2, Some(2), Stage::InForce)), None);
        assert_eq!(wish(&Box::default()), None);
    }

    #[test]
    fn a_metered_line_is_spared_unless_somebody_says_so() {
        let id = |id: &str| id.parse::<BranchId>().expect("a valid id");
        let metered = [id("mestia")].into();
        let meant = |reach: &Reach| [is_meant(reach, &metered, &id("mestia")), is_meant(reach, &metered, &id("vake"))];
        assert_eq!(meant(&Reach::default()), [false, false]);
        assert_eq!(meant(&Reach { everybody: true, ..Reach::default() }), [false, true]);
        assert_eq!(meant(&Reach { everybody: true, metered: true, ..Reach::default() }), [true, true]);
        assert_eq!(meant(&Reach { canaries: ["mestia".to_owned()].into(), ..Reach::default() }), [true, false]);
    }
}
