//! Emitted text, as blessed: a refactor changes none of it, and a change of it is read before it lands.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::sort::Part;
use kiln_ir::{DType, Kernel, ReduceOp};

use crate::dots::matmul;
use crate::rows::softmax_kernel;
use crate::scans::scan;
use crate::scatters::scatter;
use crate::sorts::sort;
use crate::strips::{column_sums, mixed, norm, turned};
use crate::validate::validate;
use crate::{attention, matrices};

/// Compares a kernel's text with the blessed one; `KILN_BLESS=1` writes it instead.
fn check(name: &str, kernel: &Kernel, schedule: Schedule) {
    check_for(name, kernel, &Target { schedule, ..Target::default() });
}

fn check_for(name: &str, kernel: &Kernel, target: &Target) {
    let wgsl = emit(kernel, target).unwrap().wgsl;
    validate(&wgsl);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, &wgsl).unwrap();
        return;
    }
    let blessed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(blessed == wgsl, "{} differs; `cargo xtask bless` rewrites it:\n{wgsl}", path.display());
}

#[test]
fn kernels_read_as_blessed() {
    check("softmax.wgsl", &softmax_kernel(512, 256, DType::F32, false), Schedule::Auto);
    check("norm.wgsl", &norm(8192, 256, DType::F16).0, Schedule::Auto);
    check("column_sums.wgsl", &column_sums(4096, 512, DType::F32).0, Schedule::Auto);
    check("turned.wgsl", &turned(3, [100, 64], DType::F32, DType::F16, false).0, Schedule::Auto);
    check("strips.wgsl", &mixed(4096, 1024, DType::F16, &[DType::U8]).0, Schedule::Auto);
    check("strips_apart.wgsl", &mixed(100, 1023, DType::F32, &[]).0, Schedule::Auto);
    check("softmax_f16_plain.wgsl", &softmax_kernel(7, 65, DType::F16, false), Schedule::Plain);
    check("matmul_tiled.wgsl", &matmul([1, 1000, 512, 1024], [false, true], DType::F32).0, Schedule::Auto);
    check("matmul_plain.wgsl", &matmul([2, 9, 5, 6], [true, false], DType::F32).0, Schedule::Plain);
    let product = Kernel::Dot(matrices::product([1, 1000, 520, 1024], [false, false], DType::F16));
    check_for("matmul_matrices.wgsl", &product, &matrices::target(Schedule::Auto));
    let [forward, backward, few_columns] = attention::golden();
    check("attention_tiled.wgsl", &forward, Schedule::Shared);
    check("attention_grad_tiled.wgsl", &backward, Schedule::Shared);
    check("attention_f16_plain.wgsl", &few_columns, Schedule::Plain);
    check("scan.wgsl", &scan(ReduceOp::Sum, false, DType::F32, [9, 300, 1]), Schedule::Auto);
    check("scan_columns.wgsl", &scan(ReduceOp::Prod, true, DType::F32, [2, 700, 64]), Schedule::Auto);
    let parts = [Part::Values, Part::Indices];
    check("sort.wgsl", &sort(100, false, DType::F32, [9, 100, 1], &parts), Schedule::Auto);
    check("sort_counted.wgsl", &sort(5, true, DType::I32, [2, 17, 3], &parts), Schedule::Plain);
    let windows = Target { schedule: Schedule::Plain, max_binding_bytes: 64 << 10, ..Target::default() };
    check_for("windows.wgsl", &softmax_kernel(300, 65, DType::F32, false), &windows);
    check("scatter.wgsl", &scatter(1, 700, 40, 2000, DType::F32).0, Schedule::Auto);
}
