"""Reads off an ONNX file how images go in and where the scores of the classes come out."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import MEMBER_LOGITS
from ncen_tf.targets import onnx_graph
from ncen_tf.targets.interface import (
    Array,
    ImageShape,
    Layout,
    ModelInterface,
    Preprocessing,
    Signature,
)
from ncen_tf.targets.scores import choose_output, is_one_score, is_softmax_of, read_output
from ncen_tf.untrusted.memory import noise
from ncen_tf.untrusted.onnx_file import image_input, read_model, run_limited

Values = npt.NDArray[Any]

_INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)
_FLOAT_NAMES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
_WRITERS: dict[str, Layout] = {"pytorch": "NCHW", "tf2onnx": "NHWC"}
"""The usual order of axes, by what wrote the file."""


@dataclasses.dataclass(frozen=True)
class ClassifierGraph:
    """A classifier with one input, the images, and one float32 output, the scores."""

    model: onnx.ModelProto
    image: str
    output: str
    batch: int | None
    """The number of images that it takes at a time; ``None`` for any number."""
    preprocessing: Preprocessing
    members: int
    classes: int
    gives_logits: bool
    signature: Signature
    answers: Array
    """What it gives, not optimized, for :func:`~ncen_tf.untrusted.memory.noise` of two images."""


def read_classifier(path: Path, interface: ModelInterface, image_shape: ImageShape | None) -> ClassifierGraph:
    """Read a file, and find out by its graph and by its answers to noise what is not said of it.

    A Softmax at the end is left out.

    Args:
        path: The file.
        interface: What is said of it.
        image_shape: (height, width, channels) of the images at hand, if any.

    Raises:
        InputError: The file cannot be used, or is not what ``interface`` says.
    """
    model = onnx_graph.inline_functions(read_model(path))
    value, sizes = image_input(path, model)
    name, element_type = value.name, value.type.tensor_type.elem_type
    integers = element_type in _INTEGERS
    preprocessing = Preprocessing.found(
        str(path), interface, sizes[1:], image_shape, integers, _WRITERS.get(model.producer_name)
    )
    onnx_graph.cast_first(model)
    onnx_graph.use_float32(model)
    onnx_graph.unpack_maps(model)
    outputs = onnx_graph.float_outputs(model)
    if not outputs:
        raise InputError(f"{path} has no output of floats; logits and probabilities are floats.")
    sources = {output: onnx_graph.before(model, ("Softmax", "Sigmoid"), output) for output in outputs}
    onnx_graph.add_outputs(model, [source for source in sources.values() if source])
    batch, found = _answers(path, model, preprocessing, sizes[0])
    if batch is not None:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    wanted = {name for pair in sources.items() for name in pair if name}
    answers = {key: found[key] for key in wanted}

    chosen = choose_output(
        str(path), {key: answers[key] for key in outputs}, interface.output_name, MEMBER_LOGITS
    )
    before, answer = sources[chosen], answers[chosen]
    end, said = chosen, interface.output
    if is_one_score(answer) and before:
        end, said = before, "logits"  # before the Sigmoid
    members, classes, gives_logits = read_output(f"{path}, output {chosen},", answers[end], said)
    holds = "logits" if gives_logits else "probabilities"
    if is_one_score(answer):
        holds += " of the second class" if end == chosen else " before the Sigmoid"
        score = answers[end].reshape(2, 1)
        end = onnx_graph.two_scores(model, end, gives_logits, score.dtype)
        answers[end] = np.concatenate([0 * score if gives_logits else 1 - score, score], axis=1)
    elif before and not gives_logits and is_softmax_of(answer, answers[before]):
        end, holds, gives_logits = before, "logits before the Softmax", True
    output = onnx_graph.end_at(
        model, end, answers[end].shape[1:], onnx.helper.np_dtype_to_tensor_dtype(answers[end].dtype)
    )
    signature = Signature(
        input_name=name,
        input_type=_FLOAT_NAMES.get(element_type) or TensorProto.DataType.Name(element_type).lower(),
        input_shape=" x ".join(str(size or "?") for size in sizes),
        layout=preprocessing.layout,
        input_range=preprocessing.range,
        channel_order=interface.channel_order,
        mean=interface.mean,
        std=interface.std,
        whole_pixels=integers,
        batch="any number",
        output_name=chosen,
        output=holds,
        classes=classes,
    )
    return ClassifierGraph(
        model,
        value.name,
        output,
        batch,
        preprocessing,
        members,
        classes,
        gives_logits,
        signature,
        answers[end].astype(np.float32),
    )


def _answers(
    path: Path, model: onnx.ModelProto, preprocessing: Preprocessing, batch: int | None
) -> tuple[int | None, dict[str, Values]]:
    """Run a model on noise of two images; return how many images it takes at a time, and its outputs.

    A graph that was traced for 1 or 2 images may say that it takes any number: then what runs counts.

    Raises:
        InputError: It does not run.
    """
    value = model.graph.input[0]
    images = noise((2, *preprocessing.image_shape))

    def run(*sizes: int | None) -> dict[str, Values]:
        """Run in pieces of each size in turn, by one session; return the outputs of the first size."""
        kind = value.type.tensor_type.elem_type
        pieces = [model_inputs(preprocessing, images, kind, size) for size in sizes]
        found = run_limited(path, model, [{value.name: piece} for inputs in pieces for piece in inputs])
        first = found[: len(pieces[0])]
        return {key: np.concatenate([np.atleast_1d(each[key]) for each in first])[:2] for key in found[0]}

    if batch is not None:
        return batch, run(batch)
    with contextlib.suppress(InputError):
        return None, run(None, 1)
    try:
        return 2, run(None)
    except InputError:
        with contextlib.suppress(InputError):
            return 1, run(1)
        raise


def model_inputs(
    preprocessing: Preprocessing, images: Array, element_type: int, batch: int | None
) -> list[Values]:
    """Convert images to what a model takes, in pieces of ``batch``; the last image fills the last piece."""
    inputs = preprocessing.model_input(images)
    if preprocessing.integers:
        inputs = inputs.astype(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    if batch is None:
        return [inputs]
    missing = -len(inputs) % batch
    return np.split(
        np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)]), -(-len(inputs) // batch)
    )
