"""Sizes that are not there, or are far too large: of weights, images, windows."""

import numpy as np
import onnx
from onnx import helper

from tests.fuzzing.case import HUGE
from tests.fuzzing.hostile_onnx.surgery import Change, constant, prepend


def _claimed(*dims: int, data: bytes = bytes(12)) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(old for old in model.graph.initializer if old.name == "bias0")
        tensor.dims[:] = dims
        tensor.raw_data = data

    return change


def _claimed_integers(model: onnx.ModelProto) -> None:
    tensor = next(old for old in model.graph.initializer if old.name == "flat")
    tensor.dims[:] = [2**40]


def _two_images(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _large_images(model: onnx.ModelProto) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = 20_000


def _many_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**40


def _wide(**attributes: list[int]) -> Change:
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
    indices = constant(model, "indices", np.arange(25_000))
    prepend(model, helper.make_node("Gather", ["image", indices], ["more"], axis=2), "more")


def _strided(name: str, *values: int) -> Change:
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


CHANGES: dict[str, Change] = {
    "claims 2^40": _claimed(2**40),
    "claims 3 GB": _claimed(HUGE),
    "claims 3 GB without data": _claimed(HUGE, data=b""),
    "claims -1": _claimed(-1),
    "claims an overflow": _claimed(2**32, 2**32),
    "claims 0": _claimed(0, 2**62),
    "claims 2^40 integers": _claimed_integers,
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
    "perm": _strided("perm", 0, 0, 0, 0),
    "other types": _other_types,
}
