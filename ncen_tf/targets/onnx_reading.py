"""Gradients of ONNX classifiers that were read."""

from pathlib import Path

import onnx
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.onnx_grad import gradient_model, split_gradient_model


def gradient_halves(
    path: Path, model: onnx.ModelProto, output: str, image: str
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The model's forward pass, which hands over what the second model, its backward pass, needs.

    Raises:
        InputError: an operation without a gradient rule, or a graph that makes no sense.
    """
    try:
        return split_gradient_model(gradient_model(model, output, image), output)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # attributes of other types, sizes that do not fit: rules expect valid graphs
        raise InputError(
            f"{path}: its gradient cannot be built ({type(error).__name__}: {str(error)[:300]}); attack it "
            "without gradients instead: --suite=blackbox"
        ) from error


def tensor_dtype(value: onnx.ValueInfoProto) -> tf.DType:
    """TensorFlow's name for a tensor's element type."""
    return tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
