//! Tasks: independent items over the threads of the current pool.

use rayon::prelude::*;

/// Work below which a thread is not worth waking: some ten microseconds of it.
pub(crate) const GRAIN: usize = 1 << 16;

/// Calls `body(worker, i)` for `i` in `0..n`, each of about `work`; in parallel if that pays.
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
    (0..n).into_par_iter().with_min_len(grain).for_each_init(init, body);
}

/// As [`for_each`], collecting what `body` gives, in order.
pub(crate) fn map<W, T: Send>(
    parallel: bool,
    n: usize,
    init: impl Fn() -> W + Sync + Send,
    body: impl Fn(&mut W, usize) -> T + Sync + Send,
) -> Vec<T> {
    if !parallel || n <= 1 {
        let mut worker = init();
        return (0..n).map(|i| body(&mut worker, i)).collect();
    }
    (0..n).into_par_iter().map_init(init, body).collect()
}
