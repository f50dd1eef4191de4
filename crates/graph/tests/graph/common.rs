//! Devices with every knob, and a stream of random numbers.

use std::sync::{Arc, LazyLock};

use kiln_cpu::CpuBackend;
use kiln_graph::Device;
use kiln_graph::plan::PlanOptions;
use kiln_ir::random::threefry2x32;

/// The device that most tests share.
pub(crate) static CPU: LazyLock<Device> = LazyLock::new(|| Device::new(CpuBackend::new()));

/// A CPU device with these planner knobs.
pub(crate) fn with_options(fuse: bool, reuse: bool) -> Device {
    Device::with_options(Arc::new(CpuBackend::poisoned()), PlanOptions { fuse, reuse })
}

/// A stream of numbers that a seed determines.
pub(crate) struct Stream(pub(crate) u32, pub(crate) u32);

impl Stream {
    pub(crate) fn word(&mut self) -> u32 {
        self.1 += 1;
        threefry2x32([self.0, 17], [self.1, 0])[0]
    }

    /// Uniform in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.word() as u64 * n as u64) >> 32) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Uniform in `lo..hi`.
    pub(crate) fn uniform(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * f64::from(self.word()) / 4_294_967_296.0
    }

    pub(crate) fn values(&mut self, n: usize, lo: f64, hi: f64) -> Vec<f64> {
        (0..n).map(|_| self.uniform(lo, hi)).collect()
    }
}

/// Compares a text with the blessed one; `KILN_BLESS=1` writes it instead.
pub(crate) fn golden(name: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let blessed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(blessed == found, "{} differs; `cargo xtask bless` rewrites it:\n{found}", path.display());
}
