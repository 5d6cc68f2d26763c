//! Work that is waited for. Requests of one isolate cannot wait for one another, so each has a list of its own with nobody
//! else on it; those of one Durable Object can, and share its list.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use entrepot_core::failure::{Failure, Reason};
use entrepot_engine::Landed;
use entrepot_engine::ports::{Flight, Joined, Lead, Wait};
use futures_channel::oneshot;

type Outcome = Result<Landed, Failure>;
type UnderWay = Rc<RefCell<HashMap<String, Vec<oneshot::Sender<Outcome>>>>>;

#[derive(Debug, Default)]
pub(crate) struct Flights(UnderWay);

/// See [`Lead`].
#[derive(Debug)]
pub(crate) struct Leading {
    key: String,
    under_way: UnderWay,
}

#[derive(Debug)]
pub(crate) struct Waiting(oneshot::Receiver<Outcome>);

impl Flight for Flights {
    type Lead = Leading;
    type Wait = Waiting;

    fn join(&self, key: &str) -> Joined<Leading, Waiting> {
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting(receiver);
        let mut under_way = self.0.borrow_mut();
        match under_way.get_mut(key) {
            Some(others) => {
                others.push(sender);
                Joined::Wait(waiting)
            }
            None => {
                under_way.insert(key.to_owned(), vec![sender]);
                Joined::Lead(Leading { key: key.to_owned(), under_way: self.0.clone() }, waiting)
            }
        }
    }
}

impl Lead for Leading {
    fn land(self, landed: Outcome) {
        let waiting = self.under_way.borrow_mut().remove(&self.key).unwrap_or_default();
        for sender in waiting {
            // Who has left needs no answer.
            let _ = sender.send(landed.clone());
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        // Not landed: those who wait are told by their senders' end.
        self.under_way.borrow_mut().remove(&self.key);
    }
}

impl Wait for Waiting {
    async fn landed(self) -> Outcome {
        self.0.await.unwrap_or_else(|_| {
            Err(Failure::new(Reason::Internal, "the mirror failed while it asked upstream; try again"))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn lead(flights: &Flights) -> (Leading, Waiting) {
        match flights.join("key") {
            Joined::Lead(lead, wait) => (lead, wait),
            Joined::Wait(_) => panic!("nobody leads"),
        }
    }

    #[test]
    fn who_joins_gets_what_the_first_brought() {
        let flights = Flights::default();
        let (leading, first) = lead(&flights);
        let Joined::Wait(second) = flights.join("key") else { panic!("one leads already") };
        assert!(matches!(flights.join("other"), Joined::Lead(..)));
        leading.land(Ok(Landed::Public));
        for waiting in [first, second] {
            assert!(matches!(waiting.landed().now_or_never(), Some(Ok(Landed::Public))));
        }
        lead(&flights);
    }

    /// T-CC2: a leader that is lost leaves nobody waiting, and the next one leads.
    #[test]
    fn t_cc2_a_lost_leader() {
        let flights = Flights::default();
        let (leading, waiting) = lead(&flights);
        drop(leading);
        assert!(
            matches!(waiting.landed().now_or_never(), Some(Err(failure)) if failure.reason == Reason::Internal)
        );
        lead(&flights);
    }
}
