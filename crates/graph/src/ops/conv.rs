//! Convolution and pooling over images `[n, c, h, w]`: windows, and a contraction or a reduction over
//! them. The windows are views, so no patch matrix is ever recorded.

use kiln_ir::{Contraction, DType, ReduceOp};

use crate::Tensor;
use crate::node::Adjoint;

/// How a convolution walks over an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv2dOptions {
    /// Distance between two windows.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between two elements of a window.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Conv2dOptions {
        Conv2dOptions { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

/// How a pool walks over an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool2dOptions {
    /// Elements of a window.
    pub size: [usize; 2],
    /// Distance between two windows.
    pub stride: [usize; 2],
    /// Places on each side of the image, at most half a window.
    pub padding: [usize; 2],
}

impl Tensor {
    /// Two-dimensional cross-correlation, as deep learning calls convolution:
    /// `out[n, o, y, x] = Σ in[n, c, y·stride + i·dilation − padding, ..] · weight[o, c, i, j]`.
    ///
    /// Shapes: `[n, c, h, w]`, weight `[o, c / groups, kh, kw]` → `[n, o, h', w']` with
    /// `h' = ⌊(h + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1`.
    /// Dtypes: one float type for both; accumulates in `f32`.
    /// Gradient: both.
    ///
    /// # Panics
    /// If a rank is not 4, channels and groups do not fit, or the window is larger than the image.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, options: Conv2dOptions) -> Tensor {
        let show = || format!("input {}{}, weight {}{}", self.dtype(), self.shape(), weight.dtype(), weight.shape());
        assert!(self.rank() == 4 && weight.rank() == 4, "conv2d: takes ranks of 4: {}", show());
        let (&[n, c, _, _], &[o, c_group, kh, kw]) = (self.dims(), weight.dims()) else { unreachable!("ranks are 4") };
        let g = options.groups;
        assert!(g > 0 && o % g == 0 && c == c_group * g, "conv2d: channels do not fit {g} groups: {}", show());
        let Conv2dOptions { stride, padding, dilation, .. } = options;
        let windows = self.pad2d(padding).unfold(3, kw, stride[1], dilation[1]).unfold(2, kh, stride[0], dilation[0]);
        // [n, c, oh, kh, ow, kw] → [g, c/g, kh, kw, n, oh, ow]: all images are columns of one matrix.
        let (oh, ow) = (windows.dims()[2], windows.dims()[4]);
        let windows = windows.reshape(&[n, g, c_group, oh, kh, ow, kw]).permute(&[1, 2, 4, 6, 0, 3, 5]);
        let rows = weight.reshape(&[g, o / g, c_group, kh, kw]);
        let out = rows.contract(&windows, Contraction { batch: 1, m: 1, n: 3, k: 3 });
        // With larger strides most of the convolution back would be of zeros.
        if options.stride == [1, 1] {
            let (image, weight) = (self.node().clone(), weight.node().clone());
            out.node().books().adjoint = Some(Box::new(Adjoint::Conv { image, weight, options }));
        }
        out.permute(&[2, 0, 1, 3, 4]).reshape(&[n, o, oh, ow])
    }

    /// The cotangent of the image behind a convolution with stride 1: a convolution of `g` with the weight
    /// turned around, `Σ g[n, o, y + padding − i·dilation, ..] · weight[o, c, i, j]`.
    ///
    /// Shapes: `g [groups, o / groups, n, h', w']` → this image's.
    #[track_caller]
    pub(crate) fn conv2d_input_grad(&self, weight: &Tensor, g: &Tensor, options: Conv2dOptions) -> Tensor {
        let (&[n, c, h, w], &[o, c_group, kh, kw]) = (self.dims(), weight.dims()) else { unreachable!("ranks are 4") };
        let groups = options.groups;
        let turned = weight.reshape(&[groups, o / groups, c_group, kh, kw]).permute(&[0, 2, 1, 3, 4]).flip(3).flip(4);
        let turned = turned.reshape(&[c, o / groups, kh, kw]);
        let (oh, ow) = (g.dims()[3], g.dims()[4]);
        let mut padded = g.permute(&[2, 0, 1, 3, 4]).reshape(&[n, o, oh, ow]);
        for (axis, size, dim) in [(2, kh, h), (3, kw, w)] {
            // The windows of row `y` begin at output row `y + padding − (size − 1)·dilation`.
            let reach = options.dilation[axis - 2] * (size - 1);
            let start = options.padding[axis - 2] as isize - reach as isize;
            let (before, cut) = (start.min(0).unsigned_abs(), start.max(0) as usize);
            let dim_out = padded.dims()[axis];
            let after = (dim + reach + cut).saturating_sub(before + dim_out);
            let all = padded.pad(axis as isize, before, after);
            padded = all.slice(axis as isize, cut..cut + dim + reach);
        }
        padded.conv2d(&turned, Conv2dOptions { stride: [1; 2], padding: [0; 2], ..options })
    }

    /// Zeros around an image.
    #[track_caller]
    fn pad2d(&self, [h, w]: [usize; 2]) -> Tensor {
        self.pad(2, h, h).pad(3, w, w)
    }

    /// Windows of an image with a number around it: `[n, c, h, w]` → `[n, c, h', kh, w', kw]`.
    #[track_caller]
    fn windows2d(&self, op: &str, options: Pool2dOptions, around: f64) -> Tensor {
        assert!(self.rank() == 4, "{op}: takes rank 4, got {}{}", self.dtype(), self.shape());
        let Pool2dOptions { size: [kh, kw], stride, padding } = options;
        let fits = 2 * padding[0] <= kh && 2 * padding[1] <= kw;
        assert!(fits, "{op}: padding {padding:?} is more than half of a window {:?}", options.size);
        let mut image = self.pad2d(padding);
        if padding != [0; 2] && around != 0.0 {
            // As a sum, which has no part in gradients; −0 is what changes no number, not even 0.
            let number = |x: f64| Tensor::full(&[], x, self.dtype(), self.device());
            let inside = Tensor::full(self.dims(), 1.0, DType::Bool, self.device()).pad2d(padding);
            image = image + inside.select(&number(-0.0), &number(around));
        }
        image.unfold(3, kw, stride[1], 1).unfold(2, kh, stride[0], 1)
    }

    /// Greatest of each window; the image's surroundings are less than any element. Gradient: to the first greatest.
    ///
    /// Shapes: `[n, c, h, w]` → `[n, c, ⌊(h + 2·padding − kh) / stride⌋ + 1, ..]`.
    ///
    /// # Panics
    /// If the rank is not 4, the padding is more than half a window, or the window is larger than the padded image.
    #[track_caller]
    pub fn max_pool2d(&self, options: Pool2dOptions) -> Tensor {
        let least = ReduceOp::Max.identity(self.dtype());
        let windows = self.windows2d("max_pool2d", options, least).permute(&[0, 1, 2, 4, 3, 5]);
        // As one axis: the gradient asks for the place in each, and may do so on the same walk.
        let flat = windows.reshape(&[&windows.dims()[..4], &[options.size.iter().product()]].concat());
        flat.reduce(ReduceOp::Max, &[4]).squeeze(4)
    }

    /// Mean of each window, in which padding counts as zeros.
    ///
    /// Shapes: as [`Tensor::max_pool2d`].
    ///
    /// # Panics
    /// As [`Tensor::max_pool2d`].
    #[track_caller]
    pub fn avg_pool2d(&self, options: Pool2dOptions) -> Tensor {
        self.windows2d("avg_pool2d", options, 0.0).mean(&[3, 5])
    }
}
