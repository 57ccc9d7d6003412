"""Cases of operators that are expanded into others."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.onnx_grad.harness import ON_RUNTIME, Array, Case, X, ints, normal, positive

ERF = np.vectorize(math.erf)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# For 4 features, a hidden size of 3 and two directions: LSTM (4 gates), GRU (3), RNN (1).
WEIGHTS = {
    gates: (normal(2, 3 * gates, 4), normal(2, 3 * gates, 3), normal(2, 6 * gates)) for gates in (4, 3, 1)
}


def unrolled(
    gates: int, directions: tuple[int, ...] = (1, -1), reset_last: int = 0
) -> Callable[[Array], Array]:
    """Y of LSTM, GRU and RNN for x [steps, batch, 4], step by step, by the formulas of the ONNX standard."""

    def forward(x: Array) -> Array:
        y = np.zeros((len(x), len(directions), x.shape[1], 3))
        for number, way in enumerate(directions):
            w, r, b = (value[number] for value in WEIGHTS[gates])
            bw, br = np.split(b, 2)
            h = c = np.zeros((x.shape[1], 3))
            for step in range(len(x))[::way]:
                u = x[step] @ w.T + bw
                if gates == 4:
                    i, o, f, new = np.split(u + h @ r.T + br, 4, axis=1)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
                    h = sigmoid(o) * np.tanh(c)
                elif gates == 3:
                    (uz, ur, uh), (rz, rr, rh), (bz, bg, bh) = (
                        np.split(value, 3, axis=axis) for value, axis in ((u, 1), (r, 0), (br, 0))
                    )
                    z, g = sigmoid(uz + h @ rz.T + bz), sigmoid(ur + h @ rr.T + bg)
                    new = np.tanh(uh + (g * (h @ rh.T + bh) if reset_last else (g * h) @ rh.T + bh))
                    h = (1 - z) * new + z * h
                else:
                    h = np.tanh(u + h @ r.T + br)
                y[step, number] = h
        return y

    return forward


GAMMA, BIAS, SKIP = normal(4), normal(4), normal(2, 3, 4)
KERNEL, OFFSET, MATRIX = normal(3, 2, 3, 3), normal(3), normal(4, 5)


def fused(op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], forward: Any, **more: Any) -> Case:
    """An operator of onnxruntime's optimizer, against its definition in NumPy."""
    more |= {"domain": "com.microsoft", "forward": forward}
    return Case(op, inputs, attributes, opsets=(13, 17), **more, **ON_RUNTIME)


def convolved(x: Array) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.asarray(np.einsum("nchwij,kcij->nkhw", windows, KERNEL) + OFFSET[:, None, None])


def group_normalized(x: Array) -> Array:
    grouped = x.reshape(len(x), 2, 2, 2, 3)
    centred = grouped - grouped.mean((2, 3, 4), keepdims=True)
    y = (centred / np.sqrt(grouped.var((2, 3, 4), keepdims=True) + 1e-5)).reshape(x.shape)
    return np.asarray(y * GAMMA[:, None, None] + BIAS[:, None, None])


def across_channels(x: Array, before: int, after: int) -> Array:
    """Sum over the channels from `before` below to `after` above each."""
    padded = np.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
    return np.asarray(sum(padded[:, i : i + x.shape[1]] for i in range(before + after + 1)))


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.3 * x)


def tanh_gelu(x: Array) -> Array:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def normalized(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1) * GAMMA + BIAS


# fmt: off
CASES = [
    # sequences: the first axis of this image is the sequence
    *(
        Case(op, (X, *WEIGHTS[gates], *more), {"hidden_size": 3, "direction": "bidirectional"} | a, (2, 4),
             opsets=(11, 14, 18), batch=2, forward=unrolled(gates, (1, -1), a.get("linear_before_reset", 0)),
             **ON_RUNTIME)
        for op, gates, a, more in (
            ("LSTM", 4, {}, ()),
            ("LSTM", 4, {}, (np.array([2, 2], np.int32), np.zeros((2, 2, 3)), np.zeros((2, 2, 3)))),
            ("GRU", 3, {}, ()),
            ("GRU", 3, {"linear_before_reset": 1}, ("", np.zeros((2, 2, 3)))),
            ("RNN", 1, {}, ()),
        )
    ),
    Case("LSTM", (X, *(w[1:] for w in WEIGHTS[4])), {"hidden_size": 3, "direction": "reverse"}, (5, 4),
         opsets=(14,), **ON_RUNTIME, forward=lambda x: unrolled(4)(x)[:, 1:]),
    Case("GlobalLpPool", (X,), {"p": 3}, (2, 3, 4), draw=positive, forward=lambda x:
         (x**3).sum((2, 3), keepdims=True) ** (1 / 3), **ON_RUNTIME),
    # opset 7 to 10, whose operators are written as those of opset 11
    *(
        Case(op, inputs, attributes, (2, 3, 4), opsets=opsets, runtime="both", dtype=np.float32, step=step)
        for op, inputs, attributes, opsets, step in (
            ("Upsample", (X,), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, (7, 8), 1.0),
            ("Upsample", (X, np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}, (9,), 1.0),
            ("Upsample", (X, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}, (9,), 1.0),
            ("Resize", (X, np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}, (10,), 1.0),
            ("Resize", (X, np.array([1, 1, 0.7, 0.5], np.float32)), {"mode": "nearest"}, (10,), 1.0),
            ("Resize", (X, np.array([1, 1, 1.5, 2], np.float32)), {"mode": "linear"}, (10,), 1.0),
            ("Slice", (X,), {"starts": [1, 0], "ends": [3, 2], "axes": [3, 2]}, (9,), 1.0),
            ("Slice", (X, ints(1), ints(3), ints(3)), {}, (10,), 1.0),
            ("Pad", (X,), {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 1.0}, (9, 10), 1.0),
            ("Scatter", (X, ints(2, 0).reshape(1, 1, 1, 2), normal(1, 1, 1, 2)), {"axis": 3}, (9, 10), 1.0),
            ("Pad", (X,), {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": "reflect"}, (9,), 1.0),
        )
    ),
    Case("Clip", (X,), {"min": -0.5, "max": 0.7}, opsets=(9, 10), runtime="vjp", dtype=np.float32,
         forward=lambda x: np.clip(x, -0.5, 0.7)),
    Case("TopK", (X, ints(2)), {"axis": 1}, (5, 3), opsets=(10,), runtime="vjp", more=1, dtype=np.float32,
         forward=lambda x: -np.sort(-x, axis=1)[:, :2]),
    # operators that are expanded
    *(Case(op, opsets=(18, 22)) for op in ("Softsign", "ThresholdedRelu", "Shrink", "Mish")),
    Case("ThresholdedRelu", (X,), {"alpha": 0.3}, opsets=(10, 13, 22), **ON_RUNTIME,
         forward=lambda x: np.where(x > 0.3, x, 0)),
    Case("Shrink", (X,), {"lambd": 0.3, "bias": 0.2}, opsets=(9, 13, 22), **ON_RUNTIME,
         forward=lambda x: np.where(x > 0.3, x - 0.2, np.where(x < -0.3, x + 0.2, 0))),
    Case("Softsign", opsets=(9, 13), **ON_RUNTIME, forward=lambda x: x / (1 + np.abs(x))),
    Case("Celu", (X,), {"alpha": 1.5}, opsets=(12, 18), **ON_RUNTIME, forward=lambda x: np.where(x > 0, x,
         1.5 * np.expm1(x / 1.5))),
    Case("Swish", (X,), {"alpha": 1.3}, opsets=(24,)),
    Case("MeanVarianceNormalization", image=(3, 2, 4), **ON_RUNTIME, forward=lambda x: (x - x.mean((0, 2,
         3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)),
    Case("GroupNormalization", (X, GAMMA, BIAS), {"num_groups": 2}, (4, 2, 3), opsets=(21,), **ON_RUNTIME,
         forward=group_normalized),
    Case("RMSNormalization", (X, normal(4)), {"epsilon": 0.01}, opsets=(23,)),
    Case("Attention", (X, X, X), {"q_num_heads": 2, "kv_num_heads": 2}, (3, 8), opsets=(23, 24)),
    Case("Attention", (X, X, X), {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1, "scale": 0.3}, (3, 8),
         opsets=(23, 24)),
    Case("Attention", (X, normal(2, 2, 5, 4), normal(2, 2, 5, 3), normal(3, 5)), {"softcap": 2.0}, (4, 3, 4),
         opsets=(23, 24), batch=2),
    Case("Attention", (normal(2, 3, 8), X, X, ~np.eye(3, dtype=bool)), {"q_num_heads": 4, "kv_num_heads": 2},
         (3, 4), opsets=(23, 24), batch=2),
    Case("LpNormalization", (X,), {"axis": 1, "p": 2}),
    Case("LpNormalization", (X,), {"axis": -1, "p": 1}, opsets=(11, 21), forward=lambda x: x /
         np.abs(x).sum(-1, keepdims=True)),
    Case("LpPool", (X,), {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 0, 1], "p": 3}, (2, 5,
         6)),
    *(
        Case("LpPool", (X,), {"kernel_shape": [2, 3], "strides": [2, 1], "auto_pad": mode, "p": 3}, (2, 5, 6),
             opsets=(11, 18, 22))
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("LRN", (X,), {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.5}, (5, 2, 3), forward=lambda x: x /
         (1.5 + 0.5 / 3 * across_channels(x**2, 1, 1)) ** 0.6),
    Case("LRN", (X,), {"size": 4, "alpha": 0.5}, (5, 2, 3), forward=lambda x: x / (1 + 0.5 / 4 *
         across_channels(x**2, 1, 2)) ** 0.75),
    fused("FusedConv", (X, KERNEL, OFFSET), {"pads": [1, 1, 1, 1], "activation": "Relu"}, lambda x:
         np.maximum(convolved(x), 0), image=(2, 4, 5)),
    fused("FusedConv", (X, KERNEL, OFFSET), {"pads": [1, 1, 1, 1], "activation": "HardSigmoid",
         "activation_params": [0.1, 0.4]}, lambda x: np.clip(convolved(x) / 10 + 0.4, 0, 1), image=(2, 4, 5)),
    fused("FusedGemm", (X, MATRIX, np.ones(5)), {"activation": "LeakyRelu", "activation_alpha": 0.3}, lambda
         x: leaky(x @ MATRIX + 1), image=(4,)),
    fused("FusedMatMul", (X, MATRIX.T), {"transB": 1, "alpha": 0.5}, lambda x: 0.5 * x @ MATRIX),
    fused("Gelu", (X,), {}, lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    fused("BiasGelu", (X, BIAS), {}, lambda x: (x + BIAS) * (1 + ERF((x + BIAS) / math.sqrt(2))) / 2),
    fused("FastGelu", (X, BIAS), {}, lambda x: tanh_gelu(x + BIAS)),
    fused("QuickGelu", (X,), {"alpha": 1.5}, lambda x: x / (1 + np.exp(-1.5 * x))),
    Case("SimplifiedLayerNormalization", (X, GAMMA), {"epsilon": 0.1, "axis": -1}, opsets=(17,), **ON_RUNTIME,
         forward=lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1) * GAMMA),
    fused("SkipSimplifiedLayerNormalization", (X, SKIP, GAMMA), {"epsilon": 0.1}, lambda x: (x + SKIP)
         / np.sqrt(((x + SKIP) ** 2).mean(-1, keepdims=True) + 0.1) * GAMMA, batch=2),
    fused("SkipLayerNormalization", (X, SKIP, GAMMA, BIAS), {"epsilon": 0.1}, lambda x: normalized(x +
         SKIP), batch=2),
    Case("LayerNormalization", (X, GAMMA, BIAS), {"epsilon": 0.1}, opsets=(13,), runtime="vjp",
         dtype=np.float32, forward=normalized),
]
# fmt: on
