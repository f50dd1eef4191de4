//! Threads: a pool whose threads stay awake while work comes.
//!
//! A thread that sleeps needs 20 to 40 µs to begin, which a step of many short kernels pays at each of them. Before they
//! sleep, threads therefore look for work for a while longer than the pool lets them. They yield to whoever else wants the
//! processor, and what they were not there for, others have done.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder, Yield};

/// How long a thread that has nothing to do stays awake: longer than what is between two kernels, or two short replays.
const AWAKE: Duration = Duration::from_micros(200);

/// A pool of threads.
#[derive(Clone)]
pub(crate) struct Threads {
    pool: Arc<ThreadPool>,
    /// How many threads are being kept awake.
    awake: Arc<AtomicUsize>,
}

thread_local! {
    /// True iff this thread is being kept awake, or runs what the others are kept awake for.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

impl Threads {
    /// `n` threads, or as many as there are processors for 0.
    pub(crate) fn new(n: usize) -> Threads {
        let builder = ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("kiln-cpu-{i}"));
        let pool = builder.build().expect("the system lets a program start its threads");
        Threads { pool: Arc::new(pool), awake: Arc::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` on one of the threads, where it can split its work among all.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(|| {
            let outer = BUSY.replace(true);
            let others = self.awake.load(Ordering::Relaxed).saturating_sub(usize::from(outer));
            if others + 1 < self.len() {
                let awake = self.awake.clone();
                self.pool.spawn_broadcast(move |_| stay_awake(&awake));
            }
            let result = catch_unwind(AssertUnwindSafe(f));
            BUSY.set(outer);
            result.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// Does what others leave to do, until there was nothing for a while.
fn stay_awake(awake: &AtomicUsize) {
    if BUSY.replace(true) {
        return;
    }
    awake.fetch_add(1, Ordering::Relaxed);
    let mut since = Instant::now();
    while since.elapsed() < AWAKE {
        match rayon::yield_now() {
            Some(Yield::Executed) => since = Instant::now(),
            _ => std::thread::yield_now(),
        }
    }
    awake.fetch_sub(1, Ordering::Relaxed);
    BUSY.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{GRAIN, for_each};

    /// A kernel's panic reaches the caller, and the pool works on; nobody stays awake for ever.
    #[test]
    fn threads_outlive_a_panic() {
        let threads = Threads::new(3);
        let fails = || threads.run(|| for_each(true, 100, GRAIN, || (), |(), i| assert!(i != 77, "as it should")));
        for _ in 0..20 {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err());
            let sum = AtomicUsize::new(0);
            let add = |(): &mut (), i: usize| {
                sum.fetch_add(i, Ordering::Relaxed);
            };
            threads.run(|| for_each(true, 100, GRAIN, || (), add));
            assert_eq!(sum.into_inner(), 4950);
        }
        let asked = Instant::now();
        while threads.awake.load(Ordering::Relaxed) > 0 {
            assert!(asked.elapsed() < Duration::from_secs(10), "a thread stays awake");
            std::thread::yield_now();
        }
    }
}
