//! Random tensors: Threefry by counter, so every device draws the same integers.
//!
//! Each thread has one generator: a seed and a number that grows with each draw. Both are scalar
//! slots of the program, so a new seed needs no new plan.

use std::cell::Cell;
use std::sync::Arc;

use kiln_ir::expr::E;
use kiln_ir::{DType, PointOp, Shape};

use super::map;
use crate::clock::Origin;
use crate::node::Source;
use crate::record::source;
use crate::{Device, Tensor, trace};

thread_local! {
    static GENERATOR: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Seeds this thread's generator.
pub fn manual_seed(seed: u32) {
    GENERATOR.set((seed, 0));
}

/// The generator's seed and number of draws so far, for checkpoints.
pub fn generator_state() -> (u32, u32) {
    GENERATOR.get()
}

/// Continues from a state that [`generator_state`] gave.
pub fn set_generator_state(state: (u32, u32)) {
    GENERATOR.set(state);
}

impl Tensor {
    /// Random words, uniform over all of `u32`.
    #[track_caller]
    pub fn random_u32(dims: &[usize], device: &Device) -> Tensor {
        let (seed, draw) = GENERATOR.get();
        GENERATOR.set((seed, draw.wrapping_add(1)));
        let word = |word: u32, origin: Origin| {
            let origin = trace::is_recording().then(|| Arc::new(origin));
            source(device, Source::Scalar { word, origin }, Shape::scalar(), DType::U32)
        };
        Tensor::positions(dims, device).threefry([&word(seed, Origin::Seed), &word(draw, Origin::Draw(draw))])
    }

    /// Uniform in `[0, 1)`, `f32`: multiples of 2⁻²⁴.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor, manual_seed};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// manual_seed(1);
    /// let x = Tensor::rand(&[100], &device).to_vec::<f32>()?;
    /// assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
    /// manual_seed(1);
    /// assert_eq!(Tensor::rand(&[100], &device).to_vec::<f32>()?, x);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    #[track_caller]
    pub fn rand(dims: &[usize], device: &Device) -> Tensor {
        let top = Tensor::random_u32(dims, device).shift_right(8.0).cast(DType::F32);
        map(&[&top], &(E::input(0) * (0.5f64).powi(24)))
    }

    /// Uniform in `[lo, hi)`, `f32`.
    ///
    /// # Panics
    /// If `lo > hi`.
    #[track_caller]
    pub fn uniform(dims: &[usize], lo: f64, hi: f64, device: &Device) -> Tensor {
        assert!(lo <= hi, "uniform: {lo} > {hi}");
        Tensor::rand(dims, device) * (hi - lo) + lo
    }

    /// Normal with mean 0 and deviation 1, `f32`.
    ///
    /// Box and Muller 1958: `√(−2 ln u) · cos 2πv` with `u` in `(0, 1]`.
    #[track_caller]
    pub fn randn(dims: &[usize], device: &Device) -> Tensor {
        let (u, v) = (Tensor::rand(dims, device), Tensor::rand(dims, device));
        let radius = (-2.0 * (1.0 - E::input(0)).map(PointOp::Log)).map(PointOp::Sqrt);
        // The angle in [−π, π), where WGSL bounds the error of its cosine.
        let angle = (E::input(1) - 0.5) * std::f64::consts::TAU;
        map(&[&u, &v], &(radius * angle.map(PointOp::Cos)))
    }

    /// True with probability `p`, `bool`; equal on every device.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn bernoulli(dims: &[usize], p: f64, device: &Device) -> Tensor {
        assert!((0.0..=1.0).contains(&p), "bernoulli: probability {p}");
        // Compared as integers below 2²⁴, so that rounding cannot differ between devices.
        let threshold = (p * f64::from(1 << 24)).round();
        Tensor::random_u32(dims, device).shift_right(8.0).lt(threshold)
    }
}
