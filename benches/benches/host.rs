//! What the host pays for a step, without the kernels: recording, finding a plan again, making one.
//!
//! The backend is a dry one: it compiles, allocates and records as the CPU's does, but runs no kernel.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kiln::graph::plan::PlanOptions;
use kiln::prelude::*;
use kiln_benches::counted::Counted;
use kiln_benches::models::Mlp;
use kiln_benches::row::Mode;
use kiln_benches::training;
use kiln_cpu::CpuBackend;

fn dry() -> Device {
    Device::with_options(Arc::new(Counted::dry(Arc::new(CpuBackend::new()))), PlanOptions::default())
}

/// One node, recorded and dropped.
fn record(c: &mut Criterion) {
    let device = dry();
    let (x, y) = (Tensor::zeros(&[32], &device).detach(), Tensor::zeros(&[32], &device).detach());
    device.eval().expect("a dry device does not fail");
    c.bench_function("record_add", |b| b.iter(|| black_box(&x + &y)));
}

/// A whole training step whose plan is known, recorded as a whole, since something looks at the gradients: record,
/// differentiate, capture, find, allocate.
fn plan_hit(c: &mut Criterion) {
    let device = dry();
    let mut model = Mlp::new(&[4, 32, 32, 2], &device);
    let mut opt = AdamW::new(1e-3).build(&model);
    let (x, target) = (Tensor::zeros(&[32, 4], &device).detach(), Tensor::iota(&[32], 0, &device).detach());
    device.eval().expect("a dry device does not fail");
    c.bench_function("plan_hit_train_tiny_mlp_b32", |b| {
        b.iter(|| {
            let loss = model.forward(&x).cross_entropy(&target);
            let grads = loss.backward(&model).map(|grad| grad);
            opt.step(&mut model, grads)
        })
    });
}

/// The same step, of which only the forward pass is recorded: what follows is known.
fn known(c: &mut Criterion) {
    let mut case = training::tiny_mlp(Mode::Implicit, &dry()).expect("a dry device does not fail");
    c.bench_function("known_train_tiny_mlp_b32", |b| b.iter(|| (case.step)()));
}

/// The same step recorded once: bind, allocate.
fn replay(c: &mut Criterion) {
    let mut case = training::tiny_mlp(Mode::Jit, &dry()).expect("a dry device does not fail");
    c.bench_function("replay_train_tiny_mlp_b32", |b| b.iter(|| (case.step)()));
}

/// The same step the first time: it is planned, and its kernels are compiled.
fn plan_cold(c: &mut Criterion) {
    let case = || training::tiny_mlp(Mode::Implicit, &dry()).expect("a dry device does not fail");
    c.bench_function("plan_cold_train_tiny_mlp_b32", |b| {
        b.iter_batched_ref(case, |case| (case.step)(), BatchSize::SmallInput);
    });
}

fn quick() -> Criterion {
    let (warm_up, measure) = (Duration::from_millis(300), Duration::from_secs(1));
    Criterion::default().sample_size(20).warm_up_time(warm_up).measurement_time(measure)
}

criterion_group! { name = host; config = quick(); targets = record, plan_hit, known, replay, plan_cold }
criterion_main!(host);
