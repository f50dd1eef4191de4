//! Matrix products and affine maps.

use kiln_ir::{Contraction, Op, Shape};

use crate::Tensor;
use crate::record::record;

impl Tensor {
    /// Matrix product `lhs · rhs`.
    ///
    /// Shapes: `[.., m, k] · [.., k, n]` → `[.., m, n]`, the axes in front broadcast; a vector on the
    /// left is a row, one on the right a column, and its axis vanishes.
    /// Dtypes: one float type for both; accumulates in `f32` (`f64` for `f64`).
    /// Gradient: both.
    ///
    /// # Panics
    /// If the inner dims or the dtypes differ, a dtype is not a float, or an operand is a scalar.
    #[track_caller]
    pub fn matmul(&self, rhs: &Tensor) -> Tensor {
        let (lhs_rank, rhs_rank) = (self.rank(), rhs.rank());
        let show = || format!("lhs {}{}, rhs {}{}", self.dtype(), self.shape(), rhs.dtype(), rhs.shape());
        assert!(lhs_rank > 0 && rhs_rank > 0, "matmul: of a scalar: {}", show());
        assert!(
            self.dtype().is_float() && self.dtype() == rhs.dtype(),
            "matmul: takes floats of one dtype: {}",
            show()
        );
        let k = self.dims()[lhs_rank - 1];
        let k_rhs = rhs.dims()[rhs_rank.max(2) - 2];
        assert!(k == k_rhs, "matmul: inner dims differ: {} ({k} ≠ {k_rhs})", show());
        if rhs_rank <= 2 {
            // Every axis of the left operand but the last is a row: one product, however many there are.
            return self.contract(rhs, Contraction { batch: 0, m: lhs_rank - 1, n: rhs_rank - 1, k: 1 });
        }
        let lhs = if lhs_rank == 1 { self.unsqueeze(0) } else { self.clone() };
        let front = |t: &Tensor| Shape::new(&t.dims()[..t.rank() - 2]);
        let Some(batch) = front(&lhs).broadcast(&front(rhs)) else {
            panic!("matmul: batch dims do not broadcast: {}", show());
        };
        let spread = |t: &Tensor| t.expand(&[&batch[..], &t.dims()[t.rank() - 2..]].concat());
        let out = spread(&lhs).contract(&spread(rhs), Contraction { batch: batch.rank(), m: 1, n: 1, k: 1 });
        if lhs_rank == 1 { out.squeeze(-2) } else { out }
    }

    /// Affine map `x · Wᵀ + b` of the last axis; PyTorch's `linear`.
    ///
    /// Shapes: `[.., k]`, `weight [n, k]`, `bias [n]` → `[.., n]`.
    /// Dtypes: one float type for all; accumulates in `f32` (`f64` for `f64`).
    /// Gradient: all.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[1.0f32, 2.0], &[2], &device)?;
    /// let weight = Tensor::new(&[1.0f32, 0.0, 3.0, 4.0, 1.0, 1.0], &[3, 2], &device)?;
    /// let bias = Tensor::new(&[0.5f32, 0.0, 0.0], &[3], &device)?;
    /// assert_eq!(x.linear(&weight, Some(&bias)).to_vec::<f32>()?, [1.5, 11.0, 3.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the dims or the dtypes differ, a dtype is not a float, or `x` is a scalar.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match bias {
            Some(bias) => record(Op::Linear, &[self, weight, bias]),
            None => record(Op::Linear, &[self, weight]),
        }
    }

    /// A contraction: `[batch.., m.., k..] · [batch.., k.., n..]` → `[batch.., m.., n..]`.
    #[track_caller]
    pub(crate) fn contract(&self, rhs: &Tensor, axes: Contraction) -> Tensor {
        record(Op::Dot(axes), &[self, rhs])
    }
}
