#!/usr/bin/env python3
"""Writes reference.rs: what PyTorch computes for the cases of these tests. Needs torch, any 2.x.

    python reference.py > reference.rs

Every input is `wave(n, k)[i] = sin(0.37 i + k)`, which the tests compute too.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


def wave(k, *dims):
    n = 1
    for d in dims:
        n *= d
    return torch.sin(torch.arange(n, dtype=torch.float64) * 0.37 + k).reshape(dims)


def fill(module):
    for k, p in enumerate(module.parameters()):
        p.data = wave(k + 1, *p.shape)
    return module.double()


def show(name, *tensors):
    values = ", ".join(f"{v:.10e}" for t in tensors for v in t.detach().flatten().tolist())
    print(f"pub(crate) const {name}: &[f64] = &[{values}];")


def with_grads(name, module, x, forward=None):
    x = x.requires_grad_(x.is_floating_point())
    y = (forward or module)(x)
    (y * wave(9, *y.shape)).sum().backward()
    show(name, y)
    grads = [x.grad] if x.grad is not None else []
    show(name + "_GRADS", *grads, *[p.grad for p in module.parameters()])


print("//! Written by `reference.py` with PyTorch; do not edit.\n")
with_grads("LINEAR", fill(nn.Linear(3, 4)), wave(0, 2, 3))
with_grads("CONV", fill(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)), wave(0, 2, 4, 5, 6))
with_grads("LAYER_NORM", fill(nn.LayerNorm(5)), wave(0, 3, 5))
with_grads("EMBEDDING", fill(nn.Embedding(5, 2)), torch.tensor([[1, 3, 1], [0, 4, 4]]))
norm = fill(nn.BatchNorm2d(3))
with_grads("BATCH_NORM", norm, wave(0, 4, 3, 2, 2))
show("BATCH_NORM_RUNNING", norm.running_mean, norm.running_var)
show("BATCH_NORM_EVAL", norm.eval()(wave(2, 4, 3, 2, 2)))
with_grads("MAX_POOL", nn.MaxPool2d(2, 1), wave(0, 1, 2, 3, 4))
with_grads("MAX_POOL_PADDED", nn.MaxPool2d(3, 2, padding=1), wave(0, 1, 2, 3, 4))
with_grads("AVG_POOL_PADDED", nn.AvgPool2d(3, 2, padding=1), wave(0, 1, 2, 3, 4))
with_grads("AVG_POOL", nn.AvgPool2d(2), wave(0, 1, 2, 5, 4))
with_grads("GELU", nn.GELU(), wave(0, 7) * 3)
with_grads("CROSS_ENTROPY", nn.Module(), wave(0, 3, 4) * 2, lambda x: F.cross_entropy(x, torch.tensor([2, 0, 3])))


def steps(name, make):
    p = nn.Parameter(wave(1, 4))
    opt = make([p])
    seen = []
    for t in range(4):
        opt.zero_grad()
        (wave(t, 4) * p ** 2).sum().backward()
        opt.step()
        seen.append(p.detach().clone())
    show(name, *seen)


steps("ADAMW", lambda ps: torch.optim.AdamW(ps, lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.05))
steps("SGD", lambda ps: torch.optim.SGD(ps, lr=0.1))
steps("SGD_MOMENTUM", lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01))
steps("SGD_NESTEROV", lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True))
