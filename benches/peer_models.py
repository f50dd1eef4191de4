#!/usr/bin/env python3
"""The zoo's models in PyTorch: the peer of the rows `model_NAME` of the benchmark table.

    pip install torch numpy            # any 2.x from 2.4 on; CPU is enough
    python peer_models.py [--device cpu|cuda] [--only REGEX] [--compile] [--tf32] [--seconds S] [--list]

Prints one JSON object a line: name, device, mode, iters, first_s, median_ms, p10_ms, p99_ms, rate, unit. Each row is a
training step as in `src/zoo`: forward, loss, backward, AdamW; eight random batches in turn, and every tenth loss is read.
Models have the layers, sizes and numbers of parameters of Kiln's; each is written as a user of PyTorch writes it, with
the fused layers that PyTorch has (`nn.LSTM`, `nn.Transformer`).
"""
import argparse
import json
import re
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

ROWS = {}


class Case:
    """A row ready to time: `step` does one iteration; `work` is the work it does, in `unit` times seconds."""

    def __init__(self, step, work, unit):
        self.step, self.work, self.unit = step, work, unit


def row(name, model, loss, batch, work, unit="samples/s"):
    """A row that trains `model()` to make `loss(model, *batch)` small; `batch(device)` gives a tuple of tensors."""

    def make(device, compiled):
        torch.manual_seed(0)
        trained = model().to(device)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, fused=True)
        batches = [batch(device) for _ in range(8)]
        forward = compiled(lambda *tensors: loss(trained, *tensors))
        n_steps = 0

        def step():
            nonlocal n_steps
            value = forward(*batches[n_steps % 8])
            n_steps += 1
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if n_steps % 10 == 0:
                value.item()

        return Case(step, work, unit)

    ROWS[f"model_{name}"] = make


# ---- losses and batches --------------------------------------------------------------------------


def classify(model, x, target):
    """Cross-entropy of a class for each sample, or for each pixel, whose classes are axis 1."""
    return F.cross_entropy(model(x), target)


def classify_tokens(model, x, target):
    """Cross-entropy of a class for each token, whose classes are the last axis."""
    return F.cross_entropy(model(x).flatten(0, 1), target.flatten())


def regress(model, x, target):
    return F.mse_loss(model(x), target)


def normals(*dims):
    """A batch of random normal tensors."""
    return lambda device: tuple(torch.randn(*d, device=device) for d in dims)


def classified(dims, n_classes=10):
    """Random normal inputs and random classes."""
    return lambda device: (torch.randn(*dims, device=device), torch.randint(n_classes, dims[:1], device=device))


def images(n, size):
    return classified((n, 3, size, size))


def tokens(vocab, *dims):
    """A batch of random tokens."""
    return lambda device: tuple(torch.randint(vocab, d, device=device) for d in dims)


# ---- parts that several models have --------------------------------------------------------------


def conv_norm(n_in, n_out, size, stride=1, groups=1, dilation=1):
    padding = dilation * (size // 2)
    conv = nn.Conv2d(n_in, n_out, size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out))


def mlp(*widths):
    layers = []
    for n_in, n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def feed_forward(dim, hidden):
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


def classifier(dim):
    """The mean of each channel, and ten classes."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, 10))


class Patches(nn.Module):
    """A patch a token, `[n, 3, h, w]` -> `[n, t, dim]`."""

    def __init__(self, dim, size):
        super().__init__()
        self.conv = nn.Conv2d(3, dim, size, size, bias=False)

    def forward(self, x):
        return self.conv(x).flatten(2).transpose(1, 2)


# ---- convolutional networks with one answer for an image -----------------------------------------


class Bottleneck(nn.Module):
    def __init__(self, n_in, width, stride):
        super().__init__()
        n_out = 4 * width
        self.narrow, self.window = conv_norm(n_in, width, 1), conv_norm(width, width, 3, stride)
        self.wide = conv_norm(width, n_out, 1)
        self.shortcut = conv_norm(n_in, n_out, 1, stride) if n_in != n_out else nn.Identity()

    def forward(self, x):
        body = self.wide(self.window(self.narrow(x).relu()).relu())
        return (body + self.shortcut(x)).relu()


def resnet50():
    blocks = [Bottleneck(64, 64, 1), Bottleneck(256, 64, 1), Bottleneck(256, 128, 2), Bottleneck(512, 128, 1)]
    return nn.Sequential(conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, classifier(512))


def mobilenet():
    layers = [conv_norm(3, 32, 3, 2), nn.ReLU6()]
    for n_in, n_out, stride in [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]:
        depthwise, pointwise = conv_norm(n_in, n_in, 3, stride, groups=n_in), conv_norm(n_in, n_out, 1)
        layers += [depthwise, nn.ReLU6(), pointwise, nn.ReLU6()]
    return nn.Sequential(*layers, classifier(256))


def vgg():
    layers = []
    for n_in, n_out in [(3, 64), (64, 128), (128, 256)]:
        pair = [conv_norm(n_in, n_out, 3), nn.ReLU(), conv_norm(n_out, n_out, 3), nn.ReLU()]
        layers += [*pair, nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), mlp(256 * 4 * 4, 512, 10))


class DenseLayer(nn.Module):
    def __init__(self, n_in, n_new):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(n_in), nn.Conv2d(n_in, n_new, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv(self.norm(x).relu())], 1)


def densenet():
    layers = [DenseLayer(32 + 16 * n, 16) for n in range(6)]
    return nn.Sequential(conv_norm(3, 32, 3), nn.ReLU(), *layers, classifier(128))


class GroupedBlock(nn.Module):
    def __init__(self, dim, width, groups):
        super().__init__()
        self.wide, self.narrow = conv_norm(dim, width, 1), conv_norm(width, dim, 1)
        self.window = conv_norm(width, width, 3, groups=groups)

    def forward(self, x):
        return (x + self.narrow(self.window(self.wide(x).relu()).relu())).relu()


def resnext():
    blocks = [GroupedBlock(64, 128, 16) for _ in range(3)]
    return nn.Sequential(conv_norm(3, 64, 3), nn.ReLU(), *blocks, classifier(64))


class Excited(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.wide, self.narrow = conv_norm(dim, width, 1), conv_norm(width, dim, 1)
        self.depthwise = conv_norm(width, width, 5, groups=width)
        self.squeeze, self.excite = nn.Conv2d(width, dim // 4, 1, bias=False), nn.Conv2d(dim // 4, width, 1, bias=False)

    def forward(self, x):
        body = F.silu(self.depthwise(F.silu(self.wide(x))))
        mean = body.mean((2, 3), keepdim=True)
        weight = self.excite(F.silu(self.squeeze(mean))).sigmoid()
        return x + self.narrow(body * weight)


def efficientnet():
    blocks = [Excited(32, 128) for _ in range(3)]
    return nn.Sequential(conv_norm(3, 32, 3, 2), nn.SiLU(), *blocks, classifier(32))


class ConvNextBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim, bias=False)
        self.norm, self.mlp = nn.LayerNorm(dim), feed_forward(dim, 4 * dim)

    def forward(self, x):
        body = self.depthwise(x).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm(body)).permute(0, 3, 1, 2)


def convnext():
    blocks = [ConvNextBlock(96) for _ in range(4)]
    return nn.Sequential(nn.Conv2d(3, 96, 2, 2, bias=False), *blocks, classifier(96))


row("resnet50", resnet50, classify, images(8, 112), 8)
row("mobilenet", mobilenet, classify, images(16, 96), 16)
row("vgg", vgg, classify, images(32, 32), 32)
row("densenet", densenet, classify, images(16, 32), 16)
row("resnext", resnext, classify, images(16, 32), 16)
row("efficientnet", efficientnet, classify, images(16, 64), 16)
row("convnext", convnext, classify, images(16, 32), 16)

# ---- convolutional networks with an answer for each pixel ----------------------------------------


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = conv_norm(3, 32, 3), conv_norm(32, 64, 3), conv_norm(64, 128, 3)
        self.up2, self.up1 = conv_norm(128 + 64, 64, 3), conv_norm(64 + 32, 32, 3)
        self.head = conv_norm(32, 3, 1)

    def forward(self, x):
        level1 = self.down1(x).relu()
        level2 = self.down2(F.max_pool2d(level1, 2)).relu()
        x = self.bottom(F.max_pool2d(level2, 2)).relu()
        x = self.up2(torch.cat([F.interpolate(x, scale_factor=2), level2], 1)).relu()
        x = self.up1(torch.cat([F.interpolate(x, scale_factor=2), level1], 1)).relu()
        return self.head(x)


class DeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_norm(3, 32, 3, 2), conv_norm(4 * 32, 8, 1)
        self.branches = nn.ModuleList([conv_norm(32, 32, 3, dilation=dilation) for dilation in (1, 2, 4, 8)])

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(torch.cat([branch(x).relu() for branch in self.branches], 1))


def scenes(device):
    return torch.randn(8, 3, 96, 96, device=device), torch.randint(8, (8, 48, 48), device=device)


class DenoisingBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, dim), nn.GroupNorm(8, dim)
        self.conv1, self.conv2 = (nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


def denoiser():
    stem, head = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Conv2d(64, 3, 3, padding=1, bias=False)
    return nn.Sequential(stem, DenoisingBlock(64), DenoisingBlock(64), head)


row("unet", UNet, regress, normals((8, 3, 64, 64), (8, 3, 64, 64)), 8)
row("deeplab", DeepLab, classify, scenes, 8)
row("ddpm", denoiser, regress, normals((8, 3, 32, 32), (8, 3, 32, 32)), 8)

# ---- transformers and their like -----------------------------------------------------------------


def heads(x, n_heads):
    """`[b, t, h * d]` -> `[b, h, t, d]`."""
    b, t, c = x.shape
    return x.view(b, t, n_heads, c // n_heads).transpose(1, 2)


class VisionBlock(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads, self.norm1, self.norm2 = n_heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out, self.mlp = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), feed_forward(dim, 4 * dim)

    def forward(self, x):
        q, k, v = (heads(part, self.n_heads) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.positions = Patches(192, 4), nn.Parameter(torch.randn(64, 192))
        self.blocks = nn.Sequential(*[VisionBlock(192, 3) for _ in range(6)])
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x) + self.positions)).mean(1))


class MixerBlock(nn.Module):
    def __init__(self, n_patches, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.of_patches, self.of_channels = feed_forward(n_patches, 2 * n_patches), feed_forward(dim, 4 * dim)

    def forward(self, x):
        x = x + self.of_patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.of_channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = Patches(128, 4), nn.Linear(128, 10)
        self.blocks = nn.Sequential(*[MixerBlock(64, 128) for _ in range(4)])

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(1))


def turned(x, cos, sin):
    """Rotary positions: number `i` of a head is paired with number `i + d / 2`."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class LlamaBlock(nn.Module):
    def __init__(self, dim, n_heads, hidden):
        super().__init__()
        self.n_heads, self.norm1, self.norm2 = n_heads, nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate, self.up = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = (heads(part, self.n_heads) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Llama(nn.Module):
    def __init__(self, vocab=1000, context=128, dim=256, n_heads=4):
        super().__init__()
        self.tokens, self.head = nn.Embedding(vocab, dim), nn.Linear(dim, vocab, bias=False)
        self.blocks = nn.ModuleList([LlamaBlock(dim, n_heads, 688) for _ in range(4)])
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        d = dim // n_heads
        angle = torch.arange(context)[:, None] * 10000 ** (-2 * torch.arange(d // 2) / d)
        angle = torch.cat([angle, angle], 1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens):
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


class Translator(nn.Module):
    """The first transformer, without its positions; one token of twenty in the source stands for nothing."""

    def __init__(self, vocab=2000, dim=128):
        super().__init__()
        self.source, self.target = nn.Embedding(vocab, dim), nn.Embedding(vocab, dim)
        self.transformer = nn.Transformer(dim, 4, 2, 2, 512, dropout=0.0, batch_first=True)
        self.head = nn.Linear(dim, vocab)
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(36))

    def forward(self, source, target):
        nothing = source >= 1900
        x = self.transformer(
            self.source(source),
            self.target(target),
            tgt_mask=self.later,
            tgt_is_causal=True,
            src_key_padding_mask=nothing,
            memory_key_padding_mask=nothing,
        )
        return self.head(x)


def translate(model, source, target, following):
    return F.cross_entropy(model(source, target).flatten(0, 1), following.flatten())


row("vit", VisionTransformer, classify, images(32, 32), 32)
row("mixer", Mixer, classify, images(32, 32), 32)
row("llama", Llama, classify_tokens, tokens(1000, (8, 128), (8, 128)), 8 * 128, "tokens/s")
row("seq2seq", Translator, translate, tokens(2000, (16, 40), (16, 36), (16, 36)), 16 * 36, "tokens/s")

# ---- recurrent networks --------------------------------------------------------------------------


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.characters, self.cell = nn.Embedding(80, 64), nn.GRU(64, 256, batch_first=True)
        self.head = nn.Linear(256, 80)

    def forward(self, characters):
        return self.head(self.cell(self.characters(characters))[0])


row("lstm", Lstm, classify, classified((32, 64, 64)), 32)
row("gru", Gru, classify_tokens, tokens(80, (32, 50), (32, 50)), 32 * 50, "tokens/s")

# ---- networks of affine layers -------------------------------------------------------------------


class Dlrm(nn.Module):
    def __init__(self, n_tables=8, n_entries=10_000, dim=16):
        super().__init__()
        self.numbers, self.head = mlp(13, 64, dim), mlp((1 + n_tables) * dim, 128, 64, 2)
        self.tables = nn.ModuleList([nn.Embedding(n_entries, dim) for _ in range(n_tables)])

    def forward(self, numbers, entries):
        found = [table(entry) for table, entry in zip(self.tables, entries)]
        return self.head(torch.cat([self.numbers(numbers).relu(), *found], 1))


def visits(device):
    n = 2048
    entries = torch.randint(10_000, (8, n), device=device)
    return torch.randn(n, 13, device=device), entries, torch.randint(2, (n,), device=device)


def recommend(model, numbers, entries, clicks):
    return F.cross_entropy(model(numbers, entries), clicks)


def nerf(model, point, target):
    waves = [point]
    for n in range(10):
        angle = point * 2**n
        waves += [angle.sin(), angle.cos()]
    return F.mse_loss(model(torch.cat(waves, 1)), target)


class Gcn(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.layers, self.head = nn.ModuleList([nn.Linear(dim, dim) for _ in range(2)]), nn.Linear(dim, 10)

    def forward(self, nodes, begins, ends):
        x = nodes
        for layer in self.layers:
            sent = layer(x).index_select(0, begins)
            x = torch.zeros_like(nodes).index_add(0, ends, sent).relu()
        return self.head(x)


def graph(device):
    nodes, classes = classified((10_000, 64))(device)
    begins, ends = tokens(10_000, (100_000,), (100_000,))(device)
    return nodes, begins, ends, classes


def classify_nodes(model, nodes, begins, ends, classes):
    return F.cross_entropy(model(nodes, begins, ends), classes)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(784, 400), mlp(20, 400, 784)
        self.mean, self.log_variance = nn.Linear(400, 20), nn.Linear(400, 20)

    def forward(self, x):
        hidden = self.encoder(x).relu()
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(code).sigmoid(), mean, log_variance


def describe(model, x):
    """Cross-entropy of the pixels and divergence of the code, a sample."""
    pixels, mean, log_variance = model(x)
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
    return (F.binary_cross_entropy(pixels, x, reduction="sum") + divergence) / len(x)


def digits(device):
    return (torch.rand(128, 784, device=device),)


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = mlp(512, 512, 128), mlp(300, 512, 128)

    def forward(self, images, texts):
        return F.normalize(self.image(images), dim=1) @ F.normalize(self.text(texts), dim=1).t() * 14


def pair(model, images, texts):
    logits = model(images, texts)
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own))


class Experts(nn.Module):
    def __init__(self, n_experts=8, dim=128):
        super().__init__()
        self.gate, self.head = nn.Linear(dim, n_experts), nn.Linear(dim, 10)
        self.experts = nn.ModuleList([feed_forward(dim, 2 * dim) for _ in range(n_experts)])

    def forward(self, x):
        shares = self.gate(x).softmax(1)
        total = x
        for n, expert in enumerate(self.experts):
            total = total + expert(x) * shares[:, n : n + 1]
        return self.head(total)


def dqn():
    layers = []
    for n_in, n_out, size, stride in [(4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]:
        layers += [nn.Conv2d(n_in, n_out, size, stride, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), mlp(64 * 7 * 7, 512, 6))


def plays(device):
    n = 32
    actions, worth = torch.randint(6, (n, 1), device=device), torch.randn(n, device=device)
    return torch.randn(n, 4, 84, 84, device=device), actions, worth


def judge(model, frames, actions, worth):
    return F.smooth_l1_loss(model(frames).gather(1, actions).squeeze(1), worth)


row("dlrm", Dlrm, recommend, visits, 2048)
row("nerf", lambda: mlp(63, 128, 128, 128, 4), nerf, normals((8192, 3), (8192, 4)), 8192)
row("gcn", Gcn, classify_nodes, graph, 1, "steps/s")
row("vae", Vae, describe, digits, 128)
row("clip", Clip, pair, normals((256, 512), (256, 300)), 256)
row("moe", Experts, classify, classified((1024, 128)), 1024)
row("dqn", dqn, judge, plays, 32)

# ---- the clock, and the program ------------------------------------------------------------------


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(make, device, compiled, seconds):
    """Warms up for a third of the time, then times until it is over: the case, the first step's seconds, all others."""
    start = time.perf_counter()
    case = make(device, compiled)
    case.step()
    synchronize(device)
    first = time.perf_counter() - start

    start, n_steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 3 or n_steps < 2:
        case.step()
        n_steps += 1
    synchronize(device)
    step_s = (time.perf_counter() - start) / n_steps
    # A GPU works on several steps between two looks at the clock.
    n_batch = max(1, int(0.002 / max(1e-9, step_s))) if device.type == "cuda" else 1

    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(n_batch):
            case.step()
        synchronize(device)
        times.append((time.perf_counter() - start) / n_batch)
    return case, first, sorted(times), n_batch


def line(name, make, device, arguments):
    """What the program prints for a row."""
    compiled = torch.compile if arguments.compile else lambda function: function
    try:
        case, first, times, n_batch = measure(make, device, compiled, arguments.seconds)
    except Exception as error:
        return dict(name=name, device=arguments.device, error=f"{type(error).__name__}: {error}"[:200])
    median = statistics.median(times)
    return dict(
        name=name,
        device=arguments.device,
        mode="compile" if arguments.compile else "eager",
        iters=len(times) * n_batch,
        first_s=round(first, 3),
        median_ms=round(median * 1e3, 4),
        p10_ms=round(times[len(times) // 10] * 1e3, 4),
        p99_ms=round(times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3, 4),
        rate=round(case.work / median, 2),
        unit=case.unit,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="only rows whose name matches")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to measure each row")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tf32", action="store_true", help="let CUDA use TF32 for f32 products")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(ROWS))
        return
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    # f32 means f32 unless asked.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.tf32
    for name, make in ROWS.items():
        if re.search(arguments.only, name):
            print(json.dumps(line(name, make, device, arguments)), flush=True)


if __name__ == "__main__":
    main()
