//! Work that goes on when the answer is out.

use std::rc::Rc;

use worker::{Context, ScheduleContext, State};

/// The event that lends its time. Cloning shares it.
#[derive(Clone)]
pub(crate) enum Spawn {
    /// Thirty seconds after the answer, at the most.
    Request(Rc<Context>),
    Schedule(Rc<ScheduleContext>),
    /// As long as there is something to wait for.
    Object(Rc<State>),
}

impl Spawn {
    pub(crate) fn run(&self, work: impl Future<Output = ()> + 'static) {
        match self {
            Spawn::Request(context) => context.wait_until(work),
            Spawn::Schedule(context) => context.wait_until(work),
            Spawn::Object(state) => state.wait_until(work),
        }
    }
}
