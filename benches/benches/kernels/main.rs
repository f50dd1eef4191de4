//! The CPU backend's kernels by family, each as a user would ask for it, in a size that fits caches and in one that
//! does not.
//!
//! Throughput counts what must be done once: bytes read and written (GB/s), or multiplications and additions (criterion
//! prints a GFLOP/s as a Gelem/s).

mod attention;
mod convolution;
mod elementwise;
mod family;
mod matmul;
mod movement;
mod pooling;
mod reduction;
mod sorting;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn quick() -> Criterion {
    let (warm_up, measure) = (Duration::from_millis(100), Duration::from_millis(500));
    Criterion::default().sample_size(10).warm_up_time(warm_up).measurement_time(measure)
}

criterion_group! {
    name = kernels;
    config = quick();
    targets = elementwise::all, reduction::all, movement::all, matmul::all, convolution::all, pooling::all, attention::all, sorting::all
}
criterion_main!(kernels);
