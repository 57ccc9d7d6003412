"""Differentiation rules by kind of operator; importing this package registers them all."""

from ncen_tf.onnx_grad.rules import (
    activation,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    reduction,
    selection,
    shape,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "selection",
    "shape",
]
