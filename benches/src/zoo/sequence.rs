//! Transformers over tokens, and from one sequence of tokens to another.

use kiln::Result;
use kiln::prelude::*;

use super::shared::parts;
use crate::models::{Mlp, SelfAttention};
use crate::row::{Case, Mode, integers};
use crate::training::{classify, train};

/// `[b, t, h · d]` → `[b, h, t, d]`.
fn heads(x: &Tensor, n_heads: usize) -> Tensor {
    let &[b, t, c] = x.dims() else { panic!("heads: takes rank 3, got {}", x.shape()) };
    x.reshape(&[b, t, n_heads, c / n_heads]).transpose(1, 2)
}

/// `[b, h, t, d]` → `[b, t, h · d]`.
fn joined(x: &Tensor) -> Tensor {
    let &[b, h, t, d] = x.dims() else { panic!("joined: takes rank 4, got {}", x.shape()) };
    x.transpose(1, 2).reshape(&[b, t, h * d])
}

/// `x / √(mean x² + eps) · weight` over the last axis.
///
/// Parameters: `weight [d]` of ones.
///
/// Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>, eq. 4.
#[derive(Module)]
struct RmsNorm {
    weight: Param,
}

impl RmsNorm {
    fn new(dim: usize, device: &Device) -> RmsNorm {
        RmsNorm { weight: Param::new(Tensor::ones(&[dim], device)) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x * (x.square().mean_keepdim(&[-1]) + 1e-5).rsqrt() * self.weight.tensor()
    }
}

/// Turns each pair of numbers of a head by an angle that grows with the position.
///
/// Su et al. 2021, <https://arxiv.org/abs/2104.09864>, eq. 34; number `i` is paired with number `i + d/2`.
#[derive(Module)]
struct Rotary {
    cos: State,
    sin: State,
}

impl Rotary {
    /// For heads of dim `d` and as many positions as `t`.
    fn new(t: usize, d: usize, device: &Device) -> Rotary {
        let position = Tensor::iota(&[t, 1], 0, device).cast(DType::F32);
        let pair = Tensor::iota(&[1, d / 2], 1, device).cast(DType::F32);
        let angle = position * (pair * (-2.0 * 10000f64.ln() / d as f64)).exp(); // [t, d/2]
        let angle = Tensor::cat(&[&angle, &angle], 1);
        Rotary { cos: State::new(angle.cos()), sin: State::new(angle.sin()) }
    }

    /// `[b, h, t, d]` → the same.
    fn turned(&self, x: &Tensor) -> Tensor {
        let [first, second] = parts(x);
        x * self.cos.get() + Tensor::cat(&[&-second, &first], -1) * self.sin.get()
    }
}

/// A block of Llama: positions are angles, one half of the wide layer gates the other, and nothing has a bias.
#[derive(Module)]
struct LlamaBlock {
    n_heads: usize,
    norm1: RmsNorm,
    qkv: Linear,
    out: Linear,
    norm2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl LlamaBlock {
    fn new(dim: usize, n_heads: usize, hidden: usize, device: &Device) -> LlamaBlock {
        let linear = |n_in, n_out| Linear::without_bias(n_in, n_out, device);
        LlamaBlock {
            n_heads,
            norm1: RmsNorm::new(dim, device),
            qkv: linear(dim, 3 * dim),
            out: linear(dim, dim),
            norm2: RmsNorm::new(dim, device),
            gate: linear(dim, hidden),
            up: linear(dim, hidden),
            down: linear(hidden, dim),
        }
    }

    fn forward(&self, x: &Tensor, rotary: &Rotary) -> Tensor {
        let [q, k, v] = parts(&self.qkv.forward(&self.norm1.forward(x))).map(|part| heads(&part, self.n_heads));
        let mixed = rotary.turned(&q).scaled_dot_product_attention(&rotary.turned(&k), &v, None, true);
        let x = x + self.out.forward(&joined(&mixed));
        let normed = self.norm2.forward(&x);
        let hidden = self.gate.forward(&normed).silu() * self.up.forward(&normed);
        x + self.down.forward(&hidden)
    }
}

/// A language model in Llama's form.
///
/// Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>, section 2.2.
#[derive(Module)]
struct Llama {
    tokens: Embedding,
    rotary: Rotary,
    blocks: Vec<LlamaBlock>,
    norm: RmsNorm,
    head: Linear,
}

impl Llama {
    fn new(vocab: usize, context: usize, device: &Device) -> Llama {
        let (dim, n_heads) = (256, 4);
        Llama {
            tokens: Embedding::new(vocab, dim, device),
            rotary: Rotary::new(context, dim / n_heads, device),
            blocks: (0..4).map(|_| LlamaBlock::new(dim, n_heads, 688, device)).collect(),
            norm: RmsNorm::new(dim, device),
            head: Linear::without_bias(dim, vocab, device),
        }
    }

    fn forward(&self, tokens: &Tensor) -> Tensor {
        let x = self.tokens.forward(tokens);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x, &self.rotary));
        self.head.forward(&self.norm.forward(&x))
    }
}

/// Four blocks of 256 on 128 tokens.
pub(super) fn llama(mode: Mode, device: &Device) -> Result<Case> {
    let (vocab, b, t) = (1000, 8, 128);
    let tokens = || integers(&[b, t], vocab, device);
    classify(Llama::new(vocab, t, device), Llama::forward, || (tokens(), tokens()), (b * t, "tokens/s"), mode)
}

/// Attention of one sequence to another.
#[derive(Module)]
struct CrossAttention {
    n_heads: usize,
    q: Linear,
    kv: Linear,
    out: Linear,
}

impl CrossAttention {
    fn new(dim: usize, n_heads: usize, device: &Device) -> CrossAttention {
        let [q, out] = [(); 2].map(|()| Linear::new(dim, dim, device));
        CrossAttention { n_heads, q, kv: Linear::new(dim, 2 * dim, device), out }
    }

    /// `x [b, t, c]` looks at `source [b, s, c]` where the mask `[b, 1, 1, s]` holds.
    fn forward(&self, x: &Tensor, source: &Tensor, mask: &Tensor) -> Tensor {
        let q = heads(&self.q.forward(x), self.n_heads);
        let [k, v] = parts(&self.kv.forward(source)).map(|part| heads(&part, self.n_heads));
        self.out.forward(&joined(&q.scaled_dot_product_attention(&k, &v, Some(mask), false)))
    }
}

/// A layer of the first transformer that reads.
#[derive(Module)]
struct Encoder {
    attention: SelfAttention,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
}

impl Encoder {
    fn new(dim: usize, n_heads: usize, hidden: usize, device: &Device) -> Encoder {
        Encoder {
            attention: SelfAttention::new(dim, n_heads, device),
            norm1: LayerNorm::new(dim, device),
            mlp: Mlp::new(&[dim, hidden, dim], device),
            norm2: LayerNorm::new(dim, device),
        }
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Tensor {
        let x = self.norm1.forward(&(x + self.attention.forward(x, Some(mask), false)));
        self.norm2.forward(&(&x + self.mlp.forward(&x)))
    }
}

/// A layer of the first transformer that writes.
#[derive(Module)]
struct Decoder {
    attention: SelfAttention,
    norm1: LayerNorm,
    cross: CrossAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    norm3: LayerNorm,
}

impl Decoder {
    fn new(dim: usize, n_heads: usize, hidden: usize, device: &Device) -> Decoder {
        Decoder {
            attention: SelfAttention::new(dim, n_heads, device),
            norm1: LayerNorm::new(dim, device),
            cross: CrossAttention::new(dim, n_heads, device),
            norm2: LayerNorm::new(dim, device),
            mlp: Mlp::new(&[dim, hidden, dim], device),
            norm3: LayerNorm::new(dim, device),
        }
    }

    fn forward(&self, x: &Tensor, source: &Tensor, mask: &Tensor) -> Tensor {
        let x = self.norm1.forward(&(x + self.attention.forward(x, None, true)));
        let x = self.norm2.forward(&(&x + self.cross.forward(&x, source, mask)));
        self.norm3.forward(&(&x + self.mlp.forward(&x)))
    }
}

/// The first transformer, which reads one sequence and writes another.
///
/// Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, fig. 1, without its positions.
#[derive(Module)]
struct Translator {
    source: Embedding,
    target: Embedding,
    encoders: Vec<Encoder>,
    encoded: LayerNorm,
    decoders: Vec<Decoder>,
    decoded: LayerNorm,
    head: Linear,
}

/// Source, target so far, and what comes next.
type Translation = (Tensor, Tensor, Tensor);

impl Translator {
    fn new(vocab: usize, device: &Device) -> Translator {
        let (dim, n_heads, hidden) = (128, 4, 512);
        Translator {
            source: Embedding::new(vocab, dim, device),
            target: Embedding::new(vocab, dim, device),
            encoders: (0..2).map(|_| Encoder::new(dim, n_heads, hidden, device)).collect(),
            encoded: LayerNorm::new(dim, device),
            decoders: (0..2).map(|_| Decoder::new(dim, n_heads, hidden, device)).collect(),
            decoded: LayerNorm::new(dim, device),
            head: Linear::new(dim, vocab, device),
        }
    }

    /// One token of twenty in the source stands for nothing, and nobody looks at it.
    fn loss(&self, (source, target, next): &Translation) -> Tensor {
        let mask = source.lt(1900.0).unsqueeze(1).unsqueeze(1); // [b, 1, 1, s]
        let source = self.encoders.iter().fold(self.source.forward(source), |x, layer| layer.forward(&x, &mask));
        let source = self.encoded.forward(&source);
        let x = self.target.forward(target);
        let x = self.decoders.iter().fold(x, |x, layer| layer.forward(&x, &source, &mask));
        self.head.forward(&self.decoded.forward(&x)).cross_entropy(next)
    }
}

/// 36 tokens from 40.
pub(super) fn seq2seq(mode: Mode, device: &Device) -> Result<Case> {
    let (vocab, b, s, t) = (2000, 16, 40, 36);
    let tokens = |length| integers(&[b, length], vocab, device);
    let batch = || (tokens(s), tokens(t), tokens(t));
    train(Translator::new(vocab, device), Translator::loss, batch, (b * t, "tokens/s"), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_lengths_and_leaves_the_first_position() {
        let device = Device::cpu();
        let x = Tensor::randn(&[1, 1, 5, 8], &device);
        let turned = Rotary::new(5, 8, &device).turned(&x);
        let difference = |a: &Tensor, b: &Tensor| (a - b).abs().flatten(0).amax(&[0]).item().unwrap();
        let lengths = |x: &Tensor| x.square().sum_keepdim(&[-1]);
        assert!(difference(&lengths(&x), &lengths(&turned)) < 1e-4);
        assert!(difference(&x.slice(2, 0..1), &turned.slice(2, 0..1)) < 1e-6);
        assert!(difference(&x, &turned) > 0.1);
    }
}
