//! Two kernels as ladders: every rung has one idea more than the one below it, and the top is Kiln.
//!
//! Rungs run on one core. Kiln does so too, to be compared with them, and then on all cores. A rung is compared with
//! the oracle before it is timed.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kiln::prelude::*;
use kiln_benches::ladder::{adamw, assert_close, matmul, numbers};
use kiln_cpu::CpuBackend;

/// Kiln's rungs, and where they run.
fn devices() -> [(&'static str, Device); 2] {
    [("kiln_one_core", Device::new(CpuBackend::with_threads(1))), ("kiln_all_cores", Device::cpu())]
}

fn group<'a>(c: &'a mut Criterion, name: String, work: Throughput) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(work);
    group
}

/// `[n, n]·[n, n]`; an element is a multiplication or an addition.
fn matmuls(c: &mut Criterion) {
    for n in [128, 1024] {
        let dims = [n; 3];
        let (lhs, rhs) = (numbers(n * n, 1), numbers(n * n, 2));
        let oracle = matmul::oracle(dims, &lhs, &rhs);
        let mut group = group(c, format!("ladder_matmul_{n}"), Throughput::Elements(2 * (n as u64).pow(3)));
        // The first rung takes seconds for a large product, as often as there are samples.
        let rungs = if n > 512 { &matmul::RUNGS[1..] } else { matmul::RUNGS };
        for (name, rung) in rungs {
            let mut out = vec![f32::NAN; n * n];
            rung(dims, &lhs, &rhs, &mut out);
            assert_close(name, &out, &oracle, 1e-4);
            group.bench_function(*name, |b| b.iter(|| rung(dims, &lhs, &rhs, &mut out)));
        }
        for (name, device) in devices() {
            let [lhs, rhs] = [&lhs, &rhs].map(|x| Tensor::new(x, &[n, n], &device).expect("it fits"));
            assert_close(name, &matmul::kiln(&lhs, &rhs).to_vec().expect("it fits"), &oracle, 1e-4);
            group.bench_function(name, |b| {
                b.iter(|| {
                    let out = matmul::kiln(&lhs, &rhs);
                    device.eval().expect("it fits");
                    out
                });
            });
        }
    }
}

/// A step of AdamW; seven arrays must be read or written.
fn adamws(c: &mut Criterion) {
    let lr = 1e-3;
    for (size, n) in [("16k", 1 << 14), ("8m", 1 << 23)] {
        let (factors, grad, before) = (adamw::Factors::first(lr), numbers(n, 2), adamw::State::new(numbers(n, 1)));
        let oracle = adamw::oracle(&factors, &grad, &before);
        let mut group = group(c, format!("ladder_adamw_{size}"), Throughput::BytesDecimal(28 * n as u64));
        for (name, rung) in adamw::RUNGS {
            let mut state = before.clone();
            rung(&factors, &grad, &mut state);
            assert_close(name, &state.param, &oracle, 1e-5);
            group.bench_function(*name, |b| b.iter(|| rung(&factors, &grad, &mut state)));
        }
        for (name, device) in devices() {
            let mut kiln = adamw::Kiln::new(lr, &before.param, &grad, &device).expect("it fits");
            kiln.step().expect("it fits");
            assert_close(name, &kiln.param().expect("it fits"), &oracle, 1e-5);
            group.bench_function(name, |b| b.iter(|| kiln.step().expect("it fits")));
        }
    }
}

fn quick() -> Criterion {
    let (warm_up, measure) = (Duration::from_millis(100), Duration::from_millis(500));
    Criterion::default().sample_size(10).warm_up_time(warm_up).measurement_time(measure)
}

criterion_group! { name = ladder; config = quick(); targets = matmuls, adamws }
criterion_main!(ladder);
