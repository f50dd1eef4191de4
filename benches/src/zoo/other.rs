//! Networks of affine layers, and what is peculiar to each: its tables, its features, its loss.

use kiln::Result;
use kiln::prelude::*;

use super::shared::FeedForward;
use crate::models::Mlp;
use crate::row::{Case, Mode, integers};
use crate::training::{Batch, classified, classify, train};

/// A recommender: a few numbers and one entry of each table tell whether somebody clicks.
///
/// Naumov et al. 2019, <https://arxiv.org/abs/1906.00091>, fig. 1, with the parts side by side instead of multiplied.
#[derive(Module)]
struct Dlrm {
    numbers: Mlp,
    tables: Vec<Embedding>,
    head: Mlp,
}

/// Numbers `[b, 13]`, an entry of each table `[tables, b]`, and clicks `[b]`.
type Visits = (Tensor, Tensor, Tensor);

impl Dlrm {
    fn new(n_tables: usize, n_entries: usize, device: &Device) -> Dlrm {
        let dim = 16;
        Dlrm {
            numbers: Mlp::new(&[13, 64, dim], device),
            tables: (0..n_tables).map(|_| Embedding::new(n_entries, dim, device)).collect(),
            head: Mlp::new(&[(1 + n_tables) * dim, 128, 64, 2], device),
        }
    }

    fn loss(&self, (numbers, entries, clicks): &Visits) -> Tensor {
        let mut parts = vec![self.numbers.forward(numbers).relu()];
        let found = |(n, table): (usize, &Embedding)| table.forward(&entries.slice(0, n..n + 1).squeeze(0));
        parts.extend(self.tables.iter().enumerate().map(found));
        let x = Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1); // [b, (1 + tables) · dim]
        self.head.forward(&x).cross_entropy(clicks)
    }
}

/// Eight tables of ten thousand.
pub(super) fn dlrm(mode: Mode, device: &Device) -> Result<Case> {
    let (n, n_tables, n_entries) = (2048, 8, 10_000);
    let batch = || {
        let entries = integers(&[n_tables, n], n_entries, device);
        (Tensor::randn(&[n, 13], device), entries, integers(&[n], 2, device))
    };
    train(Dlrm::new(n_tables, n_entries, device), Dlrm::loss, batch, (n, "samples/s"), mode)
}

/// A point with sines and cosines of it at ten frequencies, `[n, 3]` → `[n, 63]`.
///
/// Mildenhall et al. 2020, <https://arxiv.org/abs/2003.08934>, eq. 4, with 1 in the place of π.
fn waves(point: &Tensor) -> Tensor {
    let of_frequency = |n: i32| {
        let angle = point * 2f64.powi(n);
        [angle.sin(), angle.cos()]
    };
    let waves: Vec<Tensor> = std::iter::once(point.clone()).chain((0..10).flat_map(of_frequency)).collect();
    Tensor::cat(&waves.iter().collect::<Vec<_>>(), 1)
}

/// Colour and density of points in space.
pub(super) fn nerf(mode: Mode, device: &Device) -> Result<Case> {
    let n = 8192;
    let batch = || (Tensor::randn(&[n, 3], device), Tensor::randn(&[n, 4], device));
    let loss = |model: &Mlp, (point, target): &Batch| model.forward(&waves(point)).mse_loss(target);
    train(Mlp::new(&[63, 128, 128, 128, 4], device), loss, batch, (n, "samples/s"), mode)
}

/// A node becomes the sum of its neighbours, twice.
///
/// Kipf and Welling 2016, <https://arxiv.org/abs/1609.02907>, eq. 2, without weights of edges.
#[derive(Module)]
struct Gcn {
    layers: Vec<Linear>,
    head: Linear,
}

/// Nodes `[n, c]`, where each edge begins and ends, and classes `[n]`.
type Graph = (Tensor, Tensor, Tensor, Tensor);

impl Gcn {
    fn new(dim: usize, device: &Device) -> Gcn {
        Gcn { layers: (0..2).map(|_| Linear::new(dim, dim, device)).collect(), head: Linear::new(dim, 10, device) }
    }

    fn loss(&self, (nodes, from, to, classes): &Graph) -> Tensor {
        let n_nodes = nodes.dims()[0];
        let layer = |x: Tensor, layer: &Linear| {
            let sent = layer.forward(&x).index_select(0, from); // [edges, c]
            to.scatter_add(0, n_nodes, &sent).relu()
        };
        self.head.forward(&self.layers.iter().fold(nodes.clone(), layer)).cross_entropy(classes)
    }
}

/// Ten thousand nodes with ten edges each.
pub(super) fn gcn(mode: Mode, device: &Device) -> Result<Case> {
    let (n_nodes, n_edges, dim) = (10_000, 100_000, 64);
    let batch = || {
        let ends = || integers(&[n_edges], n_nodes, device);
        let (nodes, classes) = classified(&[n_nodes, dim], 10, device);
        (nodes, ends(), ends(), classes)
    };
    train(Gcn::new(dim, device), Gcn::loss, batch, (1, "steps/s"), mode)
}

/// An autoencoder whose code is a distribution.
///
/// Kingma and Welling 2013, <https://arxiv.org/abs/1312.6114>, eq. 10 and appendix C.
#[derive(Module)]
struct Vae {
    encoder: Linear,
    mean: Linear,
    log_variance: Linear,
    decoder: Mlp,
}

impl Vae {
    fn new(device: &Device) -> Vae {
        Vae {
            encoder: Linear::new(784, 400, device),
            mean: Linear::new(400, 20, device),
            log_variance: Linear::new(400, 20, device),
            decoder: Mlp::new(&[20, 400, 784], device),
        }
    }

    /// Cross-entropy of the pixels and divergence of the code, a sample.
    fn loss(&self, x: &Tensor) -> Tensor {
        let hidden = self.encoder.forward(x).relu();
        let (mean, log_variance) = (self.mean.forward(&hidden), self.log_variance.forward(&hidden));
        let noise = Tensor::randn(mean.dims(), x.device());
        let code = &mean + (&log_variance * 0.5).exp() * noise;
        let pixels = self.decoder.forward(&code).sigmoid();
        let likelihood = x * (&pixels + 1e-7).log() + (1.0 - x) * (1.0 - &pixels + 1e-7).log();
        let divergence = (mean.square() + log_variance.exp() - &log_variance - 1.0) * 0.5;
        (divergence.sum_all() - likelihood.sum_all()) / x.dims()[0] as f64
    }
}

/// Images of 28×28 in 20 numbers.
pub(super) fn vae(mode: Mode, device: &Device) -> Result<Case> {
    let batch = || Tensor::uniform(&[128, 784], 0.0, 1.0, device);
    train(Vae::new(device), Vae::loss, batch, (128, "samples/s"), mode)
}

/// Images and texts that belong together shall lie together.
///
/// Radford et al. 2021, <https://arxiv.org/abs/2103.00020>, fig. 3, with features in the place of both encoders.
#[derive(Module)]
struct Clip {
    image: Mlp,
    text: Mlp,
}

impl Clip {
    fn new(device: &Device) -> Clip {
        Clip { image: Mlp::new(&[512, 512, 128], device), text: Mlp::new(&[300, 512, 128], device) }
    }

    fn loss(&self, (images, texts): &(Tensor, Tensor)) -> Tensor {
        let (images, texts) = (unit(&self.image.forward(images)), unit(&self.text.forward(texts)));
        let logits = images.matmul(&texts.t()) * 14.0; // [n, n]
        let own = Tensor::iota(&logits.dims()[..1], 0, logits.device());
        (logits.cross_entropy(&own) + logits.t().cross_entropy(&own)) * 0.5
    }
}

/// Rows of length 1.
fn unit(x: &Tensor) -> Tensor {
    x * (x.square().sum_keepdim(&[1]) + 1e-12).rsqrt()
}

/// 256 pairs of an image and a text.
pub(super) fn clip(mode: Mode, device: &Device) -> Result<Case> {
    let n = 256;
    let batch = || (Tensor::randn(&[n, 512], device), Tensor::randn(&[n, 300], device));
    train(Clip::new(device), Clip::loss, batch, (n, "samples/s"), mode)
}

/// A mixture of experts, all of which are asked.
///
/// Jacobs et al. 1991, <https://doi.org/10.1162/neco.1991.3.1.79>.
#[derive(Module)]
struct Experts {
    gate: Linear,
    experts: Vec<FeedForward>,
    head: Linear,
}

impl Experts {
    fn new(n_experts: usize, dim: usize, device: &Device) -> Experts {
        Experts {
            gate: Linear::new(dim, n_experts, device),
            experts: (0..n_experts).map(|_| FeedForward::new(dim, 2 * dim, device)).collect(),
            head: Linear::new(dim, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let shares = self.gate.forward(x).softmax(1); // [n, experts]
        let add = |sum: Tensor, (n, expert): (usize, &FeedForward)| sum + expert.forward(x) * shares.slice(1, n..n + 1);
        self.head.forward(&self.experts.iter().enumerate().fold(x.clone(), add))
    }
}

/// Eight experts of 128.
pub(super) fn moe(mode: Mode, device: &Device) -> Result<Case> {
    let batch = || classified(&[1024, 128], 10, device);
    classify(Experts::new(8, 128, device), Experts::forward, batch, (1024, "samples/s"), mode)
}

/// What each of six actions is worth, seen from four frames.
///
/// Mnih et al. 2015, <https://doi.org/10.1038/nature14236>, extended data table 1.
#[derive(Module)]
struct Dqn {
    convs: [Conv2d; 3],
    head: Mlp,
}

/// Frames `[n, 4, 84, 84]`, the actions taken `[n, 1]`, and what they turned out to be worth `[n]`.
type Plays = (Tensor, Tensor, Tensor);

impl Dqn {
    fn new(device: &Device) -> Dqn {
        let conv = |(n_in, n_out, size, stride)| Conv2d::new(n_in, n_out, size, device).stride(stride).without_bias();
        Dqn {
            convs: [(4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)].map(conv),
            head: Mlp::new(&[64 * 7 * 7, 512, 6], device),
        }
    }

    /// Huber's loss, which is a square near 0 and a line elsewhere.
    fn loss(&self, (frames, actions, worth): &Plays) -> Tensor {
        let x = self.convs.iter().fold(frames.clone(), |x, conv| conv.forward(&x).relu());
        let guess = self.head.forward(&x.flatten(1)).gather(1, actions).squeeze(1); // [n]
        let error = (guess - worth).abs();
        error.lt(1.0).select(&(error.square() * 0.5), &(&error - 0.5)).mean_all()
    }
}

/// Frames of 84×84.
pub(super) fn dqn(mode: Mode, device: &Device) -> Result<Case> {
    let n = 32;
    let batch = || {
        let frames = Tensor::randn(&[n, 4, 84, 84], device);
        (frames, integers(&[n, 1], 6, device), Tensor::randn(&[n], device))
    };
    train(Dqn::new(device), Dqn::loss, batch, (n, "samples/s"), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_63_features() {
        assert_eq!(waves(&Tensor::zeros(&[5, 3], &Device::cpu())).dims(), [5, 63]);
    }

    #[test]
    fn pairs_that_cannot_be_told_apart_are_guessed() {
        let device = Device::cpu();
        let alike = (Tensor::ones(&[4, 512], &device), Tensor::ones(&[4, 300], &device));
        let loss = Clip::new(&device).loss(&alike).item().unwrap();
        assert!((loss - 4f64.ln()).abs() < 1e-4, "{loss}");
    }
}
