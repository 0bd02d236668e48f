//! The broker's word that it hears this agent, asked for beside everything else.
//!
//! When devices fall silent together it decides whose fault that is, and just then the link waits: changes are written to the
//! card before they are sent. So neither the card nor what is to be sent stands before this question. It is a subscription
//! that is there already: the broker confirms it at once, and nobody else hears of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rumqttc::{AsyncClient, QoS};
use shared::Uptime;
use tokio::sync::watch;

use crate::clock;

/// Most questions that wait for an answer on one connection.
const OPEN_LIMIT: usize = 10;

/// When each subscription was sent that the broker hasn't confirmed yet; nothing for those that ask for topics.
#[derive(Debug, Clone, Default)]
pub struct Questions(Arc<Mutex<VecDeque<Option<Uptime>>>>);

impl Questions {
    /// Those of a connection that has asked for so many topics.
    pub fn after(topics: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![None; topics].into())))
    }

    /// Asks by subscribing to `topic` again, whenever somebody wants to know.
    pub async fn ask(self, client: AsyncClient, topic: String, mut wanted: watch::Receiver<Uptime>) {
        while wanted.changed().await.is_ok() {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Where so many are open, or nothing more can be sent, the line says enough.
            if open.len() < OPEN_LIMIT && client.try_subscribe(&topic, QoS::AtMostOnce).is_ok() {
                open.push_back(Some(clock::uptime()));
            }
        }
    }

    /// The broker has confirmed the oldest one: when it was asked, if it was a question.
    pub fn answered(&self) -> Option<Uptime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten()
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::MqttOptions;

    use super::*;

    #[tokio::test]
    async fn what_the_broker_confirms_first_are_the_topics_and_then_each_question() {
        let (client, _events) = AsyncClient::new(MqttOptions::new("a", "127.0.0.1", 1), 20);
        let (want, wanted) = watch::channel(Uptime(0));
        let questions = Questions::after(2);
        let asking = tokio::spawn(questions.clone().ask(client, "a".to_owned(), wanted));
        let before = clock::uptime();
        for _ in 0..OPEN_LIMIT {
            want.send_replace(clock::uptime());
            tokio::task::yield_now().await;
        }
        let answers: Vec<_> = (0..OPEN_LIMIT + 1).map(|_| questions.answered()).collect();
        assert_eq!(answers[..2], [None, None], "the topics");
        assert!(answers[2..OPEN_LIMIT].iter().all(|asked| asked.is_some_and(|asked| asked >= before)), "{answers:?}");
        assert_eq!(answers[OPEN_LIMIT], None, "no more than the limit were open");
        asking.abort();
    }
}
