//! Devices that the application has already, and those that are not there.

use kiln::graph::Device;
use kiln::prelude::*;
use kiln::wgpu;

use crate::common::gpu;

#[test]
fn an_adapter_that_is_not_there_is_an_error() {
    let error = Device::gpu(99).unwrap_err();
    assert!(error.is_no_device() && error.to_string().starts_with("no adapter 99; found"), "{error}");
}

#[test]
fn an_application_shares_its_device() {
    if gpu().is_none() {
        return;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    // What an application asks for that knows nothing of Kiln: the defaults.
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let device = Device::from_wgpu(device, queue);
    let x = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &device).unwrap();
    assert_eq!(x.matmul(&x.t()).softmax(-1).sum(&[-1]).to_vec::<f32>().unwrap(), [1.0, 1.0]);
    assert!(device.caps().max_bindings <= 8);
}

#[test]
fn what_a_device_cannot_bind_is_an_error() {
    let Some(gpu) = gpu() else { return };
    // Some adapters bind 2 GiB, none 16.
    let x = Tensor::ones(&[1 << 16, 1 << 16], gpu);
    let error = (&x * x.exp()).to_vec::<f32>().unwrap_err();
    assert!(error.to_string().contains("cannot run on") && error.to_string().contains("sharing.rs"), "{error}");
}

/// wgpu's native futures are ready at once.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
