"""Every rule against central finite differences of a one-node model in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ncen_tf.onnx_grad import gradient_model, supported_ops
from ncen_tf.onnx_grad.expansion import expanded_ops

Array = NDArray[Any]
RNG = np.random.default_rng(0)
BATCH = 2
TOLERANCE: dict[type, float] = {np.float64: 1e-6, np.float32: 1e-5}


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def positive(*shape: int) -> Array:
    return RNG.uniform(0.5, 2.0, shape)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


ERF = np.vectorize(math.erf)
X = "image"  # where a node's input is the image itself


@dataclass(frozen=True)
class Case:
    """One node `op(*inputs, **attributes)`, of whose inputs those equal to X are the image."""

    op: str
    inputs: tuple[Any, ...] = (X,)
    attributes: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, ...] = (3, 4)
    draw: Any = normal
    opsets: tuple[int, ...] = (13,)
    outputs: int = 1
    batch: str | int = "N"
    # What onnxruntime has to compute, in `dtype`, where onnx's reference evaluator is wrong:
    # the vector-Jacobian product ("vjp"), or also the finite differences ("both").
    runtime: str = ""
    dtype: type = np.float64
    step: float = 1e-6
    forward: Callable[[Array], Array] | None = None  # another float64 forward function
    domain: str = ""
    more: int = 0  # outputs that are not differentiated


IMAGE = (4, 7, 6)


def conv(channels: int, kernel: tuple[int, int] = (3, 3), **attributes: Any) -> Case:
    kernels = normal(channels, 4 // attributes.get("group", 1), *kernel)
    return Case("Conv", (X, kernels, normal(channels)), attributes, IMAGE, opsets=(11, 21))


def conv_transpose(channels: int, image: tuple[int, ...] = (4, 4, 3), **attributes: Any) -> Case:
    """On onnxruntime, which has float32 only; the operator is linear, so any step is exact."""
    kernels = normal(4, channels, 3, 3)
    return Case("ConvTranspose", (X, kernels), attributes, image, runtime="both", dtype=np.float32, step=1.0)


def average_pool(opset: int = 11, image: tuple[int, ...] = (2, 7, 6), **attributes: Any) -> Case:
    attributes.setdefault("kernel_shape", [3, 3])
    return Case("AveragePool", (X,), attributes, image, opsets=(opset,))


def max_pool_same_lower(x: Array) -> Array:
    """3 x 3, stride 2, of a 7 x 6 image: padded by 1 above, below and left."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.asarray(windows[:, :, ::2, ::2].max((-1, -2)))


def max_pool(
    image: tuple[int, ...] = (2, 7, 6),
    forward: Callable[[Array], Array] | None = None,
    **attributes: Any,
) -> Case:
    """On onnxruntime: the reference evaluator's MaxPool gives wrong indices where it pads, and its
    MaxUnpool fails where windows leave a remainder."""
    attributes.setdefault("kernel_shape", [3, 3])
    return Case("MaxPool", (X,), attributes, image, runtime="vjp", dtype=np.float32, forward=forward)


def reduction(op: str, axes: list[int], keepdims: int, **kwargs: Any) -> list[Case]:
    """With axes as an attribute, and as an input."""
    since = 13 if op == "ReduceSum" else 18
    attribute = {"axes": axes, "keepdims": keepdims}
    return [
        Case(op, (X,), attribute, (3, 2, 4), opsets=(11,) if since == 13 else (11, 13, 17), **kwargs),
        Case(op, (X, ints(*axes)), {"keepdims": keepdims}, (3, 2, 4), opsets=(since, 21), **kwargs),
    ]


def resize(sizes: tuple[int, ...] = (), scales: tuple[float, ...] = (), opset: int = 13, **a: Any) -> Case:
    """On onnxruntime, which has float32 only; the operator is linear, so any step is exact."""
    factors = np.array([1, 1, *scales], np.float32) if scales else ""
    inputs = (X, "", factors, *([ints(2, 2, *sizes)] if sizes else ()))
    kind = {"runtime": "both", "dtype": np.float32, "step": 1.0}
    return Case("Resize", inputs, a, (2, 6, 7), opsets=(opset,), batch=2, **kind)  # type: ignore[arg-type]


GAMMA, BIAS, SKIP = normal(4), normal(4), normal(2, 3, 4)
KERNEL, OFFSET, MATRIX = normal(3, 2, 3, 3), normal(3), normal(4, 5)


ON_RUNTIME: dict[str, Any] = {"runtime": "vjp", "dtype": np.float32}


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


ALL = (11, 13, 17, 21)

# fmt: off
CASES = [
    # convolution: stride 1 (flipped), strides (sub-pixel), and what only ConvTranspose does
    conv(3),
    conv(3, pads=[1, 1, 1, 1]),
    conv(3, pads=[2, 0, 1, 2]),
    conv(3, dilations=[2, 1], pads=[1, 1, 1, 1]),
    conv(6, group=2, pads=[1, 1, 1, 1]),
    conv(4, group=4, pads=[1, 1, 1, 1]),
    conv(8, group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv(3, strides=[2, 2]),
    conv(3, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv(3, strides=[2, 2], pads=[0, 0, 1, 1]),
    conv(3, (1, 1), strides=[2, 2]),
    conv(3, (1, 1), pads=[1, 1, 1, 1]),
    conv(3, (1, 1), strides=[2, 2], pads=[1, 1, 1, 1]),
    conv(3, (2, 2), strides=[3, 3]),
    conv(3, (5, 4), strides=[3, 3], pads=[2, 1, 2, 1]),
    conv(3, strides=[2, 1], pads=[1, 1, 1, 1]),
    conv(3, strides=[2, 2], dilations=[2, 2], pads=[2, 2, 2, 2]),
    conv(3, auto_pad="SAME_UPPER"),
    conv(3, auto_pad="SAME_UPPER", strides=[2, 2]),
    conv(3, (2, 4), auto_pad="SAME_LOWER", strides=[2, 2]),
    conv(3, auto_pad="VALID", strides=[2, 2]),
    Case("Conv", (X, normal(3, 4, 3)), {"pads": [1, 1]}, (4, 6)),
    Case("Conv", (X, normal(3, 4, 3)), {"strides": [2]}, (4, 6)),
    Case("Conv", (X, normal(2, 1, 2, 2, 2)), {"pads": [1, 0, 0, 0, 1, 0]}, (1, 3, 3, 3)),
    conv_transpose(3),
    conv_transpose(3, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv_transpose(3, strides=[2, 2], pads=[1, 1, 0, 1], output_padding=[1, 1]),
    conv_transpose(3, strides=[2, 2], auto_pad="SAME_UPPER"),
    conv_transpose(2, group=2, dilations=[2, 1]),
    conv_transpose(2, strides=[2, 2], output_shape=[8, 6]),
    # pooling
    max_pool(),
    max_pool(strides=[2, 2], pads=[1, 1, 1, 1]),
    max_pool(strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1),
    max_pool(kernel_shape=[2, 2], strides=[2, 2]),
    max_pool(kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    max_pool(strides=[2, 2], auto_pad="SAME_LOWER", forward=max_pool_same_lower),
    max_pool(strides=[2, 1], dilations=[1, 2]),
    max_pool(image=(2, 9), kernel_shape=[3], strides=[2]),
    average_pool(),
    average_pool(strides=[2, 2], pads=[1, 1, 1, 1]),
    average_pool(strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    average_pool(kernel_shape=[2, 2], strides=[2, 2]),
    average_pool(19, strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    average_pool(19, pads=[1, 1, 1, 1], dilations=[2, 1], count_include_pad=1),
    average_pool(strides=[2, 2], auto_pad="SAME_UPPER"),
    average_pool(image=(2, 9), kernel_shape=[3], strides=[2]),
    Case("GlobalAveragePool", image=(2, 3, 4)),
    Case("GlobalMaxPool", image=(2, 3, 4)),
    # arithmetic: full, broadcast from either side, both operands the image
    *(
        Case(op, inputs, draw=positive, batch=2)
        for op in ("Add", "Sub", "Mul", "Div", "Pow")
        for inputs in (
            (X, X),
            (X, positive(4)),
            (positive(3, 1), X),
            (X, positive(2, 2, 3, 4)),
            (positive(1, 3, 4), X),
        )
    ),
    Case("Pow", (X, np.array(2.0))),
    Case("Pow", (X, np.array([0.0, 1.0, 2.0, 3.0]))),
    Case("Pow", (X, np.array(3, np.int64))),
    *(Case(op, (X, normal(4), normal(3, 1))) for op in ("Sum", "Mean", "Max", "Min")),
    *(Case(op, (normal(2, 2, 3, 4), X, X), batch=2) for op in ("Sum", "Mean")),
    Case("Max", (X,)),
    Case("Where", (np.array([True, False, False, True]), X, normal(2, 2, 3, 4)), batch=2),
    Case("Where", (RNG.random((2, 2, 3, 4)) < 0.5, normal(1), X), batch=2),
    *(Case(op) for op in ("Neg", "Abs", "Exp", "Identity", "Dropout")),
    Case("Erf", forward=ERF),  # the reference evaluator's is float32
    *(Case(op, draw=positive) for op in ("Log", "Sqrt", "Reciprocal")),
    Case("Cast", (X,), {"to": TensorProto.DOUBLE}),
    Case("Dropout", (X, np.array(0.5, np.float32), np.array(False)), {}),
    # activation
    *(Case(op) for op in ("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "Tanh")),
    *(Case(op) for op in ("Softplus",)),
    Case("HardSwish", draw=lambda *shape: 4 * normal(*shape), opsets=(14, 21)),
    Case("LeakyRelu", (X,), {"alpha": 0.3}),
    Case("LeakyRelu", (X,), {"alpha": -0.3}),
    Case("Elu", (X,), {"alpha": 0.5}),
    Case("HardSigmoid", (X,), {"alpha": 0.5, "beta": 0.2}),
    Case("PRelu", (X, normal(3, 1))),
    Case("PRelu", (normal(2, 3, 4), X)),
    Case("Clip", (X, np.array(-0.5), np.array(0.7)), opsets=ALL),
    Case("Clip", (X, "", np.array(0.7))),
    Case("Clip", (X, np.array(-0.5))),
    Case("Gelu", opsets=(20, 21), forward=lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    Case("Gelu", (X,), {"approximate": "tanh"}, opsets=(20,)),
    *(
        case
        for op in ("Softmax", "LogSoftmax")
        for attributes in ({}, {"axis": 1}, {"axis": -1}, {"axis": 2})
        for case in (
            Case(op, (X,), attributes, (3, 2, 4), opsets=(13, 17, 21)),
            # the reference evaluator does not flatten
            Case(op, (X,), attributes, (3, 2, 4), opsets=(11,), runtime="both"),
        )
    ),
    # linear
    Case("MatMul", (X, normal(4, 5)), image=(4,)),
    Case("MatMul", (X, normal(4, 5))),
    Case("MatMul", (X, normal(4))),
    Case("MatMul", (normal(3), X)),
    Case("MatMul", (normal(5, 3), X)),
    Case("MatMul", (normal(2, 5, 3), X), batch=2),
    Case("MatMul", (X, normal(3, 1, 4, 2))),
    Case("MatMul", (normal(3, 2, 5, 3), X), batch=2),
    Case("MatMul", (X, X), image=(3, 3)),
    Case("Gemm", (X, normal(4, 5), normal(5)), {"alpha": 0.5, "beta": 2.0}, (4,)),
    Case("Gemm", (X, normal(5, 4)), {"transB": 1}, (4,)),
    Case("Gemm", (X, normal(BATCH, 5)), {"transA": 1}, (4,), batch=2),
    Case("Gemm", (X, normal(5, BATCH)), {"transA": 1, "transB": 1}, (4,), batch=2),
    Case("Gemm", (normal(5, BATCH), X), {"alpha": 2.0}, (4,), batch=2),
    Case("Gemm", (normal(BATCH, 5), X), {"transA": 1}, (4,), batch=2),
    Case("Gemm", (normal(5, 4), X), {"transB": 1}, (4,)),
    Case("Gemm", (normal(4, 5), X), {"transA": 1, "transB": 1}, (4,), batch=2),
    Case("Gemm", (normal(BATCH, 5), normal(5, 4), X), {"beta": 0.5}, (4,), batch=2),
    # normalization
    Case("BatchNormalization", (X, *(positive(3) for _ in range(4))), {"epsilon": 0.01}, (3, 2, 2),
         opsets=(14, 15)),
    # the reference evaluator trains
    Case("BatchNormalization", (X, *(positive(3) for _ in range(4))), image=(3, 2, 2), opsets=(11,),
         runtime="both"),
    Case("BatchNormalization", (X, *(positive(4) for _ in range(4))), image=(4,), opsets=(14,)),
    Case("LayerNormalization", (X, normal(4), normal(4)), opsets=(17, 21)),
    Case("LayerNormalization", (X, normal(3, 4)), {"axis": 1, "epsilon": 0.1}, opsets=(17,)),
    Case("InstanceNormalization", (X, normal(3), normal(3)), image=(3, 2, 4), opsets=(11, 21)),
    # reduction
    *(
        case
        for op in (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
            "ReduceProd",
        )
        for axes, keepdims in (([2, 3], 1), ([-1], 0), ([1, 2], 0), ([0, 2], 1))
        for case in reduction(op, axes, keepdims)
    ),
    *(
        case
        for axes, keepdims in (([1, 2], 1), ([-1], 0))
        for case in reduction("ReduceLogSum", axes, keepdims, draw=positive)
    ),
    Case("ReduceProd", (X,), {"axes": [1]}, (3, 4), draw=lambda *shape: normal(*shape) * (RNG.random(shape) <
         0.7)),
    Case("ReduceMean", (X,), {"keepdims": 0}, opsets=(11, 18)),
    # moving, joining, cutting
    Case("Reshape", (X, ints(-1, 12)), opsets=(11, 21)),
    Case("Reshape", (X, ints(0, 2, -1))),
    Case("Flatten", opsets=(11, 21)),
    Case("Squeeze", (X,), {"axes": [1]}, (1, 4), opsets=(11,)),
    Case("Squeeze", (X, ints(1, -1)), {}, (1, 4, 1)),
    Case("Unsqueeze", (X,), {"axes": [1, 3]}, opsets=(11,)),
    Case("Unsqueeze", (X, ints(0, -1))),
    Case("Transpose", (X,), {"perm": [0, 3, 1, 2]}, (2, 3, 4)),
    Case("Transpose", (X,), {"perm": [0, 3, 1, 2]}, (2, 3, 1)),
    Case("Transpose"),
    Case("Expand", (X, ints(2, 1, 3, 4)), {}, (1, 4)),
    Case("Concat", (X, normal(2, 2, 4), X), {"axis": 1}, batch=2),
    Case("Concat", (X, normal(2, 3, 1)), {"axis": -1}, batch=2),
    Case("Concat", (X, normal(1, 3, 4), X), {"axis": 0}),
    Case("Split", (X,), {"axis": 2, "split": [1, 3]}, opsets=(11,), outputs=2),
    Case("Split", (X, ints(1, 3)), {"axis": 2}, outputs=2),
    Case("Split", (X,), {"axis": -1, "num_outputs": 2}, opsets=(18,), outputs=2),
    Case("Slice", (X, ints(1), ints(3), ints(1))),
    Case("Slice", (X, ints(0, 0), ints(2**63 - 1, 2**63 - 1), ints(2, 3), ints(2, 2)), image=(2, 5, 4)),
    Case("Slice", (X, ints(-1, 3), ints(-(2**63), 1), ints(1, 2), ints(-2, -1)), image=(4, 5)),
    Case("Slice", (X, ints(0, 1, -3), ints(2**63 - 1, 3, -1))),
    Case("Slice", (X, ints(1), ints(4), ints(2), ints(3))),
    Case("Pad", (X, ints(0, 1, 2, 0, 0, 1), np.array(0.5)), opsets=(11, 21)),
    Case("Pad", (X, ints(0, -1, 2, 0, 1, -2)), runtime="both"),  # the reference does not crop
    Case("Pad", (X, ints(1, 2), np.array(0.0), ints(2)), opsets=(18,)),
    Case("Pad", (X, ints(0, 1, 2, 0, 2, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 1, 2, 0, 0, 1)), {"mode": "edge"}),
    Case("Gather", (X, np.array(1)), {"axis": 1}),
    Case("Gather", (X, ints(-1)), {"axis": 2}),
    Case("Gather", (X, np.array([[0, 2], [2, -3]])), {"axis": 1}),
    Case("Gather", (X, np.array([1, 0, 1])), {"axis": 0}, opsets=(16, 18), runtime="vjp"),
    Case("Gather", (X, np.array([[1], [0]], np.int32)), {"axis": 0}, opsets=(16,), runtime="vjp"),
    Case("Slice", (X, ints(1), ints(2), ints(0)), runtime="vjp"),
    Case("Slice", (X, ints(0, 1), ints(1, 3), ints(0, 1)), runtime="vjp"),
    Case("GatherElements", (X, RNG.integers(-3, 3, (2, 2, 4))), {"axis": 1}, opsets=(16, 18), batch=2),
    Case("GatherND", (X, np.array([[0, 1], [1, 2], [0, 1]])), {}, opsets=(16,), runtime="vjp", batch=2),
    Case("ScatterElements", (X, ints(*(2, 0) * 4).reshape(2, 1, 4), normal(2, 1, 4)), {"axis": 1}, batch=2),
    Case("ScatterElements", (normal(2, 5, 4), RNG.permuted(np.tile(np.arange(5), (2, 4, 1)),
         axis=2).transpose(0, 2, 1)[:, :3], X), {"axis": 1}, batch=2),
    Case("ScatterElements", (normal(2, 3, 4), RNG.integers(0, 3, (2, 3, 4)), X), {"axis": 1, "reduction":
         "add"}, opsets=(18,), batch=2),
    Case("ScatterND", (X, np.array([[0, 1], [1, 2]]), normal(2, 4)), runtime="vjp", batch=2),
    Case("ScatterND", (normal(5, 3, 4), ints(3, 1).reshape(2, 1), X), batch=2),
    Case("TopK", (X, ints(2)), {"axis": 1}, (5, 3), runtime="vjp", opsets=(11, 21), more=1),
    Case("TopK", (X, ints(2)), {"largest": 0}, (5,), runtime="vjp", more=1),
    Case("Tile", (X, ints(1, 2, 3))),
    Case("Tile", (X, ints(2, 1, 1))),
    Case("DepthToSpace", (X,), {"blocksize": 2}, (8, 3, 2)),
    Case("DepthToSpace", (X,), {"blocksize": 2, "mode": "CRD"}, (8, 3, 2)),
    Case("SpaceToDepth", (X,), {"blocksize": 2}, (2, 4, 6)),
    Case("Trilu", (X, np.array(1)), {"upper": 0}, opsets=(14,)),
    Case("Trilu", opsets=(14,)),
    *(
        Case("CumSum", (X, np.array(axis)), {"reverse": reverse, "exclusive": exclusive})
        for axis, reverse, exclusive in ((1, 0, 0), (-1, 1, 0), (2, 0, 1), (1, 1, 1))
    ),
    Case("CastLike", (X, normal(1)), opsets=(15, 21)),
    *(Case(op, opsets=(11, 22)) for op in ("Sin", "Cos")),
    # sums of products
    Case("Einsum", (X, normal(4, 5)), {"equation": "bij,jk->bik"}),
    Case("Einsum", (normal(4, 3, 5), X), {"equation": "jik , bij -> bk"}, opsets=(12, 21)),
    Case("Einsum", (X, X), {"equation": "bij,bkj->bik"}),
    Case("Einsum", (X,), {"equation": "bij->bj"}),
    Case("Einsum", (X, normal(4, 5)), {"equation": "...j,jk"}),
    Case("Einsum", (X, normal(2, 3, 4)), {"equation": "...ij,...ij->...i"}, batch=2),
    # resizing, which is linear
    *(
        resize(mode=mode, coordinate_transformation_mode=coordinates, sizes=sizes)
        for mode in ("nearest", "linear", "cubic")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for sizes in ((9, 10), (3, 4))
    ),
    *(
        resize(mode="nearest", nearest_mode=near, coordinate_transformation_mode=where, scales=scales)
        for near in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for where in ("half_pixel", "asymmetric")
        for scales in ((2.0, 3.0), (0.6, 1.7))
    ),
    resize(mode="linear", scales=(1.7, 0.6)),
    resize(mode="cubic", scales=(2.0, 2.0), cubic_coeff_a=-0.5),
    resize(mode="cubic", sizes=(9, 4), exclude_outside=1),
    resize(mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn", scales=(2.0, 2.0)),
    resize(mode="linear", coordinate_transformation_mode="half_pixel_symmetric", scales=(1.7, 2.6), opset=19),
    # opset 9 and 10, whose operators are written as those of opset 11
    *(
        Case(op, inputs, attributes, (2, 3, 4), opsets=opsets, runtime="both", dtype=np.float32, step=step)
        for op, inputs, attributes, opsets, step in (
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
    Case("Celu", (X,), {"alpha": 1.5}, opsets=(12, 18), **ON_RUNTIME, forward=lambda x: np.where(x > 0, x,
         1.5 * np.expm1(x / 1.5))),
    Case("Swish", (X,), {"alpha": 1.3}, opsets=(24,)),
    Case("MeanVarianceNormalization", image=(3, 2, 4), **ON_RUNTIME, forward=lambda x: (x - x.mean((0, 2,
         3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)),
    Case("GroupNormalization", (X, GAMMA, BIAS), {"num_groups": 2}, (4, 2, 3), opsets=(21,), **ON_RUNTIME,
         forward=group_normalized),
    Case("RMSNormalization", (X, normal(4)), {"epsilon": 0.01}, opsets=(23,)),
    Case("Attention", (X, X, X), {"q_num_heads": 2, "kv_num_heads": 2}, (3, 8), opsets=(23,)),
    Case("LpNormalization", (X,), {"axis": 1, "p": 2}),
    Case("LpNormalization", (X,), {"axis": -1, "p": 1}, opsets=(11, 21), forward=lambda x: x /
         np.abs(x).sum(-1, keepdims=True)),
    Case("LpPool", (X,), {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 0, 1], "p": 3}, (2, 5,
         6)),
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
    fused("SkipLayerNormalization", (X, SKIP, GAMMA, BIAS), {"epsilon": 0.1}, lambda x: normalized(x +
         SKIP), batch=2),
    Case("LayerNormalization", (X, GAMMA, BIAS), {"epsilon": 0.1}, opsets=(13,), runtime="vjp",
         dtype=np.float32, forward=normalized),
]
# fmt: on


def one_node_model(case: Case, opset: int, dtype: type) -> onnx.ModelProto:
    names, initializers = [], []
    for index, value in enumerate(case.inputs):
        if isinstance(value, str):
            names.append("x" if value == X else "")
        else:
            names.append(f"c{index}")
            typed = value.astype(dtype) if value.dtype == np.float64 else value
            initializers.append(numpy_helper.from_array(typed, f"c{index}"))
    outputs = [f"y{i}" for i in range(case.outputs)]
    more = [f"more{i}" for i in range(case.more)]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(case.op, names, [*outputs, *more], "node", domain=case.domain, **case.attributes)],
        "one node",
        [helper.make_tensor_value_info("x", element, [case.batch, *case.image])],
        [helper.make_tensor_value_info(y, element, None) for y in outputs],
        initializers,
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
            ir_version=max(4, min(10, opset - 4)),
        )
    )


def evaluator(model: onnx.ModelProto, on_runtime: bool) -> Callable[[dict[str, Array]], list[Any]]:
    """Runs a model on onnxruntime's CPU provider or on onnx's reference evaluator."""
    if not on_runtime:
        reference = ReferenceEvaluator(model)
        return lambda feeds: list(reference.run(None, feeds))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def finite_differences(f: Callable[[Array], Array], x: Array, v: Array, step: float) -> Array:
    """Central differences of <v, f(x)> by each entry of x."""
    gradient = np.empty_like(x)
    for position in np.ndindex(*x.shape):
        change = np.zeros_like(x)
        change[position] = step
        gradient[position] = np.sum(v * (f(x + change) - f(x - change))) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("case", "opset"),
    [
        pytest.param(case, opset, id=f"{index}-{case.op}-{opset}")
        for index, case in enumerate(CASES)
        for opset in case.opsets
    ],
)
def test_matches_finite_differences(case: Case, opset: int) -> None:
    rng = np.random.default_rng(1)
    x = case.draw(BATCH, *case.image)
    model = one_node_model(case, opset, case.dtype)
    both = case.runtime == "both"
    exact = None
    if case.forward is None:
        exact = evaluator(model if both else one_node_model(case, opset, np.float64), both)
    for index in range(case.outputs):

        def forward(x: Array, index: int = index) -> Array:
            if exact is None:
                return np.asarray(case.forward(x))  # type: ignore[misc]
            return np.asarray(exact({"x": x.astype(case.dtype) if both else x})[index])

        v = rng.normal(size=forward(x).shape)
        expected = finite_differences(forward, x, v, case.step)
        gradient = evaluator(gradient_model(model, f"y{index}"), bool(case.runtime))
        feeds = {"x": x.astype(case.dtype), f"y{index}_cotangent": v.astype(case.dtype)}
        outputs = gradient(feeds)
        found = outputs[-1]
        np.testing.assert_allclose(outputs[index], forward(x), rtol=1e-4, atol=1e-5)
        assert found.shape == x.shape
        error = np.linalg.norm(found - expected) / max(1.0, float(np.linalg.norm(expected)))
        assert error < TOLERANCE[case.dtype]


def test_every_rule_and_expansion_has_a_case() -> None:
    assert set(supported_ops()) | set(expanded_ops()) <= {case.op for case in CASES}
