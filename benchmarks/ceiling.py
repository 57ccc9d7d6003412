"""Measure matrix products and convolutions in TensorFlow and PyTorch: no model on this machine is faster."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.results import BenchmarkFlags, Row, Table
from benchmarks.timing import Candidate, Run, Timing, interleaved

LAYERS = ((28, 16), (14, 32), (7, 64), (14, 128))
"""Height and width, channels in and out: the three stages of a ResNet on 28 x 28, and a wide layer."""
CALLS = 5


def ceiling(flags: BenchmarkFlags) -> Table:
    """Measure GFLOP/s of matrix products and of 3x3 convolutions.

    A multiplication and an addition are two operations.
    """
    side, images = flags.ceiling_side, flags.ceiling_batch
    operations = {f"matmul, {side}": 2.0 * side**3}
    makers: dict[str, dict[str, Callable[[str], Run]]] = {
        f"matmul, {side}": {
            "TensorFlow": functools.partial(tensorflow_matmul, side),
            "PyTorch": functools.partial(torch_matmul, side),
        }
    }
    for size, channels in LAYERS:
        name = f"3x3 convolution, {images} x {size} x {size}, {channels} channels"
        operations[name] = 2.0 * 9 * images * size**2 * channels**2
        makers[name] = {
            "TensorFlow": functools.partial(tensorflow_convolution, images, size, channels),
            "PyTorch": functools.partial(torch_convolution, images, size, channels),
        }
    candidates: dict[tuple[str, str, str], Candidate] = {
        (name, framework, precision): functools.partial(make, precision)
        for name, sides in makers.items()
        for framework, make in sides.items()
        for precision in ("float32", "bfloat16")
    }
    rows: dict[str, Row] = {name: {"GFLOP/s": name} for name in operations}
    for (name, framework, precision), outcome in interleaved(candidates, flags.rounds, calls=CALLS).items():
        rate = operations[name] / outcome.median / 1e9 if isinstance(outcome, Timing) else outcome.reason
        rows[name][f"{framework} {precision}"] = rate
    return Table("The machine's ceiling, measured in the same run", list(rows.values()))


def noise(*shape: int) -> npt.NDArray[np.float32]:
    """Draw normal noise."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def tensorflow_matmul(side: int, precision: str) -> Run:
    a = tf.cast(noise(side, side), precision)
    return functools.partial(tf.function(tf.matmul), a, a)


def torch_matmul(side: int, precision: str) -> Run:
    from benchmarks.peers.torch_resnet import to_torch

    a = to_torch(noise(side, side), precision)
    return lambda: a @ a


def tensorflow_convolution(images: int, size: int, channels: int, precision: str) -> Run:
    x = tf.cast(noise(images, size, size, channels), precision)
    kernel = tf.cast(noise(3, 3, channels, channels), precision)
    convolve = tf.function(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"))
    return functools.partial(convolve, x, kernel)


def torch_convolution(images: int, size: int, channels: int, precision: str) -> Run:
    import torch

    from benchmarks.peers.torch_resnet import to_torch

    x = to_torch(noise(images, channels, size, size), precision)
    kernel = to_torch(noise(channels, channels, 3, 3), precision)
    return functools.partial(torch.nn.functional.conv2d, x, kernel, padding=1)
