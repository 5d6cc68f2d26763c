//! What the platform allows, and how near to it one invocation has come.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures_channel::oneshot;
use worker::Env;

/// Subrequests of one invocation that we allow ourselves; the platform's free plan allows fifty.
pub(crate) const SUBREQUESTS: u32 = 45;
/// Connections of one invocation that may wait for their heads at once (the platform's own limit).
pub(crate) const WAITING: u32 = 6;
/// The variable that overrides [`Limits`], for plans with other ones: `front=BYTES put=BYTES part=BYTES`.
const LIMITS: &str = "ENTREPOT_LIMITS";

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The largest object that the cache in front takes.
    pub(crate) front: u64,
    /// The largest object that the store takes in one piece.
    pub(crate) put: u64,
    /// Each but the last piece of a larger one.
    pub(crate) part: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { front: 512 * 1000 * 1000, put: 4_900 * 1000 * 1000, part: 100 << 20 }
    }
}

impl Limits {
    /// Errors: the variable is there and makes no sense.
    pub(crate) fn of(env: &Env) -> Result<Limits, String> {
        env.var(LIMITS).map_or_else(|_| Ok(Limits::default()), |text| Limits::read(&text.to_string()))
    }

    fn read(text: &str) -> Result<Limits, String> {
        let mut limits = Limits::default();
        for word in text.split_whitespace() {
            let (name, bytes) = word.split_once('=').unwrap_or((word, ""));
            let bytes: u64 = bytes.parse().map_err(|_| format!("{LIMITS}: `{word}` is not name=bytes"))?;
            match name {
                "front" => limits.front = bytes,
                "put" => limits.put = bytes,
                "part" if bytes > 0 => limits.part = bytes,
                _ => return Err(format!("{LIMITS}: `{word}` is none of front, put and part")),
            }
        }
        Ok(limits)
    }
}

/// The subrequests of one invocation. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    used: Cell<u32>,
    waiting: Cell<u32>,
    queue: RefCell<VecDeque<oneshot::Sender<()>>>,
}

/// The right to wait for one head.
#[derive(Debug)]
pub(crate) struct Slot(Tally);

impl Tally {
    /// Counts a subrequest.
    pub(crate) fn note(&self) {
        self.0.used.set(self.0.used.get() + 1);
    }

    pub(crate) fn used(&self) -> u32 {
        self.0.used.get()
    }

    /// Counts a subrequest that holds a connection while it waits for its head, once there is room for it.
    pub(crate) async fn slot(&self) -> Slot {
        self.note();
        while self.0.waiting.get() >= WAITING {
            let (sender, receiver) = oneshot::channel();
            self.0.queue.borrow_mut().push_back(sender);
            // Whoever gave its slot back has woken us, or is gone with the queue.
            let _ = receiver.await;
        }
        self.0.waiting.set(self.0.waiting.get() + 1);
        Slot(self.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let counts = &self.0.0;
        counts.waiting.set(counts.waiting.get() - 1);
        // One that does not wait any more is passed over.
        while let Some(next) = counts.queue.borrow_mut().pop_front() {
            if next.send(()).is_ok() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn limits_are_read_and_nonsense_is_refused() {
        assert_eq!(Limits::read("put=10 part=5"), Ok(Limits { put: 10, part: 5, ..Limits::default() }));
        assert_eq!(Limits::read(""), Ok(Limits::default()));
        for nonsense in ["put", "put=", "put=-1", "pot=1", "part=0"] {
            assert!(Limits::read(nonsense).is_err(), "{nonsense}");
        }
    }

    /// T-WK5: no invocation waits for more than six heads at once.
    #[test]
    fn t_wk5_a_seventh_connection_waits_for_one_of_six() {
        let tally = Tally::default();
        let mut slots: Vec<Slot> =
            (0..WAITING).map(|_| tally.slot().now_or_never().expect("there is room")).collect();
        let mut seventh = Box::pin(tally.slot());
        assert!((&mut seventh).now_or_never().is_none());
        slots.pop();
        assert!((&mut seventh).now_or_never().is_some());
        assert_eq!(tally.used(), WAITING + 1);
    }
}
