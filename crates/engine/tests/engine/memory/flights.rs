//! Flights in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use entrepot_core::failure::{Failure, Reason};
use entrepot_engine::Landed;
use entrepot_engine::ports::{Flight, Joined, Lead, Wait};

use super::clock::Signal;

/// See the module. `alone`: as in a Worker, nobody can wait for another's flight.
#[derive(Default)]
pub(crate) struct Flights {
    pub(crate) alone: Cell<bool>,
    under_way: Rc<RefCell<BTreeMap<String, Rc<Outcome>>>>,
}

#[derive(Default)]
struct Outcome {
    landed: RefCell<Option<Result<Landed, Failure>>>,
    signal: Signal,
}

pub(crate) struct Leading {
    key: String,
    under_way: Rc<RefCell<BTreeMap<String, Rc<Outcome>>>>,
    outcome: Rc<Outcome>,
}

pub(crate) struct Waiting(Rc<Outcome>);

impl Flight for Flights {
    type Lead = Leading;
    type Wait = Waiting;

    fn join(&self, key: &str) -> Joined<Leading, Waiting> {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(outcome) = under_way.get(key).filter(|_| !self.alone.get()) {
            return Joined::Wait(Waiting(outcome.clone()));
        }
        let outcome = Rc::<Outcome>::default();
        under_way.insert(key.to_owned(), outcome.clone());
        let lead =
            Leading { key: key.to_owned(), under_way: self.under_way.clone(), outcome: outcome.clone() };
        Joined::Lead(lead, Waiting(outcome))
    }
}

impl Leading {
    fn end(&self, landed: Result<Landed, Failure>) {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.get(&self.key).is_some_and(|outcome| Rc::ptr_eq(outcome, &self.outcome)) {
            under_way.remove(&self.key);
        }
        self.outcome.landed.borrow_mut().get_or_insert(landed);
        self.outcome.signal.notify();
    }
}

impl Lead for Leading {
    fn land(self, landed: Result<Landed, Failure>) {
        self.end(landed);
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.end(Err(Failure::new(Reason::Internal, "the flight was lost")));
    }
}

impl fmt::Debug for Leading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leading({})", self.key)
    }
}

impl Wait for Waiting {
    async fn landed(self) -> Result<Landed, Failure> {
        self.0.signal.until(|| self.0.landed.borrow().clone()).await
    }
}
