"""Weights in other files, wherever a model can hold a tensor."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.hostile_onnx.surgery import constant, prepend


def external(location: str, dims: tuple[int, ...] = (4,), **more: str) -> TensorProto:
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
    prepend(model, helper.make_node("Constant", [], ["more"], value=tensor), "more")


def _as_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    tensor.dims[:] = [1]
    shape = constant(model, "shape", np.array([4], np.int64))
    prepend(model, helper.make_node("ConstantOfShape", [shape], ["more"], value=tensor), "more")


def _in_a_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["branch"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [4])],
    )
    true = constant(model, "true", np.array(True))
    prepend(model, helper.make_node("If", [true], ["more"], then_branch=inner, else_branch=inner), "more")


def _in_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=tensor)]
    model.functions.append(helper.make_function("own", "F", [], ["y"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    prepend(model, helper.make_node("F", [], ["more"], domain="own"), "more")


def _as_sparse(model: onnx.ModelProto, tensor: TensorProto) -> None:
    indices = numpy_helper.from_array(np.arange(4), "sparse_indices")
    tensor.name = "sparse"
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [8]))


HOLDERS: dict[str, Callable[[onnx.ModelProto, TensorProto], None]] = {
    "initializer": _as_initializer,
    "constant": _as_constant,
    "attribute": _as_attribute,
    "subgraph": _in_a_subgraph,
    "function": _in_a_function,
    "sparse": _as_sparse,
}
