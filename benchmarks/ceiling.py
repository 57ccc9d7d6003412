"""Measure matrix products and convolutions in TensorFlow and PyTorch: no model on this machine is faster."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.results import BenchmarkFlags, Row, Table
from benchmarks.timing import Candidate, Run, Timing, interleaved
from ncen_tf.train.devices import has_native_bfloat16

LAYERS = ((28, 16), (14, 32), (7, 64), (14, 128))
"""Height and width, channels in and out: the three stages of a ResNet on 28 x 28, and a wide layer."""
CALLS = 5


def ceiling(flags: BenchmarkFlags) -> Table:
    """Measure GFLOP/s of matrix products and of 3x3 convolutions.

    A multiplication and an addition are two operations.
    """
    side, images = flags.ceiling_side, flags.ceiling_batch
    operations = {f"matmul, {side}": 2.0 * side**3}
    makers: dict[str, Callable[[str, str], Run]] = {f"matmul, {side}": functools.partial(matmul, side)}
    for size, channels in LAYERS:
        name = f"3x3 convolution, {images} x {size} x {size}, {channels} channels"
        operations[name] = 2.0 * 9 * images * size**2 * channels**2
        makers[name] = functools.partial(convolution, images, size, channels)
    # Where bfloat16 is emulated, a convolution takes minutes.
    precisions = ("float32", "bfloat16") if has_native_bfloat16() else ("float32",)
    candidates: dict[tuple[str, str, str], Candidate] = {
        (name, framework, precision): functools.partial(make, framework, precision)
        for name, make in makers.items()
        for framework in ("TensorFlow", "PyTorch")
        for precision in precisions
    }
    rows: dict[str, Row] = {name: {"GFLOP/s": name} for name in operations}
    for (name, framework, precision), outcome in interleaved(candidates, flags.rounds, calls=CALLS).items():
        rate = operations[name] / outcome.median / 1e9 if isinstance(outcome, Timing) else outcome.reason
        rows[name][f"{framework} {precision}"] = rate
    return Table("The machine's ceiling, measured in the same run", list(rows.values()))


def noise(*shape: int) -> npt.NDArray[np.float32]:
    """Draw normal noise."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def matmul(side: int, framework: str, precision: str) -> Run:
    """Make a product of square matrices."""
    if framework == "TensorFlow":
        a = tf.cast(noise(side, side), precision)
        return functools.partial(tf.function(tf.matmul), a, a)
    from benchmarks.peers.torch_resnet import to_torch

    b = to_torch(noise(side, side), precision)
    return lambda: b @ b


def convolution(images: int, size: int, channels: int, framework: str, precision: str) -> Run:
    """Make a 3x3 convolution of images [size, size, channels] to as many channels."""
    if framework == "TensorFlow":
        x = tf.cast(noise(images, size, size, channels), precision)
        kernel = tf.cast(noise(3, 3, channels, channels), precision)
        return functools.partial(tf.function(tf.nn.conv2d), x, kernel, 1, "SAME")
    from torch.nn.functional import conv2d

    from benchmarks.peers.torch_resnet import to_torch

    x, kernel = noise(images, channels, size, size), noise(channels, channels, 3, 3)
    return functools.partial(conv2d, to_torch(x, precision), to_torch(kernel, precision), padding=1)
