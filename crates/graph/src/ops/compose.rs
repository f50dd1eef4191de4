//! Compositions: softmax, losses, activations. None has a node of its own; fusion makes each one kernel.

use std::sync::{Arc, LazyLock};

use kiln_ir::expr::E;
use kiln_ir::{Axes, Expr, PointOp};

use super::reduce::axes_of;
use super::{axis_of, map};
use crate::Tensor;
use crate::node::Adjoint;

impl Tensor {
    /// `e^x / Σ e^x` along an axis, with the maximum subtracted first.
    ///
    /// # Panics
    /// If the axis is out of range, or the dtype is not a float.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        let e = (self - self.amax_keepdim(&[axis]).detach()).exp();
        &e / e.sum_keepdim(&[axis])
    }

    /// `log softmax(x)` along an axis, finite where softmax underflows.
    ///
    /// # Panics
    /// As [`Tensor::softmax`].
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Tensor {
        let shifted = self - self.amax_keepdim(&[axis]).detach();
        &shifted - shifted.exp().sum_keepdim(&[axis]).log()
    }

    /// `log Σ e^x` along an axis, which vanishes.
    ///
    /// # Panics
    /// As [`Tensor::softmax`].
    #[track_caller]
    pub fn logsumexp(&self, axis: isize) -> Tensor {
        let max = self.amax_keepdim(&[axis]).detach();
        let sum = (self - &max).exp().sum_keepdim(&[axis]);
        (sum.log() + max).squeeze(axis)
    }

    /// Mean over the batch of `−log softmax(logits)[target]`.
    ///
    /// Shapes: logits `[.., classes]`, target `[..]` of `i32` → scalar.
    /// Gradient: the logits.
    /// Numerics: a target outside `0..classes` has no class and adds 0.
    ///
    /// # Panics
    /// If the target's dims are not the logits' without the last, or its dtype is not `i32`.
    #[track_caller]
    pub fn cross_entropy(&self, target: &Tensor) -> Tensor {
        let rank = self.rank();
        let show = || format!("logits {}{}, target {}{}", self.dtype(), self.shape(), target.dtype(), target.shape());
        assert!(rank > 0 && target.dims() == &self.dims()[..rank - 1], "cross_entropy: dims differ: {}", show());
        let n_classes = self.dims()[rank - 1];
        let hit = target.is_class(n_classes);
        let log_p = self.log_softmax(-1);
        let zero = Tensor::full(&[], 0.0, self.dtype(), self.device());
        -hit.select(&log_p, &zero).sum(&[-1]).mean_all()
    }

    /// Mean of `(x − target)²`.
    ///
    /// # Panics
    /// If shapes or dtypes differ.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor) -> Tensor {
        assert!(
            self.dims() == target.dims(),
            "mse_loss: dims differ: input {}{}, target {}{}",
            self.dtype(),
            self.shape(),
            target.dtype(),
            target.shape()
        );
        (self - target).square().mean_all()
    }

    /// Gaussian error linear unit `x · Φ(x) = x/2 · (1 + erf(x / √2))`.
    ///
    /// Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.
    ///
    /// # Panics
    /// If the dtype is not a float.
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        static GELU: LazyLock<Arc<Expr>> = LazyLock::new(|| {
            let x = E::input(0);
            let phi = (&x * std::f64::consts::FRAC_1_SQRT_2).map(PointOp::Erf) + 1.0;
            (x * 0.5 * phi).build().into()
        });
        Tensor::map(&[self], &GELU)
    }

    /// `x · sigmoid(x)`, also called swish.
    ///
    /// # Panics
    /// If the dtype is not a float.
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        static SILU: LazyLock<Arc<Expr>> = LazyLock::new(|| {
            let x = E::input(0);
            (&x * x.map(PointOp::Sigmoid)).build().into()
        });
        Tensor::map(&[self], &SILU)
    }

    /// `(x − mean) / √(var + eps)` over the last axis, without an affine map.
    ///
    /// # Panics
    /// If the dtype is not a float, or there is no axis.
    #[track_caller]
    pub fn normalize(&self, eps: f64) -> Tensor {
        self.normalized(Axes::new(&[axis_of("normalize", -1, self.rank())]), eps).0
    }

    /// `(x − mean) / √(var + eps)` over some axes, and that mean and variance, in which these stay as dims of 1:
    /// what batch, group and instance normalisation are made of.
    ///
    /// Gradient: of the first through mean and variance too, at once; of the others as of [`Tensor::mean_keepdim`] and
    /// [`Tensor::var_keepdim`].
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[1.0f32, 5.0, 3.0, 7.0], &[2, 2], &device)?;
    /// let [normal, mean, var] = x.normalize_over(&[0], 0.0);
    /// assert_eq!(normal.to_vec::<f32>()?, [-1.0, -1.0, 1.0, 1.0]);
    /// assert_eq!((mean.to_vec::<f32>()?, var.to_vec::<f32>()?), (vec![2.0, 6.0], vec![1.0, 1.0]));
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the dtype is not a float, or an axis is out of range or named twice.
    #[track_caller]
    pub fn normalize_over(&self, axes: &[isize], eps: f64) -> [Tensor; 3] {
        let (normal, [mean, var]) = self.normalized(axes_of("normalize_over", axes, self.rank()), eps);
        [normal, mean, var]
    }

    #[track_caller]
    fn normalized(&self, axes: Axes, eps: f64) -> (Tensor, [Tensor; 2]) {
        let mean = self.mean_over(axes);
        let centred = self - &mean;
        let var = centred.square().mean_over(axes);
        // A step of its own: its gradient then is one a row.
        let out = centred * map(&[&var], &(E::input(0) + eps).map(PointOp::Rsqrt));
        out.node().books().adjoint = Some(Box::new(Adjoint::Normalize { input: self.node().clone(), axes }));
        (out, [mean, var])
    }

    /// The cotangent of what was normalised over axes to this, by a factor for each place beside them:
    /// `(g − mean(g) − x̂ · mean(g · x̂)) · factor`, where `x̂` is this. That `x̂` has no mean is known here, and not to the rules
    /// of its parts, so both means are taken at once.
    pub(crate) fn normalize_grad(&self, axes: Axes, factor: &Tensor, g: &Tensor) -> Tensor {
        let share = |of: &Tensor| -(of.mean_over(axes) * factor);
        g * factor + (self * share(&(g * self)) + share(g))
    }

    /// Whether each element is NaN, as `bool`.
    #[track_caller]
    pub fn is_nan(&self) -> Tensor {
        self.eq(self).logical_not()
    }
}
