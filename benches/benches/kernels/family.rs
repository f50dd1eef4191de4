//! A family of kernels: a criterion group, and the device that its benches share.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use kiln::Result;
use kiln::prelude::*;
use kiln_benches::Case;

/// What one iteration does.
pub(crate) enum Work {
    /// Bytes that must be read or written.
    Bytes(usize),
    /// Multiplications and additions.
    Flops(usize),
}

/// One iteration, until its results are there.
pub(crate) type Step = Box<dyn FnMut() -> Result<()>>;

/// The benches of a family.
pub(crate) struct Family<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    device: Device,
}

impl Family<'_> {
    /// A family on the CPU without benches.
    pub(crate) fn new<'a>(c: &'a mut Criterion, name: &str) -> Family<'a> {
        let mut group = c.benchmark_group(name);
        // Large sizes take up to 50 ms: as many iterations in each sample, not ever more of them.
        group.sampling_mode(SamplingMode::Flat);
        Family { group, device: Device::cpu() }
    }

    /// Times what `record` records; `make` gives it and is not timed.
    pub(crate) fn computing<T, R: Fn() -> T + 'static>(
        &mut self,
        name: &str,
        work: Work,
        make: impl Fn(&Device) -> Result<R>,
    ) {
        // What a case says of its work is for the table.
        self.stepping(name, work, |device| Ok(Case::computing(device, 0.0, "", make(device)?).step));
    }

    /// Times a step that computes by itself.
    pub(crate) fn stepping(&mut self, name: &str, work: Work, make: impl Fn(&Device) -> Result<Step>) {
        let throughput = match work {
            Work::Bytes(n) => Throughput::BytesDecimal(n as u64),
            Work::Flops(n) => Throughput::Elements(n as u64),
        };
        let device = &self.device;
        // Criterion comes back for each sample, and not at all to what a filter leaves out.
        let mut step: Option<Step> = None;
        self.group.throughput(throughput).bench_function(name, |b| {
            let step = step.get_or_insert_with(|| make(device).expect("the CPU has memory for the inputs"));
            b.iter(|| step().expect("the CPU has memory for the results"));
        });
    }
}
