//! Devices that the tests share.

use std::sync::{Arc, LazyLock};

use kiln::graph::plan::PlanOptions;
use kiln::prelude::*;
use kiln_device::emit::Schedule;
use kiln_device::{Options, WgpuBackend};

/// The CPU.
pub(crate) static CPU: LazyLock<Device> = LazyLock::new(Device::cpu);

/// The first adapter as it is, and with the schedules that real GPUs get, which a software adapter does not take by itself;
/// none where there is no adapter.
pub(crate) fn gpus() -> Vec<&'static Device> {
    static SHARED: LazyLock<Device> = LazyLock::new(|| {
        let options = Options { schedule: Schedule::Shared, ..Options::default() };
        Device::with_options(Arc::new(WgpuBackend::gpu(0, options).unwrap()), PlanOptions::default())
    });
    gpu().map_or(Vec::new(), |gpu| vec![gpu, &*SHARED])
}

/// The first adapter, software too, or `None` where there is none.
pub(crate) fn gpu() -> Option<&'static Device> {
    static GPU: LazyLock<Option<Device>> =
        LazyLock::new(|| (!kiln_device::adapters().is_empty()).then(|| Device::gpu(0).unwrap()));
    if GPU.is_none() {
        assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
        println!("skipped: no adapter");
    }
    GPU.as_ref()
}
