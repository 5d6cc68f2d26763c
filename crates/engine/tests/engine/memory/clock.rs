//! Virtual time and the tasks that live in it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use entrepot_core::time::{Mono, Now, Wall};

/// Some day in 2026, so that wall time is not confused with time since the start.
const EPOCH: u64 = 1_790_000_000_000;

/// A clock that stands still until it is told to go on, and an executor. Tasks run in order of their start.
#[derive(Clone, Default)]
pub(crate) struct Clock(Rc<Inner>);

#[derive(Default)]
struct Inner {
    /// Milliseconds since the start.
    now: Cell<u64>,
    next: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    tasks: RefCell<BTreeMap<u64, Task>>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Now {
        Now { wall: Wall(EPOCH + self.millis()), mono: Mono(86_400_000 + self.millis()) }
    }

    /// Milliseconds since the start.
    pub(crate) fn millis(&self) -> u64 {
        self.0.now.get()
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let key = (self.millis() + u64::try_from(duration.as_millis()).unwrap(), self.0.number());
        let _timer = Timer { clock: self, key };
        poll_fn(|context| {
            if self.millis() >= key.0 {
                return Poll::Ready(());
            }
            self.0.timers.borrow_mut().insert(key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Starts a task; its number stops it.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> u64 {
        let id = self.0.number();
        let task = Task { future: Box::pin(future), woken: Arc::new(Flag(AtomicBool::new(true))) };
        self.0.tasks.borrow_mut().insert(id, task);
        id
    }

    /// Drops a task where it stands.
    pub(crate) fn stop(&self, id: u64) {
        let task = self.0.tasks.borrow_mut().remove(&id);
        drop(task);
        self.settle();
    }

    /// Drops all tasks.
    pub(crate) fn abandon(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
    }

    /// Runs tasks until all of them wait.
    pub(crate) fn settle(&self) {
        while let Some((id, mut task)) = self.0.woken() {
            let waker = Waker::from(task.woken.clone());
            if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.0.tasks.borrow_mut().insert(id, task);
            }
        }
    }

    /// Goes on to the next instant at which something falls due; `false` when nothing does.
    pub(crate) fn skip(&self) -> bool {
        self.settle();
        let Some(due) = self.0.timers.borrow().keys().next().map(|(due, _)| *due) else {
            return false;
        };
        self.go_to(due);
        true
    }

    pub(crate) fn advance(&self, duration: Duration) {
        let end = self.millis() + u64::try_from(duration.as_millis()).unwrap();
        loop {
            self.settle();
            let due = self.0.timers.borrow().keys().next().map(|(due, _)| *due).filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.go_to(due);
        }
        self.go_to(end);
    }

    fn go_to(&self, instant: u64) {
        self.0.now.set(self.millis().max(instant));
        let later = self.0.timers.borrow_mut().split_off(&(self.millis() + 1, 0));
        for (_, waker) in self.0.timers.replace(later) {
            waker.wake();
        }
        self.settle();
    }
}

impl Inner {
    fn number(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Takes the first task that may go on.
    fn woken(&self) -> Option<(u64, Task)> {
        let mut tasks = self.tasks.borrow_mut();
        let id = *tasks.iter().find(|(_, task)| task.woken.0.swap(false, Ordering::Relaxed))?.0;
        tasks.remove_entry(&id)
    }
}

/// Takes its timer off the clock when dropped.
struct Timer<'a> {
    clock: &'a Clock,
    key: (u64, u64),
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let waker = self.clock.0.timers.borrow_mut().remove(&self.key);
        drop(waker);
    }
}

/// Wakes whoever waits for something to change.
#[derive(Default)]
pub(crate) struct Signal(RefCell<Vec<Waker>>);

impl Signal {
    pub(crate) fn notify(&self) {
        let waiting = self.0.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What `look` sees as soon as it sees something.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match look() {
            Some(seen) => Poll::Ready(seen),
            None => {
                self.0.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
