//! Answers of agents on their way to whoever waits for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::BranchId;
use shared::message::Answer;
use tokio::sync::oneshot;

/// Most questions that wait for their answers at a time.
const WAITING_LIMIT: usize = 256;

/// Questions that wait for their answers.
#[derive(Debug, Default)]
pub struct Replies {
    waiting: Mutex<HashMap<u64, (BranchId, oneshot::Sender<Answer>)>>,
}

/// A question's place among those that wait; it is given up with this.
#[derive(Debug)]
pub struct Place<'a> {
    replies: &'a Replies,
    /// Names the question.
    pub id: u64,
    /// Where the answer comes.
    pub answer: oneshot::Receiver<Answer>,
}

impl Replies {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (BranchId, oneshot::Sender<Answer>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for the answer of a branch; none where too many wait.
    pub fn wait(&self, branch: BranchId) -> Option<Place<'_>> {
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_LIMIT {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        // Nobody guesses it: a branch can't answer what another was asked.
        let id = loop {
            let id: u64 = rand::random();
            if !waiting.contains_key(&id) {
                break id;
            }
        };
        waiting.insert(id, (branch, sender));
        Some(Place { replies: self, id, answer })
    }

    /// Hands over an answer, if somebody waits for it who asked that branch.
    pub fn take(&self, branch: BranchId, answer: Answer) {
        let id = match &answer {
            // Nobody waits for these.
            Answer::Watched(_) | Answer::Running(_) | Answer::Tried(_) => return,
            Answer::Probed { id, .. } | Answer::Route { id, .. } | Answer::Discovered { id, .. } | Answer::Refused { id, .. } => {
                *id
            }
        };
        let mut waiting = self.lock();
        if waiting.get(&id).is_some_and(|(asked, _)| *asked == branch)
            && let Some((_, sender)) = waiting.remove(&id)
        {
            // Whoever waited may have gone.
            let _ = sender.send(answer);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use shared::message::Refused;

    use super::*;

    #[test]
    fn an_answer_reaches_whoever_asked_that_branch_and_nobody_else() {
        let replies = Replies::default();
        let branch = |name: &str| name.parse::<BranchId>().expect("an id");
        let mut place = replies.wait(branch("vake")).expect("room");
        let refused = Answer::Refused { id: place.id, why: Refused::Busy };
        replies.take(branch("gldani"), refused.clone());
        assert!(place.answer.try_recv().is_err());
        replies.take(branch("vake"), refused.clone());
        assert_eq!(place.answer.try_recv(), Ok(refused));
    }

    #[test]
    fn there_is_a_limit_and_whoever_goes_makes_room() {
        let replies = Replies::default();
        let all: Vec<Place<'_>> = (0..WAITING_LIMIT).filter_map(|_| replies.wait("vake".parse().expect("an id"))).collect();
        assert!(all.len() == WAITING_LIMIT && replies.wait("vake".parse().expect("an id")).is_none());
        drop(all);
        assert!(replies.wait("vake".parse().expect("an id")).is_some());
    }
}
