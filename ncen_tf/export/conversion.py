"""Convert the members of an ensemble to ONNX files and SavedModels, and run what was converted."""

import json
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import without_patterns
from ncen_tf.data.dataset import Split
from ncen_tf.ensembles.members import all_layers
from ncen_tf.ensembles.penalties import mean_probabilities, stack_logits
from ncen_tf.export.manifest import IMAGE, MEMBER_LOGITS, PROBABILITIES
from ncen_tf.untrusted.memory import noise, try_model
from ncen_tf.untrusted.onnx_file import image_input, open_session, read_model, run_limited
from ncen_tf.untrusted.saved_model import load_saved_model

Array = npt.NDArray[np.float32]
Predict = Callable[[Array], Array]
"""images float32 [N, H, W, C] in [0, 1] -> probabilities [N, classes]"""

CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 64

logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # What it cannot convert is reported below.


def in_float32(member: keras.Model) -> keras.Model:
    """Rebuild a member that computes or stores in another precision, or on several replicas.

    Returns:
        A float32 model with the same weights, or the member itself where it is one.

    Raises:
        InputError: A layer cannot be rebuilt from its configuration.
    """
    distributed = any(isinstance(v.value, tf.distribute.DistributedValues) for v in member.variables)
    dtypes = {dtype for layer in all_layers(member) for dtype in (layer.compute_dtype, layer.variable_dtype)}
    if not distributed and dtypes <= {"float32"}:
        return member
    config = keras.saving.serialize_keras_object(member)
    try:
        rebuilt = keras.saving.deserialize_keras_object(_with_float32_policies(config))
    except Exception as error:  # Layers raise what they like.
        raise InputError(
            f"Member {member.name} cannot be rebuilt in float32: register its layers with "
            "keras.saving.register_keras_serializable, or train it in float32 on one device."
        ) from error
    rebuilt.set_weights([np.asarray(weight, np.float32) for weight in member.get_weights()])
    return rebuilt


def _with_float32_policies(config: Any) -> Any:
    if isinstance(config, dict):
        inside = {key: _with_float32_policies(value) for key, value in config.items()}
        replaced = {"dtype": "float32"} if "float" in str(config.get("dtype")) else {}
        return inside | replaced | ({"compile_config": None} if "compile_config" in config else {})
    return [_with_float32_policies(entry) for entry in config] if isinstance(config, list | tuple) else config


def serving_function(members: Sequence[keras.Model], image_shape: Sequence[int]) -> Any:
    """Make the ``tf.function`` that every exported file computes, of float32 members.

    It maps image float32 [N, H, W, C] in [0, 1] to probabilities [N, classes] and member_logits
    [N, k, classes].
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *image_shape), tf.float32, name=IMAGE)])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = stack_logits(members, [image] * len(members), training=False)
        return {PROBABILITIES: mean_probabilities(logits), MEMBER_LOGITS: logits}

    return serve


def save_saved_model(members: Sequence[keras.Model], image_shape: Sequence[int], folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default``; loading it does not need this package."""
    module = tf.Module()
    module.weights = [variable.value for member in members for variable in member.variables]
    serve = serving_function(members, image_shape)
    folder.mkdir()
    with without_patterns(folder) as path:
        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})


def convert_to_onnx(
    members: Sequence[keras.Model],
    image_shape: Sequence[int],
    metadata: Mapping[str, object],
    opset: int = 17,
) -> onnx.ModelProto:
    """Convert the :func:`serving_function` to ONNX, N dynamic; BatchNorm is folded into convolutions.

    Args:
        members: float32 models images -> logits.
        image_shape: (height, width, channels).
        metadata: Entries of ``metadata_props``; values that are not strings are written as JSON.
        opset: ONNX opset, 11 to 18.

    Raises:
        InputError: A layer has an operation that ONNX cannot express; the operation is named.
    """
    serve = serving_function(members, image_shape)
    model, _ = tf2onnx.convert.from_function(
        serve, serve.input_signature, opset=opset, custom_op_handlers={"Erfc": (_convert_erfc, [])}
    )
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain and entry.domain not in used]:
        model.opset_import.remove(entry)
    model.producer_name = "ncen_tf"
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    # tf2onnx copies operations that it cannot convert into the model under their TensorFlow names.
    for node in model.graph.node:
        if not node.domain and not onnx.defs.has(node.op_type, opset, ""):
            raise InputError(
                f"ONNX opset {opset} cannot express the operation {node.op_type} ({node.name}): replace the "
                "layer, or export the `formats` saved_model only."
            )
    check_onnx(model)
    return model


def _convert_erfc(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """Write the complementary error function of GELU, which tf2onnx does not know, as 1 - Erf(x)."""
    node.type = "Erf"
    one = graph.make_const(f"{name}_one", np.ones((), np.float32))
    graph.insert_new_node_on_output("Sub", node.output[0], inputs=[one.output[0], node.output[0]])


def check_onnx(model: onnx.ModelProto) -> None:
    """Check a converted model in full, infer its shapes strictly, and open a session on it."""
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        open_session(model.SerializeToString())
    except InputError:
        raise
    except Exception as error:  # onnx and onnxruntime have no common base class of errors.
        reason = " ".join(str(error).split())[-300:]
        raise InputError(f"The converted model is not valid ONNX: {reason}") from error


def reduce_precision(file: Path, precision: str, calibration: Split | None = None) -> Path:
    """Write a file of ``float16`` or ``int8`` precision beside a float32 ONNX file, ``NAME.PRECISION.onnx``.

    float16 keeps float32 inputs and outputs. int8 quantizes convolutions and matrix products, weights per
    channel, activations by their range on the first 512 calibration images.
    """
    target = file.with_suffix(f".{precision}.onnx")
    if precision == "float16":
        converted = OnnxModel(convert_float_to_float16(onnx.load(file), keep_io_types=True))
        converted.topological_sort()  # The converter appends the casts of the input at the end.
        onnx.save(converted.model, target)
    elif calibration is None:
        raise InputError("int8 needs training images as `calibration`.")
    else:
        starts = range(0, min(len(calibration), CALIBRATION_IMAGES), CALIBRATION_BATCH)
        batches = ({IMAGE: calibration[i : i + CALIBRATION_BATCH].float_images()} for i in starts)
        quantize_static(
            str(file),
            str(target),
            types.SimpleNamespace(get_next=lambda: next(batches, None)),  # A CalibrationDataReader.
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    check_onnx(onnx.load(target))
    return target


def ensemble_predictor(members: Sequence[keras.Model], image_shape: Sequence[int]) -> Predict:
    """Make a function that computes the probabilities of an ensemble in Keras."""
    return _predictor("The ensemble", serving_function(members, image_shape))


def file_predictor(path: Path) -> Predict:
    """Make a function that computes the probabilities of an exported ``.onnx`` file or SavedModel folder.

    Raises:
        InputError: The file cannot be loaded.
    """
    try:
        if path.suffix == ".onnx":
            model = read_model(path)
            _, sizes = image_input(path, model)
            run_limited(path, model, [{IMAGE: noise([2, *(size or 1 for size in sizes[1:])])}])
            session = open_session(model.SerializeToString())
            return lambda images: _finite(
                path.name, *session.run([PROBABILITIES, MEMBER_LOGITS], {IMAGE: images})
            )
        serve: Any = load_saved_model(path).signatures["serving_default"]
        (image,) = serve.structured_input_signature[1].values()
        predict = _predictor(path.name, serve)
        try_model(path, image.shape[1:], predict)
    except InputError:
        raise
    except Exception as error:  # onnxruntime and TensorFlow have no common base class of errors.
        raise InputError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return predict


def _predictor(name: str, serve: Any) -> Predict:
    def predict(images: Array) -> Array:
        outputs = serve(image=tf.constant(images))
        return _finite(name, outputs[PROBABILITIES].numpy(), outputs[MEMBER_LOGITS].numpy())

    return predict


def _finite(name: str, probabilities: Array, logits: Array) -> Array:
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        reason = "values exceed the range of float16" if "float16" in name else "check the weights"
        raise InputError(f"{name} gives NaN or infinite logits on the test images: {reason}.")
    return probabilities
