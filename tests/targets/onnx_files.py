"""Helpers: ONNX classifiers of a few nodes, whose answers and gradients NumPy knows."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.targets.target import Target

Array = npt.NDArray[Any]

HEIGHT, WIDTH, CHANNELS, CLASSES = 4, 5, 3, 6
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(HEIGHT * WIDTH * CHANNELS, CLASSES)).astype(np.float32)
IMAGES = RNG.random((5, HEIGHT, WIDTH, CHANNELS), np.float32)
COTANGENT = RNG.normal(size=(5, 1, CLASSES)).astype(np.float32)

FLAT = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]


def write(
    file: Path,
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    outputs: dict[str, int] | None = None,
    input_type: int = TensorProto.FLOAT,
    weights: dict[str, Array] | None = None,
    **options: Any,
) -> Path:
    """Write a model x [shape] -> outputs; ``w`` is WEIGHTS, and a producer does not give the layout away."""
    weights = {"w": WEIGHTS} | (weights or {})
    read = {name for node in nodes for name in node.input}
    inputs = [helper.make_tensor_value_info("x", input_type, shape)]
    ranks = {"q": 3, "x32": 4, "loss": 0} | options.pop("ranks", {})
    graph = helper.make_graph(
        nodes,
        "classifier",
        inputs + options.pop("further_inputs", []),
        [
            helper.make_tensor_value_info(name, kind, [None] * ranks.get(name, 2))
            for name, kind in (outputs or {"y": 1}).items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in read],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **options), file)
    return file


def check(target: Target, inputs: Array, derivative: Array | float = 1.0, tolerance: float = 1e-4) -> None:
    """Compare with NumPy: logits of flattened inputs, and the gradient with respect to IMAGES.

    ``derivative`` is that of the inputs with respect to the images, in the order of the inputs' axes.
    """
    expected = inputs.reshape(len(inputs), -1) @ WEIGHTS
    found, pull_back = target.linearize(IMAGES)
    size = np.abs(expected).max()
    np.testing.assert_allclose(found[:, 0], expected, atol=tolerance * size)
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], expected, atol=tolerance * size)
    gradient = (COTANGENT[:, 0] @ WEIGHTS.T).reshape(inputs.shape) * derivative
    if target.signature and target.signature.layout == "NCHW":
        gradient = gradient.transpose(0, 2, 3, 1)
    if target.signature and target.signature.channel_order == "BGR":
        gradient = gradient[..., ::-1]
    np.testing.assert_allclose(
        pull_back(COTANGENT),
        gradient.reshape(IMAGES.shape),
        atol=tolerance * np.abs(gradient).max(),
    )


def signature(target: Target, name: str) -> Any:
    assert target.signature is not None
    return getattr(target.signature, name)
