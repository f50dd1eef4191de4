//! Memory that is not there: an error before anything runs, and the device works on.

use kiln::prelude::*;
use kiln::{Error, wgpu};

use crate::common::gpu;
use crate::sharing::block_on;

/// A device whose buffers have at most 1 MiB.
fn small() -> Option<Device> {
    gpu()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let required_limits = wgpu::Limits { max_buffer_size: 1 << 20, ..adapter.limits() };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
    Some(Device::from_wgpu(device, queue))
}

#[track_caller]
fn assert_short<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.expect_err("there is not so much memory");
    assert!(error.is_out_of_memory(), "{error:?}");
}

#[test]
fn a_tensor_larger_than_a_buffer_is_out_of_memory_and_harms_nothing() {
    let Some(device) = small() else { return };
    const LARGE: usize = 1 << 19;
    assert_short(Tensor::new(&vec![1.0f32; LARGE], &[LARGE], &device));
    let mut model = Linear::new(6, 4, &device);
    let mut opt = Sgd::new(0.5).build(&model);
    let x = Tensor::ones(&[3, 6], &device).detach();
    device.eval().unwrap();
    let weight = model.weight.to_vec::<f32>().unwrap();
    // The gradient of a sum of outputs is 3 everywhere.
    let large = Tensor::rand(&[LARGE], &device);
    let grads = model.forward(&x).sum_all().backward(&model);
    // Computes the update, which goes over the weight, together with all that is pending.
    assert_short(opt.step(&mut model, grads).and_then(|()| device.eval()));
    assert_short(large.to_vec::<f32>());
    assert_short(large.to_vec::<f32>());
    drop(large);
    device.eval().unwrap();
    let updated: Vec<f32> = weight.iter().map(|w| w - 1.5).collect();
    assert_eq!(model.weight.to_vec::<f32>().unwrap(), updated);
    // What lies between may be large, as long as it is nowhere whole.
    assert_eq!(Tensor::ones(&[LARGE], &device).sum_all().item().unwrap(), LARGE as f64);
}

/// What a child does whose addresses are limited: takes memory until the driver refuses, then trains.
#[test]
#[ignore = "the child of the next test"]
fn takes_all() {
    let device = Device::gpu(0).unwrap();
    let train = || {
        manual_seed(7);
        let mut model = Linear::new(6, 4, &device);
        let mut opt = Sgd::new(0.1).build(&model);
        let x = Tensor::ones(&[5, 6], &device);
        let mut step = || -> Result<f64, Error> {
            let loss = model.forward(&x).square().mean_all();
            let grads = loss.backward(&model);
            opt.step(&mut model, grads)?;
            loss.item()
        };
        (0..4).map(|_| step().unwrap()).collect::<Vec<f64>>()
    };
    let before = train();
    let backend = device.backend();
    let mut taken = Vec::new();
    let refused = loop {
        match backend.alloc(1 << 30) {
            Ok(buffer) => taken.push(buffer),
            Err(error) => break error,
        }
        assert!(taken.len() < 200, "addresses are limited");
    };
    assert!(refused.is_out_of_memory(), "{refused:?}");
    assert_short(backend.alloc(1 << 30).map(drop));
    assert_eq!(train(), before);
    // What is free again can be had again.
    taken.pop();
    drop(backend.alloc(1 << 30).unwrap());
    drop(taken);
    assert_eq!(train(), before);
    println!("refused once");
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_driver_refuses_is_out_of_memory_and_the_device_works_on() {
    if gpu().is_none() || !gpu().unwrap().caps().name.contains("llvmpipe") {
        return println!("skipped: only a software adapter takes its memory from this process");
    }
    let mut shell = std::process::Command::new("sh");
    // In KiB: room for the driver and for some buffers.
    shell.args(["-c", "ulimit -v 12000000; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    shell.args(["--exact", "memory::takes_all", "--ignored", "--nocapture"]);
    let output = shell.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && told.contains("refused once"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
