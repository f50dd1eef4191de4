//! Tasks: independent items over the threads that help this one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::threads;

/// Work below which a thread is not worth waking: some ten microseconds of it.
pub(crate) const GRAIN: usize = 1 << 16;

/// Threads among which one job is split, at most.
const MOST: usize = 64;

/// Pieces in which a share is taken, at least, where they are worth it.
const PIECES: usize = 16;

/// Calls `body(worker, i)` for `i` in `0..n`, each of about `work`; in parallel if that pays.
///
/// A thread has a share of neighbours, from the first to the last, which memory serves best, and then takes what others
/// have not begun. 25 updates of 12 MiB each take 13.6 ms so, and 14.7 where halves are split and stolen.
pub(crate) fn for_each<W>(
    parallel: bool,
    n: usize,
    work: usize,
    init: impl Fn() -> W + Sync + Send,
    body: impl Fn(&mut W, usize) + Sync + Send,
) {
    let grain = GRAIN.div_ceil(work.max(1));
    if !parallel || n <= grain {
        let mut worker = init();
        return (0..n).for_each(|i| body(&mut worker, i));
    }
    let n_threads = threads::count().min(n.div_ceil(grain)).min(MOST);
    let piece = n.div_ceil(n_threads * PIECES).max(grain);
    let start = |t: usize| n * t / n_threads;
    let next: [AtomicUsize; MOST] = std::array::from_fn(|t| AtomicUsize::new(start(t)));
    threads::share(n_threads, &|own| {
        let mut worker = None;
        for t in (own..n_threads).chain(0..own) {
            let end = start(t + 1);
            let mut from = next[t].fetch_add(piece, Ordering::Relaxed);
            while from < end {
                let worker = worker.get_or_insert_with(&init);
                (from..end.min(from + piece)).for_each(|i| body(worker, i));
                from = next[t].fetch_add(piece, Ordering::Relaxed);
            }
        }
    });
}

/// As [`for_each`], for items that are worth a thread each, collecting what `body` gives, in order.
pub(crate) fn map<W, T: Send>(
    parallel: bool,
    n: usize,
    init: impl Fn() -> W + Sync + Send,
    body: impl Fn(&mut W, usize) -> T + Sync + Send,
) -> Vec<T> {
    let results: Vec<Mutex<Option<T>>> = (0..n).map(|_| Mutex::new(None)).collect();
    for_each(parallel, n, GRAIN, init, |worker, i| {
        let result = body(worker, i);
        *results[i].lock().expect("each item has a lock of its own") = Some(result);
    });
    let result = |slot: Mutex<Option<T>>| slot.into_inner().ok().flatten().expect("each item comes once");
    results.into_iter().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Threads;

    #[test]
    fn each_item_once() {
        for threads in [1, 2, 3, 5, 70] {
            let pool = Threads::new(threads);
            for n in [0, 1, 2, 15, 16, 17, 127, 1000, 4099] {
                for work in [1, 700, GRAIN] {
                    let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                    let count = |(): &mut (), i: usize| {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    };
                    pool.run(|| for_each(true, n, work, || (), count));
                    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1), "{threads} threads, {n} of {work}");
                }
            }
        }
    }
}
