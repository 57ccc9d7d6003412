"""Hostile ONNX files: weights in other files, sizes that are not there, graphs without end."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.case import Case

MODEL = "ensemble.onnx"
HUGE = 750_000_000
"""Of floats, 3 GB: more than any reader may take, less than a machine may have."""


def hostile_onnx(original: bytes, secret: Path) -> dict[str, Case]:
    """Cases by what they ask for."""
    locations = {
        "above": f"../{secret.parent.name}/{secret.name}",
        "roundabout": f"weights/../../{secret.parent.name}/{secret.name}",
        "absolute": str(secret),
        "url": f"file://{secret}",
        "of the working directory": secret.name,
        "beside": "weights.bin",
    }
    cases = {}
    for place, holder in _TENSORS.items():
        for kind, location in locations.items():
            model = onnx.load_from_string(original)
            holder(model, _external(location))
            files = {MODEL: model.SerializeToString(), "weights.bin": bytes(4096)}
            cases[f"external data {kind}, {place}"] = Case(files, must_be_refused=True)
    for kind, change in _CHANGES.items():
        model = onnx.load_from_string(original)
        change(model)
        cases[kind] = Case({MODEL: model.SerializeToString()})
    return cases


def _external(location: str, dims: tuple[int, ...] = (4,), **more: str) -> TensorProto:
    tensor = TensorProto(
        data_type=TensorProto.FLOAT, dims=dims, name="bias0", data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, "offset": "0", "length": str(4 * dims[0]), **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _as_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    tensor.dims[:] = [3]
    tensor.external_data[2].value = "12"
    next(old for old in model.graph.initializer if old.name == "bias0").CopyFrom(tensor)


def _as_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    _append(model, helper.make_node("Constant", [], ["more"], value=tensor), "more", 4)


def _as_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    tensor.dims[:] = [1]
    shape = _constant(model, "shape", np.array([4], np.int64))
    _append(model, helper.make_node("ConstantOfShape", [shape], ["more"], value=tensor), "more", 4)


def _in_a_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["branch"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [4])],
    )
    true = _constant(model, "true", np.array(True))
    _append(model, helper.make_node("If", [true], ["more"], then_branch=inner, else_branch=inner), "more", 4)


def _in_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=tensor)]
    model.functions.append(helper.make_function("own", "F", [], ["y"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    _append(model, helper.make_node("F", [], ["more"], domain="own"), "more", 4)


def _as_sparse(model: onnx.ModelProto, tensor: TensorProto) -> None:
    indices = numpy_helper.from_array(np.arange(4), "sparse_indices")
    tensor.name = "sparse"
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [8]))


_TENSORS: dict[str, Callable[[onnx.ModelProto, TensorProto], None]] = {
    "initializer": _as_initializer,
    "constant": _as_constant,
    "attribute": _as_attribute,
    "subgraph": _in_a_subgraph,
    "function": _in_a_function,
    "sparse": _as_sparse,
}


def _constant(
    model: onnx.ModelProto, name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _append(model: onnx.ModelProto, node: onnx.NodeProto, name: str, size: int | None) -> None:
    """Put a node first and have the answer depend on what it makes."""
    model.graph.node.insert(0, node)
    _use(model, name)


def _use(model: onnx.ModelProto, name: str) -> None:
    total = helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0)
    last = next(node for node in model.graph.node if "member_logits" in node.output)
    last.output[0] = "before"
    for node in model.graph.node:
        for number, used in enumerate(node.input):
            if used == "member_logits":
                node.input[number] = "before"
    model.graph.node.append(total)
    model.graph.node.append(helper.make_node("Add", ["before", f"{name}_sum"], ["member_logits"]))


def _filled(model: onnx.ModelProto) -> None:
    shape = _constant(model, "shape", np.array([HUGE], np.int64))
    _append(model, helper.make_node("ConstantOfShape", [shape], ["more"]), "more", None)


def _filled_integers(model: onnx.ModelProto) -> None:
    shape = _constant(model, "shape", np.array([HUGE // 2], np.int64))
    value = numpy_helper.from_array(np.array([1], np.int64))
    nodes = [
        helper.make_node("ConstantOfShape", [shape], ["many"], value=value),
        helper.make_node("Cast", ["many"], ["more"], to=TensorProto.FLOAT),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    _use(model, "more")


def _ranged(model: onnx.ModelProto) -> None:
    ends = [_constant(model, f"range{i}", np.array(v, np.float32)) for i, v in enumerate((0, HUGE, 1))]
    _append(model, helper.make_node("Range", ends, ["more"]), "more", None)


def _expanded(model: onnx.ModelProto) -> None:
    shape = _constant(model, "shape", np.array([HUGE // 3, 3], np.int64))
    _append(model, helper.make_node("Expand", ["bias0", shape], ["more"]), "more", None)


def _tiled(model: onnx.ModelProto) -> None:
    times = _constant(model, "times", np.array([HUGE // 3], np.int64))
    _append(model, helper.make_node("Tile", ["bias0", times], ["more"]), "more", None)


def _tiled_images(model: onnx.ModelProto) -> None:
    times = _constant(model, "times", np.array([1, HUGE // 128, 1, 1], np.int64))
    _append(model, helper.make_node("Tile", ["image", times], ["more"]), "more", None)


def _padded(model: onnx.ModelProto) -> None:
    pads = _constant(model, "pads", np.array([0, HUGE], np.int64))
    _append(model, helper.make_node("Pad", ["bias0", pads], ["more"]), "more", None)


def _resized(model: onnx.ModelProto) -> None:
    scales = _constant(model, "scales", np.array([1, 3000, 1000, 1], np.float32))
    _append(model, helper.make_node("Resize", ["image", "", scales], ["more"]), "more", None)


def _one_hot(model: onnx.ModelProto) -> None:
    inputs = [
        _constant(model, "index", np.array([1, 2, 3], np.int64)),
        _constant(model, "depth", np.array(HUGE // 3, np.int64)),
        _constant(model, "values", np.array([0, 1], np.float32)),
    ]
    _append(model, helper.make_node("OneHot", inputs, ["more"]), "more", None)


def _multiplied(model: onnx.ModelProto) -> None:
    """An outer product of two vectors that are in the file."""
    left = _constant(model, "left", np.ones((30_000, 1), np.float32))
    right = _constant(model, "right", np.ones((1, 25_000), np.float32))
    _append(model, helper.make_node("MatMul", [left, right], ["more"]), "more", None)


def _by_the_pixels(model: onnx.ModelProto) -> None:
    """As many entries as the values of the pixels say, which only running the model tells."""
    factor = _constant(model, "factor", np.array(HUGE / 64, np.float32))
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["bright"], keepdims=0),
        helper.make_node("Mul", ["bright", factor], ["much"]),
        helper.make_node("Cast", ["much"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "zero"], ["counts"]),
        helper.make_node("ConstantOfShape", ["counts"], ["more"]),
    ]
    _constant(model, "zero", np.array([0], np.int64))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    _use(model, "more")


def _claimed(*dims: int, data: bytes = bytes(12)) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(old for old in model.graph.initializer if old.name == "bias0")
        tensor.dims[:] = dims
        tensor.raw_data = data

    return change


def _claimed_integers(model: onnx.ModelProto) -> None:
    tensor = next(old for old in model.graph.initializer if old.name == "flat")
    tensor.dims[:] = [2**40]


def _cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = model.graph.node[-1].output[0]


def _reading_itself(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = model.graph.node[3].output[0]


def _calling_itself(model: onnx.ModelProto) -> None:
    body = [helper.make_node("F", ["x"], ["y"], domain="own")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    _append(model, helper.make_node("F", ["image"], ["more"], domain="own"), "more", None)


def _doubling(model: onnx.ModelProto) -> None:
    """Thirty functions, each of which calls the next one twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(30):
        body = [helper.make_node("Relu", ["x"], ["y"])]
        if level < 29:
            body = [
                helper.make_node(f"F{level + 1}", ["x"], ["z"], domain="own"),
                helper.make_node(f"F{level + 1}", ["z"], ["y"], domain="own"),
            ]
        model.functions.append(helper.make_function("own", f"F{level}", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    _append(model, helper.make_node("F0", ["image"], ["more"], domain="own"), "more", None)


def _nested(depth: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        true = _constant(model, "true", np.array(True))
        output = [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [1])]
        tensor = numpy_helper.from_array(np.ones(1, np.float32))
        plain = helper.make_graph(
            [helper.make_node("Constant", [], ["branch"], value=tensor)], "b", [], output
        )
        inner = plain
        for _ in range(depth):
            node = helper.make_node("If", [true], ["branch"], then_branch=inner, else_branch=plain)
            inner = helper.make_graph([node], "b", [], output)
        node = helper.make_node("If", [true], ["more"], then_branch=inner, else_branch=plain)
        _append(model, node, "more", None)

    return change


def _long(model: onnx.ModelProto) -> None:
    """A chain of nodes that no recursion survives."""
    names = ["image", *(f"chain{i}" for i in range(5000))]
    for before, after in reversed(list(itertools.pairwise(names))):
        model.graph.node.insert(0, helper.make_node("Identity", [before], [after]))
    _use(model, names[-1])


def _folded_chain(model: onnx.ModelProto) -> None:
    """The same of integers that do not depend on the image."""
    names = ["one", *(f"chain{i}" for i in range(3000))]
    for before, after in reversed(list(itertools.pairwise(names))):
        model.graph.node.insert(0, helper.make_node("Identity", [before], [after]))
    next(node for node in model.graph.node if node.op_type == "Unsqueeze").input[1] = names[-1]


def _two_images(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _large_images(model: onnx.ModelProto) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = 20_000


def _many_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**40


def _wide(**attributes: list[int]) -> Callable[[onnx.ModelProto], None]:
    """Images of two long rows under a window of the given attributes."""

    def change(model: onnx.ModelProto) -> None:
        height, width = model.graph.input[0].type.tensor_type.shape.dim[1:3]
        height.dim_value, width.dim_value = 2, 25_000
        del model.graph.value_info[:]
        for node in model.graph.node:
            if node.op_type in ("Conv", "MaxPool"):
                del node.attribute[:]
                own = {
                    name: value
                    for name, value in attributes.items()
                    if node.op_type == "MaxPool" or name != "kernel_shape"
                }
                size = {"kernel_shape": [1, 2]} if node.op_type == "MaxPool" else {"pads": [1, 1, 1, 1]}
                node.attribute.extend(
                    helper.make_attribute(name, value) for name, value in (size | own).items()
                )

    return change


def _averaged(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "MaxPool":
            node.op_type = "AveragePool"
            attributes = {"kernel_shape": [25_000, 25_000], "pads": [24_999] * 4, "strides": [25_000, 25_000]}
            del node.attribute[:]
            node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def _gathered(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 25_000
    indices = _constant(model, "indices", np.arange(25_000))
    _append(model, helper.make_node("Gather", ["image", indices], ["more"], axis=2), "more", None)


def _many_constants(model: onnx.ModelProto) -> None:
    """Each as large as a constant may be, and more of them than memory has room for."""
    shape = _constant(model, "shape", np.array([2**20], np.int64))
    value = numpy_helper.from_array(np.array([1], np.int64))
    names = []
    for number in range(400):
        names.append(f"ones{number}")
        model.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], [names[-1]], value=value))
    zero = _constant(model, "zero", np.array(0, np.int64))
    picked = [f"one{number}" for number in range(400)]
    for name, one in zip(names, picked, strict=True):
        model.graph.node.insert(400, helper.make_node("Gather", [name, zero], [one]))
    model.graph.node.insert(800, helper.make_node("Sum", [f"{one}_float" for one in picked], ["more"]))
    for one in picked:
        model.graph.node.insert(800, helper.make_node("Cast", [one], [f"{one}_float"], to=TensorProto.FLOAT))
    _use(model, "more")


def _strided(name: str, *values: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == name:
                    attribute.ints[:] = values

    return change


def _other_types(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.CopyFrom(helper.make_attribute(attribute.name, "text"))


_CHANGES: dict[str, Callable[[onnx.ModelProto], None]] = {
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
    "claims 2^40": _claimed(2**40),
    "claims 3 GB": _claimed(HUGE),
    "claims 3 GB without data": _claimed(HUGE, data=b""),
    "claims -1": _claimed(-1),
    "claims an overflow": _claimed(2**32, 2**32),
    "claims 0": _claimed(0, 2**62),
    "claims 2^40 integers": _claimed_integers,
    "cyclic": _cyclic,
    "reading itself": _reading_itself,
    "calling itself": _calling_itself,
    "doubling": _doubling,
    "nested 10": _nested(10),
    "nested 28": _nested(28),
    "long": _long,
    "long and constant": _folded_chain,
    "two images": _two_images,
    "large images": _large_images,
    "2^40 channels": _many_channels,
    "pads 2^40": _strided("pads", 2**40, 2**40, 2**40, 2**40),
    "pads 20000": _strided("pads", 20_000, 20_000, 20_000, 20_000),
    "negative pads": _strided("pads", -100, -100, -100, -100),
    "strides 0": _strided("strides", 0, 0),
    "window 2^40": _strided("kernel_shape", 2**40, 2**40),
    "window 0": _strided("kernel_shape", 0, 0),
    "wide, stride 2": _wide(strides=[2, 2]),
    "wide, stride 2000": _wide(strides=[1, 2000]),
    "wide, long window": _wide(kernel_shape=[2, 20_000]),
    "wide, far apart": _wide(dilations=[1, 10_000], pads=[1, 10_000, 1, 10_000]),
    "averaged": _averaged,
    "gathered": _gathered,
    "many constants": _many_constants,
    "perm": _strided("perm", 0, 0, 0, 0),
    "other types": _other_types,
}
