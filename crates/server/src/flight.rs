//! Work under way that others wait for: the first to ask leads, the rest wait for the same outcome.

use std::collections::HashMap;
use std::sync::Arc;

use entrepot_core::failure::{Failure, Reason};
use entrepot_engine::Landed;
use entrepot_engine::ports::{Flight, Joined, Lead, Wait};
use parking_lot::Mutex;
use tokio::sync::watch;

type Outcome = Option<Result<Landed, Failure>>;
type UnderWay = Arc<Mutex<HashMap<String, watch::Receiver<Outcome>>>>;

#[derive(Debug, Default)]
pub(crate) struct Flights(UnderWay);

/// See [`Lead`]. Dropped without landing (a panic), it tells the waiting so, and the next to ask leads anew.
#[derive(Debug)]
pub(crate) struct Leading {
    key: String,
    under_way: UnderWay,
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug)]
pub(crate) struct Waiting(watch::Receiver<Outcome>);

impl Flight for Flights {
    type Lead = Leading;
    type Wait = Waiting;

    fn join(&self, key: &str) -> Joined<Leading, Waiting> {
        let mut under_way = self.0.lock();
        if let Some(outcome) = under_way.get(key) {
            return Joined::Wait(Waiting(outcome.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.to_owned(), receiver.clone());
        Joined::Lead(
            Leading { key: key.to_owned(), under_way: self.0.clone(), outcome: sender },
            Waiting(receiver),
        )
    }
}

impl Lead for Leading {
    fn land(self, landed: Result<Landed, Failure>) {
        // Off the list first: who comes now starts anew and cannot see an outcome from before its own request.
        self.under_way.lock().remove(&self.key);
        self.outcome.send_replace(Some(landed));
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        if under_way.get(&self.key).is_some_and(|other| other.same_channel(&self.outcome.subscribe())) {
            under_way.remove(&self.key);
        }
    }
}

impl Wait for Waiting {
    async fn landed(mut self) -> Result<Landed, Failure> {
        let lost = || Failure::new(Reason::Internal, "the mirror failed while it asked upstream; try again");
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(lost())),
            Err(_) => Err(lost()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Result<Landed, Failure> {
        Err(Failure::new(Reason::BlobUnknown, "nothing there"))
    }

    fn lead(flights: &Flights) -> (Leading, Waiting) {
        match flights.join("key") {
            Joined::Lead(lead, wait) => (lead, wait),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn all_who_wait_hear_the_outcome_and_the_next_leads_anew() {
        let flights = Flights::default();
        let (leading, first) = lead(&flights);
        let Joined::Wait(second) = flights.join("key") else { panic!("two lead") };
        assert!(matches!(flights.join("another"), Joined::Lead(..)));
        leading.land(failed());
        for wait in [first, second] {
            assert_eq!(wait.landed().await.unwrap_err().reason, Reason::BlobUnknown);
        }
        let _ = lead(&flights);
    }

    /// T-CS6: a leader that panics tells who waits, and the next leads anew; a late end of the old one changes nothing.
    #[tokio::test]
    async fn t_cs6_a_leader_that_panics() {
        let flights = Flights::default();
        let (leading, wait) = lead(&flights);
        let panicked = tokio::spawn(async move {
            let _leading = leading;
            panic!("on purpose");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(wait.landed().await.unwrap_err().reason, Reason::Internal);
        let (leading, _wait) = lead(&flights);
        assert!(matches!(flights.join("key"), Joined::Wait(_)));
        drop(leading);
        let _ = lead(&flights);
    }
}
