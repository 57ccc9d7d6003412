"""Cases of convolutions, pools, resizing and sampling."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.onnx_grad.harness import LINEAR, ON_RUNTIME, RNG, Array, Case, X, ints, normal

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


def resize(
    sizes: tuple[int, ...] = (),
    scales: tuple[float, ...] = (),
    opset: int = 13,
    batch: int | str = 2,
    **a: Any,
) -> Case:
    """On onnxruntime, which has float32 only; the operator is linear, so any step is exact."""
    factors = np.array([1, 1, *scales], np.float32) if scales else ""
    inputs = (X, "", factors, *([ints(2, 2, *sizes)] if sizes else ()))
    kind = {"runtime": "both", "dtype": np.float32, "step": 1.0}
    return Case("Resize", inputs, a, (2, 6, 7), opsets=(opset,), batch=batch, **kind)  # type: ignore[arg-type]


GRID = RNG.uniform(-1.3, 1.3, (2, 3, 3, 2))


SAMPLED = normal(2, 2, 4, 5)


def cubic(t: Array) -> Array:
    """Keys' kernel with a = -0.75."""
    t = np.abs(t)
    far = np.where(t < 2, ((-0.75 * t + 3.75) * t - 6) * t + 3, 0)
    return np.asarray(np.where(t <= 1, (1.25 * t - 2.25) * t * t + 1, far))


def sampled(mode: str, padding: str) -> Callable[[Array], Array]:
    """Sample an image at given places: all pixels of an enlarged image, weighed by their distance."""
    wide = np.pad(SAMPLED, ((0, 0), (0, 0), (9, 9), (9, 9)), PADDINGS[padding])  # type: ignore[call-overload]

    def kernel(t: Array) -> Array:
        return np.maximum(0, 1 - np.abs(t)) if mode == "linear" else cubic(t)

    def sample(grid: Array) -> Array:
        columns, rows = (((grid[..., i] + 1) * size - 1) / 2 + 9 for i, size in enumerate((5, 4)))
        along = (kernel(at[..., None] - np.arange(18 + size)) for at, size in ((rows, 4), (columns, 5)))
        return np.asarray(np.einsum("nijr,nijk,ncrk->ncij", *along, wide))

    return sample


PADDINGS = {"zeros": "constant", "border": "edge", "reflection": "symmetric"}


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
    # ... by the kernels and the biases
    Case("Conv", (X, X), {}, (4, 3, 3), step=1e-5),
    Case("Conv", (normal(3, 4, 7, 6), X), {"strides": [2, 2], "pads": [1, 0, 1, 1]}, (4, 3, 2)),
    Case("Conv", (normal(3, 4, 7, 6), X), {"dilations": [2, 1], "auto_pad": "SAME_UPPER"}, (4, 2, 3)),
    Case("Conv", (normal(3, 4, 7, 6), X), {"group": 2, "strides": [3, 2]}, (2, 3, 3)),
    Case("Conv", (normal(1, 2, 6, 6), X), {"group": 2, "strides": [1, 2], "pads": [1] * 4}, (1, 2, 2)),
    Case("Conv", (normal(3, 4, 7), X), {"strides": [2]}, (4, 3)),
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
    *(
        resize(mode=mode, antialias=1, sizes=sizes, opset=18, coordinate_transformation_mode=where)
        for mode in ("linear", "cubic")
        for sizes in ((3, 4), (9, 5))
        for where in ("half_pixel", "align_corners")
    ),
    *(
        Case("Resize", (X, "", "", ints(4, 9)),
             {"mode": "linear", "keep_aspect_ratio_policy": policy, "axes": [2, 3]}, (2, 6, 7), opsets=(18,),
             batch=2, **LINEAR)
        for policy in ("not_larger", "not_smaller")
    ),
    *(resize(mode=mode, sizes=(9, 4), batch="N") for mode in ("nearest", "linear")),  # for two images only
    # pixels at given places
    *(
        Case("GridSample", (X, GRID), {"mode": mode, "padding_mode": padding, "align_corners": align},
             (2, 4, 5), opsets=(opset,), batch=2, **LINEAR)
        for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic")))
        for mode in modes
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ),
    *(
        Case("GridSample", (SAMPLED, X), {"mode": mode, "padding_mode": padding}, (3, 3, 2),
             draw=lambda *s: RNG.uniform(-1.2, 1.2, s), opsets=(20,), batch=2,
             **ON_RUNTIME, forward=sampled(mode, padding))
        for mode in ("linear", "cubic")
        for padding in ("zeros", "border", "reflection")
    ),
    Case("Col2Im", (X, ints(5, 6), ints(2, 3)), {"pads": [1, 0, 0, 1], "strides": [2, 1]}, (12, 15),
         opsets=(18,)),
]
# fmt: on
