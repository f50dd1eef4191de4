//! Tensors larger than one binding: programs on a device whose bindings span little.

use kiln::prelude::*;
use kiln::wgpu;

use crate::common::{CPU, gpu};
use crate::generate::Kind;
use crate::programs;
use crate::sharing::block_on;

/// A device whose bindings span so many bytes.
fn bound(bytes: u64) -> Option<Device> {
    with(bytes, u32::MAX)
}

/// A device that binds so many buffers at most, of so many bytes each.
fn with(bytes: u64, n_bindings: u32) -> Option<Device> {
    gpu()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let limits = adapter.limits();
    let required_limits = wgpu::Limits {
        max_storage_buffer_binding_size: bytes,
        max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage.min(n_bindings),
        ..limits
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
    Some(Device::from_wgpu(device, queue))
}

#[test]
fn random_programs_agree_in_windows() {
    let Some(device) = bound(256) else { return };
    programs::check(&device, Kind::Exact, 600..612);
    programs::check(&device, Kind::Smooth, 600..612);
}

/// A convolution, a normalization and an attention, there and back.
#[test]
fn gradients_agree_in_windows() {
    let Some(device) = bound(16 << 10) else { return };
    let run = |device: &Device| {
        let make = |dims: &[usize], k: usize| {
            let values: Vec<f64> = (0..dims.iter().product()).map(|i| (i * k % 23) as f64 / 23.0 - 0.5).collect();
            Tensor::from_f64(&values, dims, DType::F32, device).unwrap()
        };
        let (x, w) = (make(&[4, 3, 17, 17], 7), make(&[8, 3, 3, 3], 5));
        let y = x.conv2d(&w, Conv2dOptions::default()).relu();
        let rows = y.reshape(&[1, 4, 120, 15]);
        let q = rows.softmax(-1);
        let out = q.scaled_dot_product_attention(&rows, &rows, None, true);
        let loss = (&out * &out).sum_all();
        let grads = loss.grad(&[&x, &w]);
        grads.into_iter().map(|g| g.unwrap().to_vec::<f32>().unwrap()).chain([out.to_vec::<f32>().unwrap()]).collect()
    };
    let [found, expected]: [Vec<Vec<f32>>; 2] = [run(&device), run(&CPU)];
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

/// Writes, reads and copies are no bindings: they begin and end anywhere.
#[test]
fn windows_are_written_and_read_anywhere() {
    let Some(device) = bound(256) else { return };
    let values: Vec<f32> = (0..1023).map(|i| i as f32).collect();
    let x = Tensor::new(&values, &[1023], &device).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), values);
    assert_eq!(x.slice(0, 60..70).to_vec::<f32>().unwrap(), values[60..70]);
    assert_eq!((&x + 1.0).slice(0, 1020..1023).to_vec::<f32>().unwrap(), [1021.0, 1022.0, 1023.0]);
}

#[test]
fn more_windows_than_bindings_are_an_error() {
    let Some(device) = bound(256) else { return };
    let n = 64 * (device.caps().max_bindings + 1);
    let x = Tensor::rand(&[n], &device);
    let error = x.to_vec::<f32>().unwrap_err();
    let needed = format!(": {} bindings, of which", device.caps().max_bindings + 1);
    assert!(error.to_string().contains(&needed) && error.to_string().contains("windows.rs"), "{error}");
}

/// Each of these tensors is two of eight bindings, so that what would be one kernel is several.
#[test]
fn kernels_are_cut_where_windows_are_too_many() {
    let Some(device) = with(4 << 10, 8) else { return };
    let n = 1500;
    let make = |by: usize| {
        let values: Vec<f32> = (0..n).map(|i| (i * by % 23) as f32).collect();
        Tensor::new(&values, &[n], &device).unwrap()
    };
    let [a, b, c, d, e] = [3, 5, 7, 11, 13].map(make);
    let y = &a * &b + &c * &d + (&a + &e) * (&c - &b);
    let expected = |i: usize| {
        let [a, b, c, d, e] = [3, 5, 7, 11, 13].map(|by| (i * by % 23) as f32);
        a * b + c * d + (a + e) * (c - b)
    };
    assert_eq!(y.to_vec::<f32>().unwrap(), (0..n).map(expected).collect::<Vec<f32>>());
}
