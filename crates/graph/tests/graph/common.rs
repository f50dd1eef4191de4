//! The device that most tests share, and golden files.

use std::sync::LazyLock;

use kiln_cpu::CpuBackend;
use kiln_graph::Device;

/// The device that most tests share.
pub(crate) static CPU: LazyLock<Device> = LazyLock::new(|| Device::new(CpuBackend::new()));

/// Compares a text with the blessed one; `KILN_BLESS=1` writes it instead.
pub(crate) fn golden(name: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let blessed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(blessed == found, "{} differs; `cargo xtask bless` rewrites it:\n{found}", path.display());
}
