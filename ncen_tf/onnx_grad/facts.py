"""Static analysis of a graph: shapes, element types and constant values."""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Shape = tuple[int | None, ...]  # None: the dimension varies with the batch size

# Two batch sizes no layer is likely to have as a width: a dimension that differs between them
# varies with the batch.
_PROBES = (7, 11)

FLOAT_TYPES = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16)


class GraphFacts:
    """Shapes, element types and constants of a model; only the batch dimension of its inputs may vary.

    ONNX shape inference loses track of a symbolic batch at the first Reshape. With a number in its
    place it does not, so shapes are inferred for two batch sizes and compared.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        graph = model.graph
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._constants: dict[str, NDArray[np.generic] | None] = {}
        self._computed = 0  # bytes of those that are no initializers
        first, second = (_infer(model, batch) for batch in _PROBES)
        self._types = {name: element_type for name, (element_type, _) in first.items()}
        self._shapes: dict[str, Shape] = {}
        for name, (_, shape) in first.items():
            other = second[name][1] if name in second else None
            if shape is not None and other is not None and len(shape) == len(other):
                self._shapes[name] = tuple(a if a == b else None for a, b in zip(shape, other, strict=True))

    def shape(self, name: str) -> Shape:
        """Dimensions of a tensor, None for those that vary with the batch.

        Raises:
            ValueError: shape inference cannot tell.
        """
        if name not in self._shapes:
            raise ValueError(f"shape of tensor {name!r} cannot be inferred; is only the batch dynamic?")
        return self._shapes[name]

    def element_type(self, name: str) -> int:
        """`TensorProto.DataType` of a tensor, UNDEFINED where inference cannot tell."""
        return self._types.get(name, TensorProto.UNDEFINED)

    def is_float(self, name: str) -> bool:
        """Whether gradients can flow through a tensor; one of unknown type counts as float."""
        return self.element_type(name) in (*FLOAT_TYPES, TensorProto.UNDEFINED)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Value of a tensor that does not depend on any model input, else None.

        Initializers, Constant nodes and expressions of them count alike.
        """
        if name not in self._constants:
            self._constants[name] = self._evaluate(name)
        return self._constants[name]

    def _evaluate(self, name: str) -> NDArray[np.generic] | None:
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        if name not in self._producers:
            return None
        node = self._producers[name]
        if _has_subgraph(node):
            return None
        feeds: dict[str, Any] = {name: self.constant(name) for name in node.input if name}
        if any(value is None for value in feeds.values()):
            return None
        value = _run(self._model, node, feeds, name)
        self._computed += value.nbytes
        if self._computed > _MOST_COMPUTED:
            raise ValueError(f"the model computes more than {_MOST_COMPUTED:,} bytes of constants")
        return value


_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_LARGE = 2**20  # entries that no shape and no index has
_MOST_COMPUTED = 2**28


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(attribute.type in _SUBGRAPHS for attribute in node.attribute)


def _infer(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """Element type and shape of every tensor when dynamic first dimensions are `batch`."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.value_info[:]
    for value in probe.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in probe.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    while True:
        # Without ONNX's own propagation of integers, whose memory knows no bounds.
        facts = _read(onnx.shape_inference.infer_shapes(probe).graph)
        if not _fold_shape_arithmetic(probe, facts):
            return facts


def _read(graph: onnx.GraphProto) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    facts: dict[str, tuple[int, tuple[int, ...] | None]] = {
        tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer
    }
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor_type = value.type.tensor_type
        dims = tensor_type.shape.dim
        known = tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
        shape = tuple(dim.dim_value for dim in dims) if known else None
        facts[value.name] = (tensor_type.elem_type, shape)
    return facts


def _fold_shape_arithmetic(
    model: onnx.ModelProto, facts: dict[str, tuple[int, tuple[int, ...] | None]]
) -> bool:
    """Replaces integers computed from known shapes by constants; whether there were any.

    Inference of its own accord follows them through few operators, and at old opsets through none.
    """
    values: dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in _INTEGERS
    }
    folded, computed = False, 0
    for node in model.graph.node:
        element_type, shape = facts.get(node.output[0], (0, None)) if len(node.output) == 1 else (0, None)
        if element_type not in _INTEGERS or _has_subgraph(node) or math.prod(shape or ()) > _LARGE:
            continue
        if node.op_type == "Shape":
            shape = facts.get(node.input[0], (0, None))[1]
            if shape is None:
                continue
            feeds = {node.input[0]: np.broadcast_to(np.float32(0), shape)}
        elif all(name in values for name in node.input if name):
            feeds = {name: values[name] for name in node.input if name}
        else:
            continue
        value = values[node.output[0]] = _run(model, node, feeds, node.output[0])
        computed += value.size
        if computed > 16 * _LARGE:
            raise ValueError("the model computes more integers than shapes and indices have")
        if node.op_type != "Constant":
            constant = numpy_helper.from_array(value)
            node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, value=constant))
            folded = True
    return folded


def _run(model: onnx.ModelProto, node: onnx.NodeProto, feeds: dict[str, Any], output: str) -> NDArray[Any]:
    """One output of one node."""
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=output)],
    )
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=model.opset_import))
    (value,) = evaluator.run([output], feeds)
    return np.asarray(value)
