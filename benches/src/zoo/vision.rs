//! Convolutional networks with one answer for an image: what each adds to a plain stack of convolutions is its block.

use kiln::Result;
use kiln::prelude::*;

use super::shared::{FeedForward, images, patches};
use crate::models::{ConvNorm, Mlp};
use crate::row::{Case, Mode};
use crate::training::classify;

/// A convolution in groups of channels and its batch normalisation; as many channels come out as go in.
fn grouped(n_channels: usize, n_groups: usize, size: usize, stride: usize, device: &Device) -> ConvNorm {
    let groups = Conv2dOptions { stride: [stride; 2], padding: [size / 2; 2], groups: n_groups, ..Default::default() };
    let conv = Conv2d::with_options(n_channels, n_channels, [size; 2], groups, device).without_bias();
    ConvNorm { conv, norm: BatchNorm2d::new(n_channels, device) }
}

/// The mean of each channel, `[n, c, h, w]` → `[n, c]`.
fn pooled(x: &Tensor) -> Tensor {
    x.mean(&[2, 3])
}

/// The residual block that works on few channels and gives four times as many.
///
/// He et al. 2015, <https://arxiv.org/abs/1512.03385>, fig. 5.
#[derive(Module)]
struct Bottleneck {
    narrow: ConvNorm,
    window: ConvNorm,
    wide: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl Bottleneck {
    fn new(n_in: usize, width: usize, stride: usize, device: &Device) -> Bottleneck {
        let n_out = 4 * width;
        Bottleneck {
            narrow: ConvNorm::new([n_in, width], 1, 1, device),
            window: ConvNorm::new([width, width], 3, stride, device),
            wide: ConvNorm::new([width, n_out], 1, 1, device),
            shortcut: (n_in != n_out).then(|| ConvNorm::new([n_in, n_out], 1, stride, device)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.window.forward(&self.narrow.forward(x).relu()).relu();
        let body = self.wide.forward(&body);
        match &self.shortcut {
            Some(shortcut) => (body + shortcut.forward(x)).relu(),
            None => (body + x).relu(),
        }
    }
}

/// The first two stages of ResNet-50, two blocks each.
#[derive(Module)]
struct ResNet50 {
    stem: ConvNorm,
    pool: MaxPool2d,
    blocks: Vec<Bottleneck>,
    head: Linear,
}

impl ResNet50 {
    fn new(device: &Device) -> ResNet50 {
        let blocks = [(64, 64, 1), (256, 64, 1), (256, 128, 2), (512, 128, 1)];
        ResNet50 {
            stem: ConvNorm::new([3, 64], 7, 2, device),
            pool: MaxPool2d::new(3).stride(2).padding(1),
            blocks: blocks.map(|(n_in, width, stride)| Bottleneck::new(n_in, width, stride, device)).into(),
            head: Linear::new(512, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.pool.forward(&self.stem.forward(x).relu());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// ResNet-50's blocks on images of 112×112.
pub(super) fn resnet50(mode: Mode, device: &Device) -> Result<Case> {
    classify(ResNet50::new(device), ResNet50::forward, || images(8, 112, device), (8, "samples/s"), mode)
}

/// A convolution of each channel alone, then one of each pixel alone.
///
/// Howard et al. 2017, <https://arxiv.org/abs/1704.04861>, fig. 3.
#[derive(Module)]
struct Separable {
    depthwise: ConvNorm,
    pointwise: ConvNorm,
}

impl Separable {
    fn new([n_in, n_out]: [usize; 2], stride: usize, device: &Device) -> Separable {
        let depthwise = grouped(n_in, n_in, 3, stride, device);
        Separable { depthwise, pointwise: ConvNorm::new([n_in, n_out], 1, 1, device) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        relu6(&self.pointwise.forward(&relu6(&self.depthwise.forward(x))))
    }
}

/// `min(max(x, 0), 6)`.
fn relu6(x: &Tensor) -> Tensor {
    x.relu().minimum(6.0)
}

/// The first half of MobileNet.
#[derive(Module)]
struct MobileNet {
    stem: ConvNorm,
    blocks: Vec<Separable>,
    head: Linear,
}

impl MobileNet {
    fn new(device: &Device) -> MobileNet {
        let blocks = [([32, 64], 1), ([64, 128], 2), ([128, 128], 1), ([128, 256], 2), ([256, 256], 1)];
        MobileNet {
            stem: ConvNorm::new([3, 32], 3, 2, device),
            blocks: blocks.map(|(channels, stride)| Separable::new(channels, stride, device)).into(),
            head: Linear::new(256, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(relu6(&self.stem.forward(x)), |x, block| block.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// Depthwise convolutions on images of 96×96.
pub(super) fn mobilenet(mode: Mode, device: &Device) -> Result<Case> {
    classify(MobileNet::new(device), MobileNet::forward, || images(16, 96, device), (16, "samples/s"), mode)
}

/// Pairs of convolutions with a pool after each pair.
///
/// Simonyan and Zisserman 2014, <https://arxiv.org/abs/1409.1556>, table 1.
#[derive(Module)]
struct Vgg {
    convs: Vec<ConvNorm>,
    pool: MaxPool2d,
    head: Mlp,
}

impl Vgg {
    fn new(device: &Device) -> Vgg {
        let widths = [3, 64, 64, 128, 128, 256, 256];
        Vgg {
            convs: widths.windows(2).map(|w| ConvNorm::new([w[0], w[1]], 3, 1, device)).collect(),
            pool: MaxPool2d::new(2),
            head: Mlp::new(&[256 * 4 * 4, 512, 10], device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let of_pair = |x: Tensor, pair: &[ConvNorm]| {
            let x = pair.iter().fold(x, |x, conv| conv.forward(&x).relu());
            self.pool.forward(&x)
        };
        self.head.forward(&self.convs.chunks(2).fold(x.clone(), of_pair).flatten(1))
    }
}

/// Six convolutions and three pools on images of 32×32.
pub(super) fn vgg(mode: Mode, device: &Device) -> Result<Case> {
    classify(Vgg::new(device), Vgg::forward, || images(32, 32, device), (32, "samples/s"), mode)
}

/// A layer that adds a few channels to all before it.
#[derive(Module)]
struct DenseLayer {
    norm: BatchNorm2d,
    conv: Conv2d,
}

impl DenseLayer {
    fn new(n_in: usize, n_new: usize, device: &Device) -> DenseLayer {
        let conv = Conv2d::new(n_in, n_new, 3, device).padding(1).without_bias();
        DenseLayer { norm: BatchNorm2d::new(n_in, device), conv }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        Tensor::cat(&[x, &self.conv.forward(&self.norm.forward(x).relu())], 1)
    }
}

/// One dense block, in which every layer sees all before it.
///
/// Huang et al. 2016, <https://arxiv.org/abs/1608.06993>, fig. 1.
#[derive(Module)]
struct DenseNet {
    stem: ConvNorm,
    layers: Vec<DenseLayer>,
    head: Linear,
}

impl DenseNet {
    fn new(device: &Device) -> DenseNet {
        let (n_layers, n_first, n_new) = (6, 32, 16);
        DenseNet {
            stem: ConvNorm::new([3, n_first], 3, 1, device),
            layers: (0..n_layers).map(|n| DenseLayer::new(n_first + n * n_new, n_new, device)).collect(),
            head: Linear::new(n_first + n_layers * n_new, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.layers.iter().fold(self.stem.forward(x).relu(), |x, layer| layer.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// Six layers that each add 16 channels, on images of 32×32.
pub(super) fn densenet(mode: Mode, device: &Device) -> Result<Case> {
    classify(DenseNet::new(device), DenseNet::forward, || images(16, 32, device), (16, "samples/s"), mode)
}

/// The residual block whose window works in groups of channels.
///
/// Xie et al. 2016, <https://arxiv.org/abs/1611.05431>, fig. 3c.
#[derive(Module)]
struct GroupedBlock {
    wide: ConvNorm,
    window: ConvNorm,
    narrow: ConvNorm,
}

impl GroupedBlock {
    fn new(dim: usize, width: usize, n_groups: usize, device: &Device) -> GroupedBlock {
        GroupedBlock {
            wide: ConvNorm::new([dim, width], 1, 1, device),
            window: grouped(width, n_groups, 3, 1, device),
            narrow: ConvNorm::new([width, dim], 1, 1, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.window.forward(&self.wide.forward(x).relu()).relu();
        (x + self.narrow.forward(&body)).relu()
    }
}

/// Three grouped blocks of one stage.
#[derive(Module)]
struct ResNext {
    stem: ConvNorm,
    blocks: Vec<GroupedBlock>,
    head: Linear,
}

impl ResNext {
    fn new(device: &Device) -> ResNext {
        ResNext {
            stem: ConvNorm::new([3, 64], 3, 1, device),
            blocks: (0..3).map(|_| GroupedBlock::new(64, 128, 16, device)).collect(),
            head: Linear::new(64, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.stem.forward(x).relu(), |x, block| block.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// Convolutions in 16 groups on images of 32×32.
pub(super) fn resnext(mode: Mode, device: &Device) -> Result<Case> {
    classify(ResNext::new(device), ResNext::forward, || images(16, 32, device), (16, "samples/s"), mode)
}

/// An inverted residual block with squeeze and excitation: each channel is weighted by what all of them hold on average.
///
/// Tan and Le 2019, <https://arxiv.org/abs/1905.11946>, section 4.
#[derive(Module)]
struct Excited {
    wide: ConvNorm,
    depthwise: ConvNorm,
    squeeze: Conv2d,
    excite: Conv2d,
    narrow: ConvNorm,
}

impl Excited {
    fn new(dim: usize, width: usize, device: &Device) -> Excited {
        let pixelwise = |n_in, n_out| Conv2d::new(n_in, n_out, 1, device).without_bias();
        Excited {
            wide: ConvNorm::new([dim, width], 1, 1, device),
            depthwise: grouped(width, width, 5, 1, device),
            squeeze: pixelwise(width, dim / 4),
            excite: pixelwise(dim / 4, width),
            narrow: ConvNorm::new([width, dim], 1, 1, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.depthwise.forward(&self.wide.forward(x).silu()).silu();
        let mean = body.mean_keepdim(&[2, 3]); // [n, c, 1, 1]
        let weight = self.excite.forward(&self.squeeze.forward(&mean).silu()).sigmoid();
        x + self.narrow.forward(&(body * weight))
    }
}

/// Three excited blocks of one stage.
#[derive(Module)]
struct EfficientNet {
    stem: ConvNorm,
    blocks: Vec<Excited>,
    head: Linear,
}

impl EfficientNet {
    fn new(device: &Device) -> EfficientNet {
        EfficientNet {
            stem: ConvNorm::new([3, 32], 3, 2, device),
            blocks: (0..3).map(|_| Excited::new(32, 128, device)).collect(),
            head: Linear::new(32, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.stem.forward(x).silu(), |x, block| block.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// Squeeze and excitation on images of 64×64.
pub(super) fn efficientnet(mode: Mode, device: &Device) -> Result<Case> {
    classify(EfficientNet::new(device), EfficientNet::forward, || images(16, 64, device), (16, "samples/s"), mode)
}

/// A transformer's block with a large depthwise window in the place of attention.
///
/// Liu et al. 2022, <https://arxiv.org/abs/2201.03545>, fig. 4.
#[derive(Module)]
struct ConvNextBlock {
    depthwise: Conv2d,
    norm: LayerNorm,
    mlp: FeedForward,
}

impl ConvNextBlock {
    fn new(dim: usize, device: &Device) -> ConvNextBlock {
        let window = Conv2dOptions { padding: [3; 2], groups: dim, ..Default::default() };
        ConvNextBlock {
            depthwise: Conv2d::with_options(dim, dim, [7; 2], window, device).without_bias(),
            norm: LayerNorm::new(dim, device),
            mlp: FeedForward::new(dim, 4 * dim, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.depthwise.forward(x).permute(&[0, 2, 3, 1]); // [n, h, w, c]
        x + self.mlp.forward(&self.norm.forward(&body)).permute(&[0, 3, 1, 2])
    }
}

/// Four blocks of one stage.
#[derive(Module)]
struct ConvNext {
    stem: Conv2d,
    blocks: Vec<ConvNextBlock>,
    head: Linear,
}

impl ConvNext {
    fn new(device: &Device) -> ConvNext {
        ConvNext {
            stem: patches(96, 2, device),
            blocks: (0..4).map(|_| ConvNextBlock::new(96, device)).collect(),
            head: Linear::new(96, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.stem.forward(x), |x, block| block.forward(&x));
        self.head.forward(&pooled(&x))
    }
}

/// Windows of 7×7 on images of 32×32.
pub(super) fn convnext(mode: Mode, device: &Device) -> Result<Case> {
    classify(ConvNext::new(device), ConvNext::forward, || images(16, 32, device), (16, "samples/s"), mode)
}
