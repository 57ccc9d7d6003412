"""Expansions by kind of operator; importing this package registers them."""

from ncen_tf.onnx_grad.expansions import fused, older, recurrent, sampling, sklearn, standard

__all__ = ["fused", "older", "recurrent", "sampling", "sklearn", "standard"]
