"""The kernels' rules in float64 numpy, written for clarity: forward and gradient."""

from __future__ import annotations

import numpy as np


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def rms_norm_gradient(dy, x, weight, epsilon):
    r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    normed = x * r
    dnormed = dy * weight
    return r * (dnormed - normed * (dnormed * normed).mean(-1, keepdims=True)), (dy * normed).sum(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swiglu(h):
    gate, up = np.split(h, 2, -1)
    return gate * sigmoid(gate) * up


def swiglu_gradient(dy, h):
    gate, up = np.split(h, 2, -1)
    s = sigmoid(gate)
    return np.concatenate([dy * up * (s + gate * s * (1 - s)), dy * gate * s], -1)


class Attention:
    """Causal grouped-query attention over ``qkv (batch * seq, width)``; rotation by complex numbers."""

    def __init__(self, qkv, cos, sin, shape) -> None:
        self.shape = shape
        self.turn = (cos + 1j * sin)[None, :, None, :]
        heads, kv = shape.num_heads, shape.num_kv_heads
        parts = qkv.reshape(shape.batch, shape.seq, heads + 2 * kv, shape.head_dim)
        self.q = self._rotate(parts[:, :, :heads], self.turn)
        self.k = self._spread(self._rotate(parts[:, :, heads : heads + kv], self.turn))
        self.v = self._spread(parts[:, :, heads + kv :])
        scores = np.einsum("bihd,bjhd->bhij", self.q, self.k) / np.sqrt(shape.head_dim)
        future = np.triu(np.ones((shape.seq, shape.seq), bool), 1)
        scores[:, :, future] = -np.inf
        largest = scores.max(-1, keepdims=True)
        sums = np.exp(scores - largest).sum(-1, keepdims=True)
        self.lse = (largest + np.log(sums))[..., 0]
        self.p = np.exp(scores - self.lse[..., None])
        self.out = np.einsum("bhij,bjhd->bihd", self.p, self.v).reshape(len(qkv), -1)

    def gradient(self, dout):
        shape = self.shape
        dout = dout.reshape(shape.batch, shape.seq, shape.num_heads, shape.head_dim)
        dv = np.einsum("bhij,bihd->bjhd", self.p, dout)
        dp = np.einsum("bihd,bjhd->bhij", dout, self.v)
        dscores = self.p * (dp - (dp * self.p).sum(-1, keepdims=True)) / np.sqrt(shape.head_dim)
        dq = np.einsum("bhij,bjhd->bihd", dscores, self.k)
        dk = np.einsum("bhij,bihd->bjhd", dscores, self.q)
        back = self.turn.conj()
        parts = [self._rotate(dq, back), self._rotate(self._gather(dk), back), self._gather(dv)]
        return np.concatenate(parts, 2).reshape(shape.batch * shape.seq, -1)

    def _rotate(self, x, turn):
        rotary = self.shape.rotary_dim
        pairs = (x[..., 0:rotary:2] + 1j * x[..., 1:rotary:2]) * turn
        rotated = np.stack([pairs.real, pairs.imag], -1).reshape(*x.shape[:-1], rotary)
        return np.concatenate([rotated, x[..., rotary:]], -1)

    def _spread(self, x):
        return x.repeat(self.shape.num_heads // self.shape.num_kv_heads, 2)

    def _gather(self, x):
        batch, seq, _, dim = x.shape
        return x.reshape(batch, seq, self.shape.num_kv_heads, -1, dim).sum(3)


def cross_entropy(logits, labels):
    """Return the loss and its gradient."""
    counted = labels != -100
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    one_hot = np.arange(logits.shape[1]) == labels[:, None]
    count = counted.sum() + 1e-8
    return -(log_p * one_hot).sum() / count, (np.exp(log_p) - one_hot) * counted[:, None] / count


def adamw(parameter, m, v, gradient, *, lr, beta1, beta2, epsilon, decay, step, corrected):
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = (m / (1 - beta1**step), v / (1 - beta2**step)) if corrected else (m, v)
    return parameter - lr * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * parameter), m, v


def dropout_hash(size, key):
    """Return the 24 bits that decide about each place: "lowbias32", keyed between its first two rounds."""
    state = np.arange(size, dtype=np.uint64)
    word = np.uint64(0xFFFFFFFF)
    rounds = [(16, 0x7FEB352D, key), (16, 0x7FEB352D, 0), (15, 0x846CA68B, 0)]
    for shift, factor, mixed_in in rounds:
        state = ((state ^ (state >> np.uint64(shift))) * np.uint64(factor) & word) ^ np.uint64(mixed_in)
    return state >> np.uint64(8)
