"""Differentiation rules by kind of operator; importing this package registers them."""

from ncen_tf.onnx_grad.rules import elementwise, indexing, linear, resize, windows

__all__ = ["elementwise", "indexing", "linear", "resize", "windows"]
