//! Threads: whoever asks for something computes it, and a crew helps.
//!
//! The caller works itself: what is small never waits for another thread to wake, and each thread has the same share of
//! one kernel after another, which its own caches may hold.

use std::cell::RefCell;
use std::num::NonZero;
use std::sync::Arc;

use crate::crew::Crew;

/// The caller's thread, and those that help it.
#[derive(Clone)]
pub(crate) struct Threads(Arc<Crew>);

thread_local! {
    /// Who helps this thread.
    static CREW: RefCell<Option<Arc<Crew>>> = const { RefCell::new(None) };
}

impl Threads {
    /// `n` threads, or as many as there are processors for 0.
    pub(crate) fn new(n: usize) -> Threads {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let n = if n > 0 { n } else { processors() };
        Threads(Arc::new(Crew::new(n - 1)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Runs `f`, which can share its work among all of them.
    pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let outer = CREW.replace(Some(self.0.clone()));
        let _restored = Restored(outer);
        f()
    }
}

/// Sets who helps this thread as it was, when dropped.
struct Restored(Option<Arc<Crew>>);

impl Drop for Restored {
    fn drop(&mut self) {
        CREW.set(self.0.take());
    }
}

/// How many threads the work of this one can be shared among.
pub(crate) fn count() -> usize {
    CREW.with_borrow(|crew| crew.as_ref().map_or(1, |crew| crew.len()))
}

/// Calls `work` with 0, and with numbers below `n` on other threads that have nothing else to do.
pub(crate) fn share(n: usize, work: &(dyn Fn(usize) + Sync)) {
    match CREW.with_borrow(Option::clone) {
        Some(crew) => crew.share(n, work),
        None => work(0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::task::{GRAIN, for_each};

    /// A kernel's panic reaches the caller, and the threads work on.
    #[test]
    fn threads_outlive_a_panic() {
        let threads = Threads::new(3);
        let fails = || threads.run(|| for_each(true, 100, GRAIN, || (), |(), i| assert!(i != 77, "as it should")));
        for _ in 0..20 {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err());
            assert_eq!(count(), 1, "nobody helps after a run");
            let sum = AtomicUsize::new(0);
            let add = |(): &mut (), i: usize| {
                sum.fetch_add(i, Ordering::Relaxed);
            };
            threads.run(|| for_each(true, 100, GRAIN, || (), add));
            assert_eq!(sum.into_inner(), 4950);
        }
    }
}
