//! Threads share a device and its values: each gets what one thread alone would.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use kiln_cpu::CpuBackend;
use kiln_graph::{Device, Tensor};
use kiln_ir::DType;

use crate::generate::{Kind, program};

fn device() -> Device {
    Device::new(CpuBackend::with_threads(2))
}

#[test]
fn threads_that_compute_what_others_look_at() {
    const X: [f32; 2] = [0.5, -1.0];
    let device = device();
    let x = Tensor::new(&X, &[2], &device).unwrap();
    for _ in 0..200 {
        let shared = x.exp().tanh();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let shared = &shared;
                scope.spawn(move || {
                    let value = (shared + f64::from(n)).sum_all().item().unwrap();
                    let expected: f64 = X.iter().map(|x| f64::from(x.exp().tanh()) + f64::from(n)).sum();
                    assert!((value - expected).abs() < 1e-5, "{value} instead of {expected}");
                });
            }
        });
    }
}

#[test]
fn threads_that_read_what_takes_the_place_of_its_operand() {
    let device = device();
    for n in 0..200 {
        // Nobody else wants what it is computed from.
        let shared = Tensor::new(&vec![n as f32; 5000], &[5000], &device).unwrap() + 1.0;
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let values = shared.to_vec::<f32>().unwrap();
                    assert!(values.iter().all(|x| *x == (n + 1) as f32), "{} instead of {}", values[0], n + 1);
                });
            }
        });
    }
}

#[test]
fn a_thread_that_reads_a_loss_while_a_step_is_made() {
    let device = device();
    let mut weight = Tensor::new(&vec![1.0f32; 1 << 20], &[1 << 20], &device).unwrap();
    for n in 0..100 {
        let loss = weight.mean_all();
        weight = &weight * 0.5;
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // A step takes about as long as ten of these.
                let later = Instant::now() + Duration::from_micros(20 * (n % 10));
                while Instant::now() < later {}
                assert_eq!(loss.item().unwrap(), 0.5f64.powi(n as i32));
            });
            start.wait();
            device.eval().unwrap();
        });
    }
}

#[test]
fn threads_that_read_what_gradients_are_owed_of() {
    let device = device();
    let weight = Tensor::new(&[1.0f32; 8], &[8], &device).unwrap();
    for n in 0..500 {
        // Nobody else holds what the gradient reads.
        let scaled = &weight * Tensor::new(&[n as f32; 8], &[8], &device).unwrap();
        let sum = (0..20).fold(scaled, |x, _| x + 1.0).sum_all();
        let (owed, start) = (sum.grad_later(&[&weight]).unwrap(), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(sum.item().unwrap(), f64::from(8 * (n + 20)));
                });
            }
        });
        assert_eq!(owed.grads()[0].as_ref().unwrap().to_vec::<f32>().unwrap(), [n as f32; 8]);
    }
}

#[test]
fn threads_that_read_random_programs() {
    let (alone, device) = (device(), device());
    for seed in 0..200 {
        let expected = program(Kind::Exact, seed, &alone).iter().map(|t| t.to_vec_f64().unwrap()).collect::<Vec<_>>();
        let (values, start) = (program(Kind::Exact, seed, &device), Barrier::new(4));
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (values, expected, device, start) = (&values, &expected, &device, &start);
                scope.spawn(move || {
                    start.wait();
                    // One goes on from them first, and has all of it computed.
                    let floats = values.iter().filter(|t| n == 3 && t.dtype() == DType::F32);
                    let more: Vec<Tensor> = floats.map(|t| t + 1.0).collect();
                    device.eval().unwrap();
                    for k in 0..values.len() {
                        let at = (n + k) % values.len();
                        assert_eq!(values[at].to_vec_f64().unwrap(), expected[at], "seed {seed}, value {at}");
                    }
                    drop(more);
                });
            }
        });
    }
}

#[test]
fn gradients_of_what_another_thread_computes_are_right_or_refused() {
    let device = device();
    let weight = Tensor::new(&[3.0f32; 2000], &[2000], &device).unwrap();
    for n in 0..300 {
        // Nobody else holds what the gradient is, and the product may take its place.
        let product = &weight * Tensor::new(&vec![n as f32; 2000], &[2000], &device).unwrap();
        let (one, start) = (Tensor::full(&[2000], 1.0, DType::F32, &device), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                assert_eq!(product.to_vec::<f32>().unwrap()[7], 3.0 * n as f32);
            });
            start.wait();
            let grad = product.vjp(&one, &[&weight]).remove(0).unwrap();
            match catch_unwind(AssertUnwindSafe(|| grad.to_vec::<f32>().unwrap()[7])) {
                Ok(x) => assert_eq!(x, n as f32),
                Err(why) => assert!(why.downcast::<String>().unwrap().contains("keep a clone of it")),
            }
        });
    }
}
