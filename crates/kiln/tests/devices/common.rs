//! Devices that the tests share.

use std::sync::LazyLock;

use kiln::prelude::*;

/// The CPU.
pub(crate) static CPU: LazyLock<Device> = LazyLock::new(Device::cpu);

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
