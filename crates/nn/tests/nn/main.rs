//! Layers and optimizers compute what PyTorch's do, and modules are walked as their docs say.

mod following;
mod jit;
mod layers;
mod modules;
mod optimizers;
#[rustfmt::skip]
mod reference;

use std::sync::LazyLock;

use kiln_graph::{Device, Tensor};
use kiln_ir::DType;
use kiln_nn::{LeafMut, Module, Param, Path};

static CPU: LazyLock<Device> = LazyLock::new(|| Device::new(kiln_cpu::CpuBackend::new()));

/// `sin(0.37 i + k)`, scaled, as `reference.py` has it.
fn wave(k: f64, dims: &[usize], scale: f64) -> Tensor {
    let values: Vec<f64> = (0..dims.iter().product()).map(|i: usize| (i as f64 * 0.37 + k).sin() * scale).collect();
    Tensor::from_f64(&values, dims, DType::F64, &CPU).unwrap()
}

/// The model with the n-th parameter replaced by a wave.
fn filled<M: Module>(mut model: M) -> M {
    let mut n = 0.0;
    model.visit_mut(&mut Path::default(), &mut |_, leaf| {
        if let LeafMut::Param(param) = leaf {
            n += 1.0;
            *param = Param::new(wave(n, param.dims(), 1.0));
        }
    });
    model
}

#[track_caller]
fn assert_close(found: &[&Tensor], expected: &[f64]) {
    let found: Vec<f64> = found.iter().flat_map(|t| t.to_vec_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() < 1e-6 * e.abs().max(1.0), "element {i}: {f} is not {e}");
    }
}
