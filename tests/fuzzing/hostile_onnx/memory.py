"""Graphs of a few nodes whose values fill any memory."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.case import HUGE
from tests.fuzzing.hostile_onnx.surgery import Change, constant, prepend, use


def _filled(model: onnx.ModelProto) -> None:
    shape = constant(model, "shape", np.array([HUGE], np.int64))
    prepend(model, helper.make_node("ConstantOfShape", [shape], ["more"]), "more")


def _filled_integers(model: onnx.ModelProto) -> None:
    shape = constant(model, "shape", np.array([HUGE // 2], np.int64))
    value = numpy_helper.from_array(np.array([1], np.int64))
    nodes = [
        helper.make_node("ConstantOfShape", [shape], ["many"], value=value),
        helper.make_node("Cast", ["many"], ["more"], to=TensorProto.FLOAT),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    use(model, "more")


def _ranged(model: onnx.ModelProto) -> None:
    ends = [constant(model, f"range{i}", np.array(v, np.float32)) for i, v in enumerate((0, HUGE, 1))]
    prepend(model, helper.make_node("Range", ends, ["more"]), "more")


def _expanded(model: onnx.ModelProto) -> None:
    shape = constant(model, "shape", np.array([HUGE // 3, 3], np.int64))
    prepend(model, helper.make_node("Expand", ["bias0", shape], ["more"]), "more")


def _tiled(model: onnx.ModelProto) -> None:
    times = constant(model, "times", np.array([HUGE // 3], np.int64))
    prepend(model, helper.make_node("Tile", ["bias0", times], ["more"]), "more")


def _tiled_images(model: onnx.ModelProto) -> None:
    times = constant(model, "times", np.array([1, HUGE // 128, 1, 1], np.int64))
    prepend(model, helper.make_node("Tile", ["image", times], ["more"]), "more")


def _padded(model: onnx.ModelProto) -> None:
    pads = constant(model, "pads", np.array([0, HUGE], np.int64))
    prepend(model, helper.make_node("Pad", ["bias0", pads], ["more"]), "more")


def _resized(model: onnx.ModelProto) -> None:
    scales = constant(model, "scales", np.array([1, 3000, 1000, 1], np.float32))
    prepend(model, helper.make_node("Resize", ["image", "", scales], ["more"]), "more")


def _one_hot(model: onnx.ModelProto) -> None:
    inputs = [
        constant(model, "index", np.array([1, 2, 3], np.int64)),
        constant(model, "depth", np.array(HUGE // 3, np.int64)),
        constant(model, "values", np.array([0, 1], np.float32)),
    ]
    prepend(model, helper.make_node("OneHot", inputs, ["more"]), "more")


def _multiplied(model: onnx.ModelProto) -> None:
    """An outer product of two vectors that are in the file."""
    left = constant(model, "left", np.ones((30_000, 1), np.float32))
    right = constant(model, "right", np.ones((1, 25_000), np.float32))
    prepend(model, helper.make_node("MatMul", [left, right], ["more"]), "more")


def _by_the_pixels(model: onnx.ModelProto) -> None:
    """As many entries as the values of the pixels say, which only running the model tells."""
    factor = constant(model, "factor", np.array(HUGE / 64, np.float32))
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["bright"], keepdims=0),
        helper.make_node("Mul", ["bright", factor], ["much"]),
        helper.make_node("Cast", ["much"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "zero"], ["counts"]),
        helper.make_node("ConstantOfShape", ["counts"], ["more"]),
    ]
    constant(model, "zero", np.array([0], np.int64))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    use(model, "more")


def _many_constants(model: onnx.ModelProto) -> None:
    """Each as large as a constant may be, and more of them than memory has room for."""
    shape = constant(model, "shape", np.array([2**20], np.int64))
    value = numpy_helper.from_array(np.array([1], np.int64))
    names = []
    for number in range(400):
        names.append(f"ones{number}")
        model.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], [names[-1]], value=value))
    zero = constant(model, "zero", np.array(0, np.int64))
    picked = [f"one{number}" for number in range(400)]
    for name, one in zip(names, picked, strict=True):
        model.graph.node.insert(400, helper.make_node("Gather", [name, zero], [one]))
    model.graph.node.insert(800, helper.make_node("Sum", [f"{one}_float" for one in picked], ["more"]))
    for one in picked:
        model.graph.node.insert(800, helper.make_node("Cast", [one], [f"{one}_float"], to=TensorProto.FLOAT))
    use(model, "more")


CHANGES: dict[str, Change] = {
    "filled": _filled,
    "filled with integers": _filled_integers,
    "range": _ranged,
    "expanded": _expanded,
    "tiled": _tiled,
    "tiled images": _tiled_images,
    "padded": _padded,
    "resized": _resized,
    "one-hot": _one_hot,
    "outer product": _multiplied,
    "as the pixels say": _by_the_pixels,
    "many constants": _many_constants,
}
