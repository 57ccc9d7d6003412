"""Static analysis of a graph: shapes, element types, and values that do not depend on the image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Shape = tuple[int | None, ...]  # None: the dimension varies with the batch size
Array = NDArray[Any]

# What is equal for all of these batch sizes does not depend on the batch. Models treat 1 differently, and a
# limit on the batch, as in min(batch, 64), shows at the largest.
_PROBES = (1, 7, 1009)
_LARGE = 2**16  # entries; larger tensors are no shapes
_LARGEST_DATA = 2**10  # entries; shape inference reads shapes, axes, amounts and scales only
_MOST_COMPUTED = 2**31  # bytes
_SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)

FLOAT_TYPES = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class _Known:
    """Element type, and shape and value (None if unknown), of a tensor at one batch size."""

    element_type: int = TensorProto.UNDEFINED
    shape: tuple[int, ...] | None = None
    value: Array | None = None


class GraphFacts:
    """Shapes, element types and values of the tensors of a graph; only the batch size may vary.

    ONNX shape inference loses a symbolic batch size at the first Reshape, and evaluates few of the
    operators that exporters compute shapes with. Here each node is analysed once, in the order of the graph,
    for several batch sizes: its output types by ONNX's inference of this one node, and its value by ONNX's
    reference evaluator if all its inputs are known. A dimension or value that is equal for all batch sizes
    is static.

    Args:
        opsets: the operator sets of the model.
        ir_version: the IR version of the model.
    """

    def __init__(self, opsets: Iterable[onnx.OperatorSetIdProto], ir_version: int) -> None:
        self._opsets = list(opsets)
        self._versions = {entry.domain or "": entry.version for entry in self._opsets}
        self._ir_version = ir_version
        self._known: dict[str, tuple[_Known, ...]] = {}
        self._weights: dict[str, TensorProto] = {}
        self._constant_nodes: dict[str, onnx.NodeProto] = {}
        self._constants: dict[str, Array | None] = {}
        self._evaluators: dict[bytes, ReferenceEvaluator] = {}
        self._computed = 0

    def add_input(self, value: onnx.ValueInfoProto, image_shape: Sequence[int] | None = None) -> None:
        """Record an input of the model: a dynamic first dimension is the batch.

        Args:
            value: the input.
            image_shape: sizes of the dimensions after the first, where the model leaves them dynamic.
        """
        tensor = value.type.tensor_type
        dims: list[int | None] = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
        if image_shape is not None and len(image_shape) + 1 == len(dims):
            dims[1:] = image_shape
        self._known[value.name] = tuple(
            _Known(tensor.elem_type, _complete([dims[0] or batch, *dims[1:]]) if dims else None)
            for batch in _PROBES
        )

    def add_weight(self, tensor: TensorProto) -> None:
        """Record an initializer."""
        shape = tuple(tensor.dims)
        value = numpy_helper.to_array(tensor) if math.prod(shape) <= _LARGEST_DATA else None
        self._known[tensor.name] = (_Known(tensor.data_type, shape, value),) * len(_PROBES)
        self._weights[tensor.name] = tensor

    def add_node(self, node: onnx.NodeProto) -> None:
        """Analyse a node whose inputs have been analysed."""
        if _is_pure(node) and all(n in self._weights or n in self._constant_nodes for n in node.input if n):
            self._constant_nodes.update((name, node) for name in node.output if name)
        unknown = (_Known(),) * len(_PROBES)
        inputs = [self._known.get(name, unknown) if name else unknown for name in node.input]
        found: list[list[_Known]] = []
        for probe in range(len(_PROBES)):
            now = [known[probe] for known in inputs]
            before = [known[probe - 1] for known in inputs]
            if probe and all(_alike(a, b) for a, b in zip(now, before, strict=True)):
                found.append(found[-1])
            else:
                found.append(self._analyse(node, now))
        for index, name in enumerate(node.output):
            if name:
                self._known[name] = tuple(outputs[index] for outputs in found)

    def shape(self, name: str) -> Shape:
        """Return the dimensions of a tensor, None for those that vary with the batch.

        Raises:
            ValueError: the shape is unknown.
        """
        shapes = self.shapes(name)
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError(f"the rank of tensor {name!r} depends on the batch size")
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """Return the shape of a tensor at each of the batch sizes that are compared.

        Raises:
            ValueError: it is unknown.
        """
        shapes = [known.shape for known in self._known.get(name, ())]
        if not shapes or None in shapes:
            raise ValueError(
                f"the shape of tensor {name!r} is unknown; if its size is free, give `image_shape`"
            )
        return [shape for shape in shapes if shape is not None]

    def has_shape(self, name: str) -> bool:
        """Return whether `shape` knows the shape of a tensor."""
        ranks = {None if known.shape is None else len(known.shape) for known in self._known.get(name, ())}
        return len(ranks) == 1 and None not in ranks

    def element_type(self, name: str) -> int:
        """Return the `TensorProto.DataType` of a tensor, UNDEFINED if it is unknown."""
        return self._known[name][0].element_type if name in self._known else TensorProto.UNDEFINED

    def is_float(self, name: str) -> bool:
        """Return whether gradients can flow through a tensor; one of unknown type counts as float."""
        return self.element_type(name) in (*FLOAT_TYPES, TensorProto.UNDEFINED)

    def values(self, name: str) -> list[Array] | None:
        """Return the value of a tensor at each of the batch sizes that are compared, None if unknown."""
        values = [known.value for known in self._known.get(name, ())]
        return None if not values or any(v is None for v in values) else [v for v in values if v is not None]

    def integers(self, name: str) -> list[int | None] | None:
        """Return an integer vector; None for entries that vary with the batch, None if it is unknown."""
        values = self.values(name)
        if values is None:
            constant = self.constant(name)
            return None if constant is None else constant.reshape(-1).tolist()
        if len({value.size for value in values}) != 1:
            return None
        columns = zip(*(value.reshape(-1).tolist() for value in values), strict=True)
        return [column[0] if len(set(column)) == 1 else None for column in columns]

    def constant(self, name: str) -> Array | None:
        """Return the value of a tensor that depends neither on the image nor on the batch, else None."""
        values = self.values(name)
        if values is not None:
            same = all(value is values[0] or _equal(value, values[0]) for value in values[1:])
            return values[0] if same else None
        if name in self._weights:
            return numpy_helper.to_array(self._weights[name])
        if name in self._constant_nodes and name not in self._constants:
            node = self._constant_nodes[name]
            feeds = [self.constant(n) if n else None for n in node.input]
            outputs: Sequence[Array | None] = self._evaluate(node, feeds) or [None] * len(node.output)
            self._constants.update(zip(node.output, outputs, strict=False))
        return self._constants.get(name)

    def _analyse(self, node: onnx.NodeProto, inputs: list[_Known]) -> list[_Known]:
        """Return what is known about the outputs of a node, given what is known about its inputs."""
        outputs = self._infer(node, inputs)
        shape = inputs[0].shape if inputs else None
        values: list[Array] | None = None
        if node.op_type in ("Shape", "Size") and shape is not None:
            values = self._evaluate(node, [np.broadcast_to(np.float32(0), shape)])
        elif _is_pure(node):
            given = all(known.value is not None for n, known in zip(node.input, inputs, strict=True) if n)
            bounded = all(k.shape is not None and math.prod(k.shape) <= _LARGE for k in outputs)
            if given and (bounded or node.op_type == "NonZero"):
                values = self._evaluate(node, [known.value for known in inputs])
        if values is None:
            return outputs
        return [
            _Known(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value) for value in values
        ] + outputs[len(values) :]

    def _infer(self, node: onnx.NodeProto, inputs: list[_Known]) -> list[_Known]:
        """Infer types of the outputs of a node; unknown where ONNX cannot tell."""
        types, data = {}, {}
        for name, known in zip(node.input, inputs, strict=True):
            if name:
                if known.element_type == TensorProto.UNDEFINED:
                    return [_Known()] * len(node.output)
                types[name] = onnx.helper.make_tensor_type_proto(known.element_type, known.shape)
                if known.value is not None and known.value.size <= _LARGEST_DATA:
                    data[name] = numpy_helper.from_array(known.value, name)
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets, ir_version=self._ir_version
            )
        except Exception:  # no schema, or inputs that inference cannot handle: the rules name what they miss
            return [_Known()] * len(node.output)
        return [_read_type(found[name]) if name in found else _Known() for name in node.output]

    def _evaluate(self, node: onnx.NodeProto, feeds: Sequence[Array | None]) -> list[Array] | None:
        """Run a node in ONNX's reference evaluator; None if an input is missing or it cannot run."""
        if any(name and value is None for name, value in zip(node.input, feeds, strict=True)):
            return None
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        alone.ClearField("name")
        alone.ClearField("doc_string")
        alone.input[:] = [f"i{i}" if name else "" for i, name in enumerate(node.input)]
        alone.output[:] = [f"o{i}" for i in range(len(node.output))]
        key = alone.SerializeToString(deterministic=True)
        if key not in self._evaluators:
            graph = onnx.helper.make_graph(
                [alone],
                "node",
                [onnx.ValueInfoProto(name=name) for name in alone.input if name],
                [onnx.ValueInfoProto(name=name) for name in alone.output],
            )
            model = onnx.helper.make_model(graph, opset_imports=self._opsets)
            try:
                self._evaluators[key] = ReferenceEvaluator(model)
            except Exception:  # an operator that it lacks
                return None
        named = {name: value for name, value in zip(alone.input, feeds, strict=True) if name}
        try:
            values = [np.asarray(value) for value in self._evaluators[key].run(None, named)]
        except Exception:  # an operator, or a type of tensor, that it cannot run
            return None
        self._computed += sum(value.nbytes for value in values if value.base is None)
        if self._computed > _MOST_COMPUTED:
            raise ValueError(f"the model computes more than {_MOST_COMPUTED:,} bytes of constants")
        return values


def _is_pure(node: onnx.NodeProto) -> bool:
    """Whether a node computes the same at each run and reads nothing but its inputs."""
    random = node.op_type in ("Multinomial", "Bernoulli") or node.op_type.startswith("Random")
    return not random and not any(attribute.type in _SUBGRAPHS for attribute in node.attribute)


def _complete(dims: list[int | None]) -> tuple[int, ...] | None:
    return None if None in dims else tuple(dim for dim in dims if dim is not None)


def _alike(a: _Known, b: _Known) -> bool:
    """Whether two batch sizes need not be told apart at a tensor."""
    return a.shape == b.shape and (a.value is b.value or _equal(a.value, b.value))


def _equal(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)


def _read_type(found: onnx.TypeProto) -> _Known:
    tensor = found.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return _Known(tensor.elem_type, _complete(dims) if tensor.HasField("shape") else None)
