"""Call the native kernels without MindSpore, over arrays whose surroundings are watched."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_double, c_float, c_int, c_int64, c_uint32

import numpy as np

from support.libraries import kernel_build, library

__all__ = ["AttentionShape", "NativeCore", "kernel_build"]

GUARD = 64  # numbers before and behind each output that no kernel may touch
CANARY = np.float32(-1234.5)


class AttentionShape(ctypes.Structure):
    _fields_ = [
        (name, c_int64) for name in ("batch", "seq", "num_heads", "num_kv_heads", "head_dim", "rotary_dim")
    ]

    @property
    def qkv_width(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim


class NativeCore:
    """The C functions of a library, with numpy arrays in and out."""

    def __init__(self, build: str) -> None:
        self.library = library(build)

    def set_threads(self, threads: int) -> None:
        self.library.call("set_threads", c_int(threads))

    def exp(self, x):
        return self._call("exp", [x.shape], lambda y: (_in(x), y, c_int64(x.size)))[0]

    def bias_add(self, x, bias):
        return self._call("bias_add", [x.shape], lambda y: (_in(x), _in(bias), y, *_sizes(x)))[0]

    def bias_backward(self, dy):
        return self._call("bias_backward", [dy.shape[1:]], lambda dbias: (_in(dy), dbias, *_sizes(dy)))[0]

    def rms_norm(self, x, weight, epsilon):
        return self._call(
            "rms_norm",
            [x.shape, x.shape[:1]],
            lambda y, rms: (_in(x), _in(weight), c_float(epsilon), y, rms, *_sizes(x)),
        )

    def rms_norm_backward(self, dy, x, weight, rms):
        return self._call(
            "rms_norm_backward",
            [x.shape, weight.shape],
            lambda dx, dweight: (_in(dy), _in(x), _in(weight), _in(rms), dx, dweight, *_sizes(x)),
        )

    def swiglu(self, h):
        shape = (h.shape[0], h.shape[1] // 2)
        return self._call("swiglu", [shape], lambda y: (_in(h), y, c_int64(shape[0]), c_int64(shape[1])))[0]

    def swiglu_backward(self, dy, h):
        return self._call("swiglu_backward", [h.shape], lambda dh: (_in(dy), _in(h), dh, *_sizes(dy)))[0]

    def dropout(self, x, key, threshold, scale):
        return self._call(
            "dropout",
            [x.shape],
            lambda y: (_in(x), c_uint32(key), c_float(threshold), c_float(scale), y, c_int64(x.size)),
        )[0]

    def attention(self, shape, cos, sin, qkv):
        return self._call(
            "attention",
            [
                (shape.batch * shape.seq, shape.num_heads * shape.head_dim),
                (shape.batch, shape.num_heads, shape.seq),
            ],
            lambda out, lse: (shape, _in(cos), _in(sin), _in(qkv), out, lse),
        )

    def attention_backward(self, shape, cos, sin, dout, qkv, out, lse):
        return self._call(
            "attention_backward",
            [qkv.shape],
            lambda dqkv: (
                shape,
                *(_in(array) for array in (cos, sin, dout, qkv, out, lse)),
                dqkv,
            ),
        )[0]

    def cross_entropy(self, logits, labels):
        loss, row_sums = self._call(
            "cross_entropy",
            [(1,), (*labels.shape, 2)],
            lambda loss, row_sums: (_in(logits), _ints(labels), loss, row_sums, *_sizes(logits)),
        )
        return loss[0], row_sums

    def cross_entropy_backward(self, upstream, logits, labels, row_sums):
        return self._call(
            "cross_entropy_backward",
            [logits.shape],
            lambda dlogits: (
                c_float(upstream),
                _in(logits),
                _ints(labels),
                _in(row_sums),
                dlogits,
                *_sizes(logits),
            ),
        )[0]

    def adamw(self, parameter, m, v, gradient, settings):
        """Update copies, and return them."""
        return self._call(
            "adamw",
            [parameter.shape] * 3,
            lambda *state: (*state, _in(gradient), _in(settings), c_int64(parameter.size)),
            start=(parameter, m, v),
        )

    def sum_of_squares(self, x) -> float:
        return self.library.call("sum_of_squares", _in(x), c_int64(x.size), result=c_double)

    def _call(
        self,
        name: str,
        shapes: Sequence[tuple[int, ...]],
        arguments: Callable[..., tuple[object, ...]],
        start: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray]:
        """Run a function over fresh outputs and fail if it writes beside them; ValueError if it refuses."""
        result = c_int if name.startswith(("attention", "cross_entropy")) else None
        guarded = [np.full(int(np.prod(shape)) + 2 * GUARD, CANARY, np.float32) for shape in shapes]
        outputs = [
            array[GUARD : len(array) - GUARD].reshape(shape)
            for array, shape in zip(guarded, shapes, strict=True)
        ]
        for output, value in zip(outputs, start, strict=False):
            output[...] = value
        refused = self.library.call(name, *arguments(*outputs), result=result)
        for array in guarded:
            assert (array[:GUARD] == CANARY).all(), f"{name} wrote before its output"
            assert (array[len(array) - GUARD :] == CANARY).all(), f"{name} wrote behind its output"
        if refused:
            assert all((output == CANARY).all() for output in outputs), f"{name} wrote though it refused"
            raise ValueError(name)
        return [output.copy() for output in outputs]


def _in(array) -> np.ndarray:
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return array


def _ints(array) -> np.ndarray:
    assert array.dtype == np.int32
    return array


def _sizes(array) -> tuple[c_int64, ...]:
    return tuple(c_int64(size) for size in array.shape)
