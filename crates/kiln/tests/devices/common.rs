//! Devices that the tests share, and a stream of random numbers.

use std::sync::LazyLock;

use kiln::ir::random::threefry2x32;
use kiln::prelude::*;

/// The CPU.
pub(crate) static CPU: LazyLock<Device> = LazyLock::new(Device::cpu);

/// The first adapter, software too, or `None` where there is none.
pub(crate) fn gpu() -> Option<&'static Device> {
    static GPU: LazyLock<Option<Device>> =
        LazyLock::new(|| (!kiln_device::adapters().is_empty()).then(|| Device::gpu(0).unwrap()));
    if GPU.is_none() {
        assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
        println!("skipped: no adapter");
    }
    GPU.as_ref()
}

/// A stream of numbers that a seed determines.
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

    pub(crate) fn values(&mut self, n: usize, lo: f64, hi: f64) -> Vec<f64> {
        (0..n).map(|_| lo + (hi - lo) * f64::from(self.word()) / 4_294_967_296.0).collect()
    }
}
