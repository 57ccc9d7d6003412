"""Differentiation rules by kind of operator; importing this package registers them."""

from ncen_tf.onnx_grad.rules import (
    elementwise,
    functions,
    gather,
    indexing,
    linear,
    pools,
    quantization,
    recurrent,
    resize,
    windows,
)

__all__ = [
    "elementwise",
    "functions",
    "gather",
    "indexing",
    "linear",
    "pools",
    "quantization",
    "recurrent",
    "resize",
    "windows",
]
