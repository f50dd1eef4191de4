//! Which devices there are, and in which order: real ones first, software last.

use std::sync::OnceLock;

use kiln_ir::{Error, ErrorKind, Result};

/// What kind of device an adapter is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// A device that does not say.
    Other,
    /// A program that computes on the CPU, such as lavapipe.
    Cpu,
}

/// An adapter, for people and for choosing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdapterInfo {
    /// The device's name.
    pub name: String,
    /// The graphics interface it is reached through: `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// What kind of device it is.
    pub kind: AdapterKind,
    /// The driver and its version.
    pub driver: String,
}

/// The machine's adapters in the order in which they are numbered.
pub fn adapters() -> Vec<AdapterInfo> {
    sorted().iter().map(|adapter| info(&adapter.get_info())).collect()
}

pub(crate) fn info(info: &wgpu::AdapterInfo) -> AdapterInfo {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Cpu,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string();
    AdapterInfo { name: info.name.clone(), backend: format!("{:?}", info.backend), kind, driver }
}

/// Drivers take a fifth of a second to load, so once a process is enough.
fn instance() -> &'static wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.flags = match cfg!(debug_assertions) {
            true => wgpu::InstanceFlags::from_build_config(),
            // The release default checks indirect dispatches, which there are none of, and halves limits for it.
            false => wgpu::InstanceFlags::empty(),
        };
        wgpu::Instance::new(descriptor)
    })
}

fn sorted() -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
    found.retain(|a| a.get_info().backend != wgpu::Backend::Noop);
    found.sort_by_key(|a| info(&a.get_info()).kind);
    found
}

/// The n-th adapter's device.
pub(crate) fn open(n: usize) -> Result<(wgpu::Device, wgpu::Queue)> {
    let found = sorted();
    let Some(adapter) = found.get(n) else {
        let names: Vec<String> = adapters().iter().enumerate().map(|(n, a)| format!("{n}: {a}")).collect();
        let names = if names.is_empty() { "none".into() } else { names.join("; ") };
        return Err(Error::new(ErrorKind::NoDevice, format!("no adapter {n}; found {names}")));
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("kiln"),
        required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
        required_limits: adapter.limits(),
        experimental_features: wgpu::ExperimentalFeatures::disabled(),
        memory_hints: wgpu::MemoryHints::Performance,
        trace: wgpu::Trace::Off,
    };
    let refused = |e| Error::caused_by(ErrorKind::NoDevice, format!("adapter {n} gave no device"), e);
    pollster::block_on(adapter.request_device(&descriptor)).map_err(refused)
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {:?}, {})", self.name, self.backend, self.kind, self.driver)
    }
}
