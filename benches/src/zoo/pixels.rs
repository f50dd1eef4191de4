//! Convolutional networks with an answer for each pixel: a U-Net, a segmenting network, a denoiser.

use kiln::Result;
use kiln::prelude::*;

use crate::models::ConvNorm;
use crate::row::{Case, Mode, integers};
use crate::training::{Batch, classify, train};

/// Each pixel becomes four, `[n, c, h, w]` → `[n, c, 2h, 2w]`.
fn doubled(x: &Tensor) -> Tensor {
    let &[n, c, h, w] = x.dims() else { panic!("doubled: takes rank 4, got {}", x.shape()) };
    x.reshape(&[n, c, h, 1, w, 1]).expand(&[n, c, h, 2, w, 2]).reshape(&[n, c, 2 * h, 2 * w])
}

/// Down twice and up twice; on the way up a level sees what the way down had there.
///
/// Ronneberger et al. 2015, <https://arxiv.org/abs/1505.04597>, fig. 1.
#[derive(Module)]
struct UNet {
    down1: ConvNorm,
    down2: ConvNorm,
    bottom: ConvNorm,
    up2: ConvNorm,
    up1: ConvNorm,
    head: ConvNorm,
    pool: MaxPool2d,
}

impl UNet {
    fn new(device: &Device) -> UNet {
        let window = |n_in, n_out| ConvNorm::new([n_in, n_out], 3, 1, device);
        UNet {
            down1: window(3, 32),
            down2: window(32, 64),
            bottom: window(64, 128),
            up2: window(128 + 64, 64),
            up1: window(64 + 32, 32),
            head: ConvNorm::new([32, 3], 1, 1, device),
            pool: MaxPool2d::new(2),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let level1 = self.down1.forward(x).relu(); // [n, 32, h, w]
        let level2 = self.down2.forward(&self.pool.forward(&level1)).relu(); // [n, 64, h/2, w/2]
        let x = self.bottom.forward(&self.pool.forward(&level2)).relu(); // [n, 128, h/4, w/4]
        let x = self.up2.forward(&Tensor::cat(&[&doubled(&x), &level2], 1)).relu();
        let x = self.up1.forward(&Tensor::cat(&[&doubled(&x), &level1], 1)).relu();
        self.head.forward(&x)
    }
}

/// An image from an image, 64×64.
pub(super) fn unet(mode: Mode, device: &Device) -> Result<Case> {
    let image = || Tensor::randn(&[8, 3, 64, 64], device);
    let loss = |model: &UNet, (x, target): &Batch| model.forward(x).mse_loss(target);
    train(UNet::new(device), loss, || (image(), image()), (8, "samples/s"), mode)
}

/// Windows that are the wider apart, side by side, then a class for each pixel.
///
/// Chen et al. 2017, <https://arxiv.org/abs/1706.05587>, fig. 5.
#[derive(Module)]
struct DeepLab {
    stem: ConvNorm,
    branches: Vec<ConvNorm>,
    head: ConvNorm,
}

impl DeepLab {
    fn new(device: &Device) -> DeepLab {
        let branch = |dilation| {
            let apart = Conv2dOptions { padding: [dilation; 2], dilation: [dilation; 2], ..Default::default() };
            let conv = Conv2d::with_options(32, 32, [3; 2], apart, device).without_bias();
            ConvNorm { conv, norm: BatchNorm2d::new(32, device) }
        };
        DeepLab {
            stem: ConvNorm::new([3, 32], 3, 2, device),
            branches: [1, 2, 4, 8].map(branch).into(),
            head: ConvNorm::new([4 * 32, 8], 1, 1, device),
        }
    }

    /// Logits `[n, h/2, w/2, 8]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.stem.forward(x).relu();
        let seen: Vec<Tensor> = self.branches.iter().map(|branch| branch.forward(&x).relu()).collect();
        let seen = Tensor::cat(&seen.iter().collect::<Vec<_>>(), 1); // [n, 4 · 32, h/2, w/2]
        self.head.forward(&seen).permute(&[0, 2, 3, 1])
    }
}

/// Dilated convolutions on images of 96×96.
pub(super) fn deeplab(mode: Mode, device: &Device) -> Result<Case> {
    let batch = || (Tensor::randn(&[8, 3, 96, 96], device), integers(&[8, 48, 48], 8, device));
    classify(DeepLab::new(device), DeepLab::forward, batch, (8, "samples/s"), mode)
}

/// Normalises each of eight groups of channels of a sample, `(x − mean) / √(var + eps) · weight + bias`.
///
/// Parameters: `weight [c, 1, 1]` of ones, `bias [c, 1, 1]` of zeros.
///
/// Wu and He 2018, <https://arxiv.org/abs/1803.08494>, eq. 1.
#[derive(Module)]
struct GroupNorm {
    weight: Param,
    bias: Param,
}

impl GroupNorm {
    fn new(n_channels: usize, device: &Device) -> GroupNorm {
        let dims = [n_channels, 1, 1];
        GroupNorm { weight: Param::new(Tensor::ones(&dims, device)), bias: Param::new(Tensor::zeros(&dims, device)) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let groups = x.reshape(&[x.dims()[0], 8, x.numel() / x.dims()[0] / 8]);
        groups.normalize(1e-5).reshape(x.dims()) * self.weight.tensor() + self.bias.tensor()
    }
}

/// A residual block of a diffusion model: normalisation and activation come first.
#[derive(Module)]
struct DenoisingBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
}

impl DenoisingBlock {
    fn new(dim: usize, device: &Device) -> DenoisingBlock {
        DenoisingBlock {
            norm1: GroupNorm::new(dim, device),
            conv1: window([dim, dim], device),
            norm2: GroupNorm::new(dim, device),
            conv2: window([dim, dim], device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.conv1.forward(&self.norm1.forward(x).silu());
        x + self.conv2.forward(&self.norm2.forward(&body).silu())
    }
}

/// A convolution of 3×3 that keeps an image's size.
fn window([n_in, n_out]: [usize; 2], device: &Device) -> Conv2d {
    Conv2d::new(n_in, n_out, 3, device).padding(1).without_bias()
}

/// Tells the noise in an image.
///
/// Ho et al. 2020, <https://arxiv.org/abs/2006.11239>, algorithm 1, at one noise level.
#[derive(Module)]
struct Denoiser {
    stem: Conv2d,
    blocks: Vec<DenoisingBlock>,
    head: Conv2d,
}

impl Denoiser {
    fn new(device: &Device) -> Denoiser {
        Denoiser {
            stem: window([3, 64], device),
            blocks: (0..2).map(|_| DenoisingBlock::new(64, device)).collect(),
            head: window([64, 3], device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.stem.forward(x), |x, block| block.forward(&x));
        self.head.forward(&x)
    }
}

/// A diffusion model's blocks on images of 32×32.
pub(super) fn ddpm(mode: Mode, device: &Device) -> Result<Case> {
    let image = || Tensor::randn(&[8, 3, 32, 32], device);
    let loss = |model: &Denoiser, (x, noise): &Batch| model.forward(x).mse_loss(noise);
    train(Denoiser::new(device), loss, || (image(), image()), (8, "samples/s"), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_keep_or_halve_their_size() {
        let device = Device::cpu();
        let x = Tensor::randn(&[1, 3, 8, 8], &device);
        assert_eq!(UNet::new(&device).forward(&x).dims(), [1, 3, 8, 8]);
        assert_eq!(DeepLab::new(&device).forward(&x).dims(), [1, 4, 4, 8]);
        assert_eq!(Denoiser::new(&device).forward(&x).dims(), [1, 3, 8, 8]);
    }

    #[test]
    fn a_doubled_image_repeats_each_pixel() {
        let x = Tensor::new(&[1.0f32, 2.0], &[1, 1, 1, 2], &Device::cpu()).unwrap();
        let four = doubled(&x);
        assert_eq!(four.dims(), [1, 1, 2, 4]);
        assert_eq!(four.to_vec::<f32>().unwrap(), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    }
}
