"""Export to ONNX, checked in every way the format offers."""

import json
import logging
from collections.abc import Mapping

import onnx
import onnxruntime

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.serving import serving_function
from ncen_tf.untrusted.onnx_file import open_session

DEFAULT_OPSET = 17
OPSETS = range(11, 19)
"""What both tf2onnx writes and the gradient builder differentiates."""


def convert_to_onnx(
    ensemble: Ensemble,
    image_shape: tuple[int, int, int],
    metadata: Mapping[str, object],
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Convert an ensemble; BatchNorm is folded into the convolutions before it.

    Args:
        ensemble: float32 members.
        image_shape: (H, W, C).
        metadata: goes into ``metadata_props``; values that are no strings as JSON.
        opset: in :data:`OPSETS`.

    Returns:
        A model image [N, H, W, C] -> probabilities [N, classes], member_logits [N, k, classes], N dynamic.

    Raises:
        InputError: an opset out of range, or an operation that ONNX cannot express.
    """
    if opset not in OPSETS:
        raise InputError(f"--opset is in {OPSETS.start}..{OPSETS.stop - 1}; got {opset}.")
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    serve = serving_function(ensemble, image_shape)
    model, _ = tf2onnx.convert.from_function(serve, serve.input_signature, opset=opset)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain and entry.domain not in used]:
        model.opset_import.remove(entry)
    model.producer_name = "ncen_tf"
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    check_onnx(model)
    return model


def check_onnx(model: onnx.ModelProto) -> None:
    """Full check, strict shape inference, and a session: tf2onnx only logs what it cannot convert.

    Raises:
        InputError: the model is not valid, or has an operation that onnxruntime does not know.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        open_session(model.SerializeToString())
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
        onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The converted model is not valid ONNX: {reason}") from error
