//! A stream of random numbers that a seed determines, the same on every machine.

use kiln_ir::random::threefry2x32;

/// The seed, and how many words were drawn.
pub(crate) struct Stream(pub(crate) u32, pub(crate) u32);

impl Stream {
    fn word(&mut self) -> u32 {
        self.1 += 1;
        threefry2x32([self.0, 17], [self.1, 0])[0]
    }

    /// Uniform in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.word()) * n as u64) >> 32) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `n` numbers uniform in `lo..hi`.
    pub(crate) fn values(&mut self, n: usize, lo: f64, hi: f64) -> Vec<f64> {
        (0..n).map(|_| lo + (hi - lo) * f64::from(self.word()) / 4_294_967_296.0).collect()
    }
}
