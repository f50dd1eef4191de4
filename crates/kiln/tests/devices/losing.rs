//! Devices that are lost, between steps and on the way: every call says so, and another device goes on.

use std::time::Duration;

use kiln::prelude::*;
use kiln::{Error, wgpu};

use crate::common::gpu;
use crate::sharing::block_on;

/// A device of its own, and the handle that destroys it.
fn mortal() -> Option<(wgpu::Device, Device)> {
    gpu()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (device, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
    Some((device.clone(), Device::from_wgpu(device, queue)))
}

/// A model, its optimizer, and a batch.
struct Training {
    model: Linear,
    opt: Optimizer<AdamW>,
    x: Tensor,
    y: Tensor,
}

impl Training {
    fn new(device: &Device) -> Training {
        manual_seed(11);
        let model = Linear::new(6, 4, device);
        let opt = AdamW::new(1e-2).build(&model);
        let values: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32 / 10.0).collect();
        let x = Tensor::new(&values, &[5, 6], device).unwrap();
        let y = Tensor::new(&[0i32, 1, 2, 3, 0], &[5], device).unwrap();
        Training { model, opt, x, y }
    }

    fn step(&mut self) -> Result<Tensor, Error> {
        let loss = self.model.forward(&self.x).cross_entropy(&self.y);
        let grads = loss.backward(&self.model);
        self.opt.step(&mut self.model, grads)?;
        Ok(loss)
    }

    fn losses(&mut self, n_steps: usize) -> Vec<f64> {
        (0..n_steps).map(|_| self.step().unwrap().item().unwrap()).collect()
    }
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.expect_err("the device is lost");
    assert!(error.is_device_lost(), "{error:?}");
}

/// A product that takes a software adapter some tenths of a second.
fn long(device: &Device) -> Tensor {
    let x = Tensor::ones(&[512, 512], device);
    (0..4).fold(x.clone(), |y, _| y.matmul(&x) / 512.0).mean_all()
}

#[test]
fn a_device_lost_between_steps_says_so_and_another_trains_on() {
    let Some((handle, device)) = mortal() else { return };
    let mut training = Training::new(&device);
    let before = training.losses(3);
    let (held, pending) = (training.x.clone(), &training.x + 1.0);
    handle.destroy();
    for _ in 0..3 {
        assert_lost(training.step());
        assert_lost(held.to_vec::<f32>());
        assert_lost(pending.to_vec::<f32>());
        assert_lost(Tensor::new(&[1.0f32; 4], &[4], &device));
        assert_lost(Tensor::new(&vec![1.0f32; 1 << 20], &[1 << 20], &device));
        // What was never compiled, and what needs no memory of its own.
        assert_lost(held.exp().sum_all().item());
        assert_lost(Tensor::rand(&[3, 7], &device).to_vec::<f32>());
        assert_lost((&held * 2.0).sum_all().item_later().and_then(|later| later.wait()));
        let pending = held.exp();
        assert_lost(device.eval());
        assert_lost(pending.to_vec::<f32>());
    }
    drop((training, held, pending, device, handle));
    let again = Training::new(&Device::gpu(0).unwrap()).losses(6);
    assert_eq!(again[..3], before);
    assert!(again[5] < again[0], "{again:?}");
}

#[test]
fn a_device_lost_while_it_works_says_so() {
    let Some((handle, device)) = mortal() else { return };
    let mut training = Training::new(&device);
    training.losses(3);
    long(&device).item().unwrap();
    let before = long(&device);
    let later = before.item_later().unwrap();
    handle.destroy();
    // A step may be taken while the device still works; nothing that it computes can be read.
    let after = training.step();
    assert_lost(after.and_then(|loss| loss.item()));
    assert_lost(training.step());
    assert_lost(before.item());
    if let Err(error) = later.wait() {
        assert!(error.is_device_lost(), "{error:?}");
    }
    assert_lost(long(&device).item());
}

#[test]
fn what_is_dropped_while_a_lost_device_works_is_no_trouble() {
    let Some((handle, device)) = mortal() else { return };
    let mut training = Training::new(&device);
    training.losses(2);
    let (computed, pending) = (long(&device), Tensor::ones(&[300], &device).exp());
    let later = computed.item_later().unwrap();
    handle.destroy();
    drop(later);
    drop((computed, pending, training, device, handle));
    assert_eq!(Training::new(&Device::gpu(0).unwrap()).losses(1).len(), 1);
}

#[test]
fn threads_that_train_on_a_lost_device_all_come_to_an_end() {
    let Some((handle, device)) = mortal() else { return };
    let run = |n: usize| {
        let mut training = Training::new(&device);
        move || loop {
            // One reads each loss, one some, one none.
            let read = |loss: Tensor| if n > 0 { loss.item().map(drop) } else { Ok(()) };
            if let Err(error) = training.step().and_then(read) {
                return error;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|n| scope.spawn(run(n))).collect();
        std::thread::sleep(Duration::from_millis(200));
        handle.destroy();
        for thread in threads {
            let error = thread.join().expect("no panic");
            assert!(error.is_device_lost(), "{error:?}");
        }
    });
}
