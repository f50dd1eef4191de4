//! Scaled dot-product attention.

use kiln_ir::attention::{Attend, Part};
use kiln_ir::{DType, Op, Shape};

use crate::Tensor;
use crate::record::record;

impl Tensor {
    /// Scaled dot-product attention, `softmax(q·kᵀ / √d + mask) · v`. This tensor is the query.
    ///
    /// Shapes: `q [.., t, d]`, `k [.., s, d]`, `v [.., s, e]` → `[.., t, e]`; the axes in front broadcast, and
    /// a mask to `[.., t, s]`.
    /// Dtypes: one float type for all; sums in `f32` (`f64` for `f64`). A mask of `bool` says who takes part, one
    /// of floats is added. With `causal`, row `i` sees columns up to `i` only.
    /// Gradient: `q`, `k`, `v` and a mask of floats.
    /// Numerics: subtracts the row maximum; a fully masked row gives zeros, one that sees a NaN among its scores gives
    /// NaN. `causal` hides a NaN, a mask need not.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let q = Tensor::new(&[1.0f32, 0.0], &[2, 1], &device)?;
    /// let v = Tensor::new(&[1.0f32, 3.0], &[2, 1], &device)?;
    /// // The first row sees the first value alone, the second row both with equal weight.
    /// let out = q.scaled_dot_product_attention(&q, &v, None, true);
    /// assert_eq!(out.to_vec::<f32>()?, [1.0, 2.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, eq. 1; in tiles as Dao 2023,
    /// <https://arxiv.org/abs/2307.08691>.
    ///
    /// # Panics
    /// If a rank is below 2, dims do not fit or broadcast, or dtypes differ.
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Tensor {
        let show = || [self, k, v].map(|t| format!("{}{}", t.dtype(), t.shape())).join(", ");
        let ranks = [self, k, v].map(Tensor::rank);
        assert!(ranks.iter().all(|&r| r >= 2), "attention: takes ranks of at least 2: q, k, v {}", show());
        let front = |t: &Tensor| Shape::new(&t.dims()[..t.rank() - 2]);
        let mask_front = mask.map_or(Shape::scalar(), |m| Shape::new(&m.dims()[..m.rank().saturating_sub(2)]));
        let all = [front(k), front(v), mask_front];
        let Some(batch) = all.iter().try_fold(front(self), |batch, s| batch.broadcast(s)) else {
            panic!("attention: batch dims do not broadcast: q, k, v {}", show());
        };
        let spread = |t: &Tensor| t.expand(&[&batch[..], &t.dims()[t.rank() - 2..]].concat());
        let scores = [&batch[..], &[self.dims()[ranks[0] - 2], k.dims()[ranks[1] - 2]]].concat();
        let fill = |v: f64| Tensor::full(&[], v, self.dtype(), self.device());
        let bias = match mask {
            None => fill(0.0),
            Some(mask) if mask.dtype() == DType::Bool => mask.select(&fill(0.0), &fill(f64::NEG_INFINITY)),
            Some(mask) => mask.clone(),
        };
        assert!(
            bias.shape().broadcast(&Shape::new(&scores)).as_deref() == Some(&scores),
            "attention: mask {}{} does not broadcast to {}",
            bias.dtype(),
            bias.shape(),
            Shape::new(&scores)
        );
        let inputs = [&spread(self), &spread(k), &spread(v), &bias.expand(&scores)];
        record(Op::Attention(Attend { part: Part::Out, causal }), &inputs)
    }
}
