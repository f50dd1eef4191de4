//! Transformers and their like over patches of images.

use kiln::Result;
use kiln::prelude::*;

use super::shared::{FeedForward, images, patches};
use crate::models::SelfAttention;
use crate::row::{Case, Mode};
use crate::training::classify;

/// A patch a token, `[n, c, h, w]` → `[n, h · w, c]`.
fn tokens(x: &Tensor) -> Tensor {
    x.flatten(2).transpose(1, 2)
}

/// A transformer's block in which every patch sees all others.
#[derive(Module)]
struct VisionBlock {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    mlp: FeedForward,
}

impl VisionBlock {
    fn new(dim: usize, n_heads: usize, device: &Device) -> VisionBlock {
        VisionBlock {
            norm1: LayerNorm::new(dim, device),
            attention: SelfAttention::new(dim, n_heads, device),
            norm2: LayerNorm::new(dim, device),
            mlp: FeedForward::new(dim, 4 * dim, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.norm1.forward(x), None, false);
        &x + self.mlp.forward(&self.norm2.forward(&x))
    }
}

/// A transformer over patches; the class is that of the mean patch.
///
/// Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>, fig. 1.
#[derive(Module)]
struct VisionTransformer {
    stem: Conv2d,
    positions: Param,
    blocks: Vec<VisionBlock>,
    norm: LayerNorm,
    head: Linear,
}

impl VisionTransformer {
    fn new(device: &Device) -> VisionTransformer {
        let (dim, n_patches) = (192, 64);
        VisionTransformer {
            stem: patches(dim, 4, device),
            positions: Param::new(Tensor::randn(&[n_patches, dim], device)),
            blocks: (0..6).map(|_| VisionBlock::new(dim, 3, device)).collect(),
            norm: LayerNorm::new(dim, device),
            head: Linear::new(dim, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = tokens(&self.stem.forward(x)) + self.positions.tensor(); // [n, t, c]
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        self.head.forward(&self.norm.forward(&x).mean(&[1]))
    }
}

/// Six blocks of 192 on images of 32×32.
pub(super) fn vit(mode: Mode, device: &Device) -> Result<Case> {
    let model = VisionTransformer::new(device);
    classify(model, VisionTransformer::forward, || images(32, 32, device), (32, "samples/s"), mode)
}

/// A block that mixes the patches of each channel, then the channels of each patch.
#[derive(Module)]
struct MixerBlock {
    norm1: LayerNorm,
    of_patches: FeedForward,
    norm2: LayerNorm,
    of_channels: FeedForward,
}

impl MixerBlock {
    fn new(n_patches: usize, dim: usize, device: &Device) -> MixerBlock {
        MixerBlock {
            norm1: LayerNorm::new(dim, device),
            of_patches: FeedForward::new(n_patches, 2 * n_patches, device),
            norm2: LayerNorm::new(dim, device),
            of_channels: FeedForward::new(dim, 4 * dim, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let turned = self.norm1.forward(x).transpose(1, 2); // [n, c, t]
        let x = x + self.of_patches.forward(&turned).transpose(1, 2);
        &x + self.of_channels.forward(&self.norm2.forward(&x))
    }
}

/// Affine layers in the place of attention.
///
/// Tolstikhin et al. 2021, <https://arxiv.org/abs/2105.01601>, fig. 1.
#[derive(Module)]
struct Mixer {
    stem: Conv2d,
    blocks: Vec<MixerBlock>,
    head: Linear,
}

impl Mixer {
    fn new(device: &Device) -> Mixer {
        Mixer {
            stem: patches(128, 4, device),
            blocks: (0..4).map(|_| MixerBlock::new(64, 128, device)).collect(),
            head: Linear::new(128, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = tokens(&self.stem.forward(x));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        self.head.forward(&x.mean(&[1]))
    }
}

/// Four blocks of 128 on images of 32×32.
pub(super) fn mixer(mode: Mode, device: &Device) -> Result<Case> {
    classify(Mixer::new(device), Mixer::forward, || images(32, 32, device), (32, "samples/s"), mode)
}
