//! Which devices there are, and in which order: real ones first, software last.

use std::sync::OnceLock;

use kiln_ir::{Error, ErrorKind, Result};

use crate::emit::Matrix;
use crate::quirks::Quirk;

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
    /// Which matrices the driver lists among those that emission can use.
    pub matrix: Option<Matrix>,
}

/// The machine's adapters in the order in which they are numbered.
pub fn adapters() -> Vec<AdapterInfo> {
    sorted().iter().map(of).collect()
}

/// What an adapter says of itself.
pub(crate) fn of(adapter: &wgpu::Adapter) -> AdapterInfo {
    let found = adapter.get_info();
    let matrix =
        adapter.features().contains(MATRICES).then(|| matrix(&found, &adapter.cooperative_matrix_properties()));
    AdapterInfo { matrix: matrix.flatten(), ..info(&found) }
}

/// As [`of`], from a device, which does not know its matrices.
pub(crate) fn info(info: &wgpu::AdapterInfo) -> AdapterInfo {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Cpu,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string();
    AdapterInfo { name: info.name.clone(), backend: format!("{:?}", info.backend), kind, driver, matrix: None }
}

/// What kernels on cooperative matrices ask of a device.
const MATRICES: wgpu::Features = wgpu::Features::SHADER_F16.union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// The largest square matrices of f16 with sums in f32, if any are of use here.
fn matrix(info: &wgpu::AdapterInfo, listed: &[wgpu::CooperativeMatrixProperties]) -> Option<Matrix> {
    use wgpu::CooperativeScalarType::{F16, F32};
    if Quirk::MatricesOfScalars.is_of(info) || Quirk::SubgroupsVary.is_of(info) {
        return None;
    }
    let square = |p: &&wgpu::CooperativeMatrixProperties| p.m_size == p.n_size && p.n_size == p.k_size;
    let usable = listed.iter().filter(square).filter(|p| p.ab_type == F16 && p.cr_type == F32);
    let size = usable.map(|p| p.m_size).filter(|size| [8, 16].contains(size)).max()?;
    Some(Matrix { size, subgroup: info.subgroup_max_size })
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

/// The n-th adapter's device, and what the adapter says of itself.
pub(crate) fn open(n: usize) -> Result<(wgpu::Device, wgpu::Queue, AdapterInfo)> {
    let found = sorted();
    let Some(adapter) = found.get(n) else {
        let names: Vec<String> = adapters().iter().enumerate().map(|(n, a)| format!("{n}: {a}")).collect();
        let names = if names.is_empty() { "none".into() } else { names.join("; ") };
        return Err(Error::new(ErrorKind::NoDevice, format!("no adapter {n}; found {names}")));
    };
    let info = of(adapter);
    let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
    let (wanted, experimental_features) = match info.matrix {
        None => (wanted, wgpu::ExperimentalFeatures::disabled()),
        // SAFETY: matrices are all that is asked for. Emission writes no product of unlike sizes, no index outside
        // of a tile and no use in divergent flow, none of which is checked; a probe computes a known product first.
        Some(_) => (wanted | MATRICES, unsafe { wgpu::ExperimentalFeatures::enabled() }),
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("kiln"),
        required_features: adapter.features() & wanted,
        required_limits: adapter.limits(),
        experimental_features,
        memory_hints: wgpu::MemoryHints::Performance,
        trace: wgpu::Trace::Off,
    };
    let refused = |e| Error::caused_by(ErrorKind::NoDevice, format!("adapter {n} gave no device"), e);
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(refused)?;
    Ok((device, queue, info))
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {:?}, {})", self.name, self.backend, self.kind, self.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_square_on_subgroups_of_one_size() {
        use wgpu::CooperativeScalarType::{F16, F32, I32};
        let listed = |[m, n, k]: [u32; 3], ab_type, cr_type| wgpu::CooperativeMatrixProperties {
            m_size: m,
            n_size: n,
            k_size: k,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        let info = |backend, smallest| wgpu::AdapterInfo {
            subgroup_min_size: smallest,
            subgroup_max_size: 32,
            ..wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, backend)
        };
        let vulkan = info(wgpu::Backend::Vulkan, 32);
        let small = listed([8; 3], F16, F32);
        let all = [small, listed([16; 3], F16, F32), listed([16, 8, 16], F16, F32)];
        assert_eq!(matrix(&vulkan, &all), Some(Matrix { size: 16, subgroup: 32 }));
        assert_eq!(matrix(&vulkan, &all[..1]), Some(Matrix { size: 8, subgroup: 32 }));
        let unusable = [listed([16, 8, 16], F16, F32), listed([16; 3], F16, F16), listed([16; 3], I32, I32)];
        assert_eq!(matrix(&vulkan, &unusable), None);
        assert_eq!(matrix(&info(wgpu::Backend::Vulkan, 16), &all), None);
        assert_eq!(matrix(&info(wgpu::Backend::Metal, 32), &all), None);
    }
}
