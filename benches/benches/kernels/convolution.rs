//! Convolutions of images: forward and both gradients, each alone.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Flops};

/// A convolution: `n` images `[c, side, side]`, `o` windows of `size × size`.
#[derive(Clone, Copy)]
struct Layer {
    n: usize,
    c: usize,
    o: usize,
    side: usize,
    size: usize,
    stride: usize,
    groups: usize,
}

impl Layer {
    fn image(self) -> [usize; 4] {
        [self.n, self.c, self.side, self.side]
    }

    fn weight(self) -> [usize; 4] {
        [self.o, self.c / self.groups, self.size, self.size]
    }

    /// As large as the image, over the stride.
    fn out(self) -> [usize; 4] {
        let side = self.side.div_ceil(self.stride);
        [self.n, self.o, side, side]
    }

    fn options(self) -> Conv2dOptions {
        let padding = [self.size / 2; 2];
        Conv2dOptions { stride: [self.stride; 2], padding, groups: self.groups, ..Conv2dOptions::default() }
    }

    /// Of the forward pass, and of each gradient.
    fn flops(self) -> usize {
        let window: usize = self.weight()[1..].iter().product();
        2 * self.out().iter().product::<usize>() * window
    }
}

/// Layers as ResNets and MobileNets have them.
const LAYERS: [(&str, Layer); 9] = [
    ("3x3_small", Layer { n: 1, c: 16, o: 16, side: 14, size: 3, stride: 1, groups: 1 }),
    ("3x3", Layer { n: 8, c: 64, o: 64, side: 56, size: 3, stride: 1, groups: 1 }),
    ("3x3_many_channels", Layer { n: 32, c: 256, o: 256, side: 8, size: 3, stride: 1, groups: 1 }),
    ("3x3_few_tiles", Layer { n: 32, c: 512, o: 512, side: 4, size: 3, stride: 1, groups: 1 }),
    ("3x3_strided", Layer { n: 8, c: 64, o: 128, side: 56, size: 3, stride: 2, groups: 1 }),
    ("7x7_strided_rgb", Layer { n: 4, c: 3, o: 64, side: 112, size: 7, stride: 2, groups: 1 }),
    ("1x1", Layer { n: 8, c: 256, o: 64, side: 28, size: 1, stride: 1, groups: 1 }),
    ("depthwise", Layer { n: 8, c: 64, o: 64, side: 56, size: 3, stride: 1, groups: 64 }),
    ("depthwise_strided", Layer { n: 8, c: 64, o: 64, side: 56, size: 3, stride: 2, groups: 64 }),
];

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "convolution");
    for (name, layer) in LAYERS {
        let options = layer.options();
        family.computing(&format!("forward_{name}"), Flops(layer.flops()), |device| {
            let [x, weight] = normals([&layer.image(), &layer.weight()], device)?;
            Ok(move || x.conv2d(&weight, options))
        });
        let mut gradient = |what: &str, of_weight: bool| {
            family.computing(&format!("{what}_{name}"), Flops(layer.flops()), |device| {
                let [x, weight, cotangent] = normals([&layer.image(), &layer.weight(), &layer.out()], device)?;
                Ok(move || {
                    let of = if of_weight { &weight } else { &x };
                    x.conv2d(&weight, options).vjp(&cotangent, &[of])
                })
            });
        };
        gradient("data_grad", false);
        gradient("weight_grad", true);
    }
}
