//! Which box stands at a device's address.
//!
//! Pure: it is told what the kernel has found there and who has answered when everybody was asked, and says what is new.

use shared::{Mac, Uptime};

/// How long answers are waited for after everybody was asked, in ms.
const ANSWERS_MS: u64 = 500;
/// Most boxes at one address that are told apart.
const BOXES_LIMIT: usize = 4;
/// Least time between two words of one device's box, in ms.
const EVERY_MS: u64 = 60_000;
/// A box that answers again after another did within this time, or beside it, contests the address, in ms.
const CONTESTED_MS: u64 = 300_000;

/// What is new of a device's box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// The box.
    pub mac: Mac,
    /// The one before, if there was another.
    pub before: Option<Mac>,
    /// Two answer, by turns or together.
    pub is_contested: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    mac: Option<Mac>,
    /// The box before, and its end.
    before: Option<(Mac, Uptime)>,
    /// When everybody was asked who stands there, and who has answered.
    asked: Option<(Uptime, Vec<Mac>)>,
    /// When two boxes last answered together.
    contested_at: Option<Uptime>,
}

impl Identity {
    /// The box that is known.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// Whether everybody was asked, and may still answer.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Everybody is asked.
    pub fn ask(&mut self, now: Uptime) {
        self.asked = Some((now, Vec::new()));
    }

    /// A box has answered that.
    pub fn answered(&mut self, mac: Mac) {
        if let Some((_, boxes)) = &mut self.asked
            && boxes.len() < BOXES_LIMIT
            && !boxes.contains(&mac)
        {
            boxes.push(mac);
        }
    }

    /// What the answers tell, once all have had the time to come.
    pub fn conclude(&mut self, now: Uptime) -> Option<News> {
        let (_, boxes) = self.asked.take_if(|(asked, _)| now.since(*asked) >= ANSWERS_MS)?;
        let [first, .., last] = boxes.as_slice() else { return self.found(*boxes.first()?, now) };
        // Told once for as long as it lasts.
        let lasts = self.contested_at.replace(now).is_some_and(|at| now.since(at) < CONTESTED_MS);
        let mac = if self.mac == Some(*last) { *first } else { *last };
        (!lasts).then_some(News { mac, before: self.mac, is_contested: true })
    }

    /// A box was found there.
    pub fn found(&mut self, mac: Mac, now: Uptime) -> Option<News> {
        let is_early = self.before.is_some_and(|(_, until)| now.since(until) < EVERY_MS);
        let is_told = self.contested_at.is_some_and(|at| now.since(at) < CONTESTED_MS);
        if self.mac == Some(mac) || is_early || is_told {
            return None;
        }
        let is_contested = self.before.is_some_and(|(before, until)| before == mac && now.since(until) < CONTESTED_MS);
        let before = self.mac.replace(mac);
        self.before = before.map(|before| (before, now)).or(self.before);
        Some(News { mac, before, is_contested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn at(seconds: u64) -> Uptime {
        Uptime(seconds * 1_000)
    }

    fn news(mac: Mac, before: Option<Mac>, is_contested: bool) -> Option<News> {
        Some(News { mac, before, is_contested })
    }

    #[test]
    fn another_box_is_news_and_one_that_comes_back_contests_the_address() {
        let mut identity = Identity::default();
        assert_eq!(identity.found(A, at(10)), news(A, None, false));
        assert_eq!(identity.found(A, at(20)), None);
        assert_eq!(identity.found(B, at(30)), news(B, Some(A), false));
        // Two that alternate are not told of all the time.
        assert_eq!(identity.found(A, at(40)), None);
        assert_eq!(identity.found(A, at(100)), news(A, Some(B), true));
        assert_eq!(identity.found(B, at(1_000)), news(B, Some(A), false));
    }

    #[test]
    fn two_that_answer_together_contest_the_address_and_are_told_of_once_while_that_lasts() {
        let mut identity = Identity::default();
        identity.found(A, at(0));
        let mut ask = |seconds: u64, answers: &[Mac]| {
            identity.ask(at(seconds));
            answers.iter().for_each(|mac| identity.answered(*mac));
            assert_eq!(identity.conclude(at(seconds)), None, "others may still answer");
            identity.conclude(at(seconds + 1))
        };
        assert_eq!(ask(10, &[A, A]), None);
        assert_eq!(ask(70, &[]), None);
        assert_eq!(ask(130, &[B, A]), news(B, Some(A), true));
        assert_eq!(ask(190, &[A, B]), None);
        // What the kernel makes of two is no news meanwhile.
        assert_eq!(identity.found(B, at(200)), None);
        assert_eq!(identity.found(B, at(600)), news(B, Some(A), false));
    }

    #[test]
    fn a_box_that_alone_answers_in_anothers_place_is_the_one() {
        let mut identity = Identity::default();
        identity.found(A, at(0));
        identity.ask(at(5));
        identity.answered(B);
        assert_eq!(identity.conclude(at(6)), news(B, Some(A), false));
        assert!(!identity.is_asked());
    }
}
