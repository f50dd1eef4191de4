//! The models of the training and inference rows, as a user of Kiln writes them.

use kiln::prelude::*;

/// GELU in its tanh form, `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu_tanh(x: &Tensor) -> Tensor {
    let inner = (x + x.square() * x * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (inner.tanh() + 1.0)
}

/// Affine layers with a rectifier between any two.
#[derive(Module)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Layers between these widths.
    pub fn new(widths: &[usize], device: &Device) -> Mlp {
        Mlp { layers: widths.windows(2).map(|w| Linear::new(w[0], w[1], device)).collect() }
    }

    /// The last layer's output.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (last, hidden) = self.layers.split_last().expect("an MLP has a layer");
        last.forward(&hidden.iter().fold(x.clone(), |x, layer| layer.forward(&x).relu()))
    }
}

/// Two convolutions with pooling and two affine layers, for images `[n, 1, 28, 28]`.
#[derive(Module)]
pub struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
}

impl Cnn {
    /// Ten classes.
    pub fn new(device: &Device) -> Cnn {
        Cnn {
            conv1: Conv2d::new(1, 32, 3, device).padding(1),
            conv2: Conv2d::new(32, 64, 3, device).padding(1),
            pool: MaxPool2d::new(2),
            fc1: Linear::new(64 * 49, 128, device),
            fc2: Linear::new(128, 10, device),
        }
    }

    /// Logits `[n, 10]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.pool.forward(&self.conv1.forward(x).relu()); // [n, 32, 14, 14]
        let x = self.pool.forward(&self.conv2.forward(&x).relu()); // [n, 64, 7, 7]
        self.fc2.forward(&self.fc1.forward(&x.flatten(1)).relu())
    }
}

/// Self-attention with one product for query, key and value.
#[derive(Module)]
pub(crate) struct SelfAttention {
    n_heads: usize,
    qkv: Linear,
    out: Linear,
}

impl SelfAttention {
    pub(crate) fn new(dim: usize, n_heads: usize, device: &Device) -> SelfAttention {
        SelfAttention { n_heads, qkv: Linear::new(dim, 3 * dim, device), out: Linear::new(dim, dim, device) }
    }

    pub(crate) fn forward(&self, x: &Tensor, mask: Option<&Tensor>, causal: bool) -> Tensor {
        let &[b, t, c] = x.dims() else { panic!("attention: takes rank 3, got {}", x.shape()) };
        let split = self.qkv.forward(x).reshape(&[b, t, 3, self.n_heads, c / self.n_heads]);
        let split = split.permute(&[2, 0, 3, 1, 4]); // [3, b, h, t, d]
        let part = |n: usize| split.slice(0, n..n + 1).squeeze(0);
        let mixed = part(0).scaled_dot_product_attention(&part(1), &part(2), mask, causal); // [b, h, t, d]
        self.out.forward(&mixed.transpose(1, 2).reshape(&[b, t, c]))
    }
}

/// A block of GPT-2: normalisation comes first.
#[derive(Module)]
pub struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    attention: SelfAttention,
    up: Linear,
    down: Linear,
}

impl Block {
    /// A block of this width.
    pub fn new(dim: usize, n_heads: usize, device: &Device) -> Block {
        Block {
            norm1: LayerNorm::new(dim, device),
            norm2: LayerNorm::new(dim, device),
            attention: SelfAttention::new(dim, n_heads, device),
            up: Linear::new(dim, 4 * dim, device),
            down: Linear::new(4 * dim, dim, device),
        }
    }

    /// `[b, t, dim]` → the same; no position sees a later one.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.norm1.forward(x), None, true);
        let hidden = gelu_tanh(&self.up.forward(&self.norm2.forward(&x)));
        &x + self.down.forward(&hidden)
    }
}

/// The size of a [`Gpt`].
#[derive(Clone, Copy)]
pub struct GptSize {
    /// Tokens that there are.
    pub vocab: usize,
    /// Positions that there are.
    pub context: usize,
    /// Numbers a position.
    pub dim: usize,
    /// Heads of attention.
    pub n_heads: usize,
    /// Blocks.
    pub n_blocks: usize,
}

/// A language model in GPT-2's form, with an output table of its own.
#[derive(Module)]
pub struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Gpt {
    /// A model of this size.
    pub fn new(size: GptSize, device: &Device) -> Gpt {
        Gpt {
            tokens: Embedding::new(size.vocab, size.dim, device),
            positions: Embedding::new(size.context, size.dim, device),
            blocks: (0..size.n_blocks).map(|_| Block::new(size.dim, size.n_heads, device)).collect(),
            norm: LayerNorm::new(size.dim, device),
            head: Linear::without_bias(size.dim, size.vocab, device),
        }
    }

    /// Logits `[b, t, vocab]` for tokens `[b, t]`.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let position = Tensor::iota(&[tokens.dims()[1]], 0, tokens.device());
        let x = self.tokens.forward(tokens) + self.positions.forward(&position); // [b, t, c]
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        self.head.forward(&self.norm.forward(&x))
    }
}

/// A convolution without bias and its batch normalisation.
#[derive(Module)]
pub(crate) struct ConvNorm {
    pub(crate) conv: Conv2d,
    pub(crate) norm: BatchNorm2d,
}

impl ConvNorm {
    pub(crate) fn new([n_in, n_out]: [usize; 2], size: usize, stride: usize, device: &Device) -> ConvNorm {
        let conv = Conv2d::new(n_in, n_out, size, device).stride(stride).padding(size / 2).without_bias();
        ConvNorm { conv, norm: BatchNorm2d::new(n_out, device) }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.conv.forward(x))
    }
}

/// The basic residual block.
#[derive(Module)]
struct Residual {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl Residual {
    fn new([n_in, n_out]: [usize; 2], stride: usize, device: &Device) -> Residual {
        let changes = stride != 1 || n_in != n_out;
        Residual {
            first: ConvNorm::new([n_in, n_out], 3, stride, device),
            second: ConvNorm::new([n_out, n_out], 3, 1, device),
            shortcut: changes.then(|| ConvNorm::new([n_in, n_out], 1, stride, device)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let body = self.second.forward(&self.first.forward(x).relu());
        match &self.shortcut {
            Some(shortcut) => (body + shortcut.forward(x)).relu(),
            None => (body + x).relu(),
        }
    }
}

/// ResNet-18 as it is used for images `[n, 3, 32, 32]`: a small first window and no first pool.
#[derive(Module)]
pub struct ResNet18 {
    stem: ConvNorm,
    blocks: Vec<Residual>,
    head: Linear,
}

impl ResNet18 {
    /// Ten classes.
    pub fn new(device: &Device) -> ResNet18 {
        let stages = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)];
        let mut n_in = 64;
        let block = |(n_out, stride)| Residual::new([std::mem::replace(&mut n_in, n_out), n_out], stride, device);
        let blocks = stages.map(block).into();
        ResNet18 { stem: ConvNorm::new([3, 64], 3, 1, device), blocks, head: Linear::new(512, 10, device) }
    }

    /// Logits `[n, 10]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.stem.forward(x).relu(), |x, block| block.forward(&x));
        self.head.forward(&x.mean(&[2, 3]))
    }
}

/// A layer of BERT: normalisation comes last.
#[derive(Module)]
struct EncoderLayer {
    attention: SelfAttention,
    norm1: LayerNorm,
    up: Linear,
    down: Linear,
    norm2: LayerNorm,
}

impl EncoderLayer {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.norm1.forward(&(x + self.attention.forward(x, None, false)));
        self.norm2.forward(&(&x + self.down.forward(&self.up.forward(&x).gelu())))
    }
}

/// The sentence encoder MiniLM, 6 layers of 384, without its embeddings.
#[derive(Module)]
pub struct MiniLm {
    layers: Vec<EncoderLayer>,
}

impl MiniLm {
    /// Random weights.
    pub fn new(device: &Device) -> MiniLm {
        let (dim, n_heads) = (384, 12);
        let layer = |_| EncoderLayer {
            attention: SelfAttention::new(dim, n_heads, device),
            norm1: LayerNorm::new(dim, device),
            up: Linear::new(dim, 4 * dim, device),
            down: Linear::new(4 * dim, dim, device),
            norm2: LayerNorm::new(dim, device),
        };
        MiniLm { layers: (0..6).map(layer).collect() }
    }

    /// `[b, t, 384]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.layers.iter().fold(x.clone(), |x, layer| layer.forward(&x))
    }
}
