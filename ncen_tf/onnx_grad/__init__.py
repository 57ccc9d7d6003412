"""Gradients of ONNX classifiers, built by reverse-mode differentiation on the graph itself."""

from ncen_tf.onnx_grad import expansions, rules
from ncen_tf.onnx_grad.differentiation import gradient_model
from ncen_tf.onnx_grad.models import split_gradient_model
from ncen_tf.onnx_grad.registry import UnsupportedOpError, supported_ops

__all__ = [
    "UnsupportedOpError",
    "expansions",
    "gradient_model",
    "rules",
    "split_gradient_model",
    "supported_ops",
]
