//! Where a program computes: the choice of a backend, the one thing that only the facade can make.

use kiln_graph::Device;
use kiln_ir::{Error, ErrorKind, Result};

/// Ways to a [`Device`].
pub trait DeviceExt: Sized {
    /// A real GPU, else the CPU; or what `KILN_DEVICE` asks for. A software adapter only if it asks for it.
    ///
    /// # Errors
    /// If what was asked for is not there, or a GPU is there but gives no device.
    fn best() -> Result<Self>;

    /// The CPU, on as many threads as there are processors, or as `KILN_THREADS` says. It never touches a GPU.
    fn cpu() -> Self;

    /// The n-th adapter: real GPUs come first, software last.
    ///
    /// # Errors
    /// If there is no such adapter, with a list of those that were found.
    fn gpu(n: usize) -> Result<Self>;

    /// A device that the application opened itself. Its error handler and device-lost callback are replaced.
    #[cfg(feature = "wgpu")]
    fn from_wgpu(device: kiln_device::wgpu::Device, queue: kiln_device::wgpu::Queue) -> Self;
}

/// What `KILN_DEVICE` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    Cpu,
    Gpu(usize),
}

impl Choice {
    fn parse(text: &str) -> Result<Choice> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Choice::Cpu),
            None if text == "gpu" => Ok(Choice::Gpu(0)),
            Some(("gpu", n)) if n.parse::<usize>().is_ok() => Ok(Choice::Gpu(n.parse().expect("checked"))),
            _ => {
                let message = format!("KILN_DEVICE: expected `cpu`, `gpu` or `gpu:N`, found `{text}`");
                Err(Error::new(ErrorKind::NoDevice, message))
            }
        }
    }
}

impl DeviceExt for Device {
    fn best() -> Result<Device> {
        match std::env::var("KILN_DEVICE").ok().filter(|v| !v.is_empty()) {
            None => best_gpu().map(|gpu| gpu.unwrap_or_else(Device::cpu)),
            Some(text) => match Choice::parse(&text)? {
                Choice::Cpu => Ok(Device::cpu()),
                Choice::Gpu(n) => Device::gpu(n),
            },
        }
    }

    fn cpu() -> Device {
        Device::new(kiln_cpu::CpuBackend::new())
    }

    #[cfg(feature = "wgpu")]
    fn gpu(n: usize) -> Result<Device> {
        kiln_device::WgpuBackend::gpu(n, options()).map(Device::new)
    }

    #[cfg(not(feature = "wgpu"))]
    fn gpu(n: usize) -> Result<Device> {
        let message = format!("no adapter {n}: built without the `wgpu` feature");
        Err(Error::new(ErrorKind::NoDevice, message))
    }

    #[cfg(feature = "wgpu")]
    fn from_wgpu(device: kiln_device::wgpu::Device, queue: kiln_device::wgpu::Queue) -> Device {
        Device::new(kiln_device::WgpuBackend::from_wgpu(device, queue, options()))
    }
}

/// Kernels are timed if somebody wants to see when they ran, and kept on disk if nobody objects.
#[cfg(feature = "wgpu")]
fn options() -> kiln_device::Options {
    let profile = std::env::var_os("KILN_TRACE").is_some_and(|path| !path.is_empty());
    let kept = crate::kept::directory(|name| std::env::var_os(name));
    kiln_device::Options { profile, kept, ..kiln_device::Options::default() }
}

#[cfg(feature = "wgpu")]
fn best_gpu() -> Result<Option<Device>> {
    Ok(kiln_device::WgpuBackend::best(options())?.map(Device::new))
}

#[cfg(not(feature = "wgpu"))]
fn best_gpu() -> Result<Option<Device>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_device_or_is_refused() {
        assert_eq!(Choice::parse("cpu").unwrap(), Choice::Cpu);
        assert_eq!(Choice::parse("gpu").unwrap(), Choice::Gpu(0));
        assert_eq!(Choice::parse("gpu:3").unwrap(), Choice::Gpu(3));
        for text in ["tpu", "gpu:", "gpu:x", "cpu:0"] {
            let error = Choice::parse(text).unwrap_err();
            assert!(error.is_no_device() && error.to_string().contains(text), "{error}");
        }
    }
}
