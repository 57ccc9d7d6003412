"""A builder that appends nodes and constants to a graph, under names that the graph does not use yet."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ncen_tf.onnx_grad.facts import GraphFacts, Shape

_END = np.iinfo(np.int64).max  # of a Slice: up to the last entry
_LARGEST_MATRIX = 2**22  # entries
LARGEST_TABLE = 2**24  # entries of a matrix of 0 and 1 by which a gradient adds up


class GraphBuilder:
    """Collects the nodes and constants of a graph of opset `opset`; `facts` describe the forward graph.

    Methods take and return tensor names. Where an operator's axes moved from an attribute to an input
    between opsets, the method of that name writes the form of the model's opset.
    """

    def __init__(self, opset: int, facts: GraphFacts, names: Iterable[str] = ()) -> None:
        self.opset = opset
        self.facts = facts
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names = set(names)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def fresh(self, hint: str) -> str:
        """Return `hint`, followed by a number if the graph already uses it."""
        name, count = hint, 1
        while name in self._names:
            name, count = f"{hint}_{count}", count + 1
        self._names.add(name)
        return name

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return its name."""
        self._count += 1
        name = self.fresh(f"grad/{op_type}_{self._count}")
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def ops(self, op_type: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node with `count` outputs and return their names."""
        first = self.op(op_type, *inputs, **attributes)
        self.nodes[-1].output.extend(self.fresh(f"{first}_{index}") for index in range(1, count))
        return list(self.nodes[-1].output)

    def constant(self, value: NDArray[Any]) -> str:
        """Add an initializer; equal ones are stored once."""
        key = (value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest())
        if key not in self._constants:
            name = self.fresh(f"grad/constant_{len(self._constants)}")
            tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            self.initializers.append(tensor)
            self.facts.add_weight(tensor)
            self._constants[key] = name
        return self._constants[key]

    def integers(self, values: Sequence[int]) -> str:
        """Add an int64 vector."""
        return self.constant(np.array(values, np.int64))

    def dtype(self, tensor: str) -> np.dtype[Any]:
        """Return the element type of a forward tensor."""
        return onnx.helper.tensor_dtype_to_np_dtype(self.facts.element_type(tensor))

    def like(self, value: float | NDArray[Any], tensor: str) -> str:
        """Add a constant of the element type of a forward tensor."""
        return self.constant(np.asarray(value).astype(self.dtype(tensor)))

    def shape(self, tensor: str) -> Shape:
        return self.facts.shape(tensor)

    def add(self, tensors: Sequence[str]) -> str:
        """Sum tensors of the same shape."""
        total = tensors[0]
        for tensor in tensors[1:]:
            total = self.op("Add", total, tensor)
        return total

    def zeros(self, tensor: str) -> str:
        """Create zeros in the shape of a forward tensor."""
        element_type = self.facts.element_type(tensor)
        if element_type == onnx.TensorProto.BFLOAT16 and self.opset < 20:
            return self.op("Cast", self.op("ConstantOfShape", self.op("Shape", tensor)), to=element_type)
        value = numpy_helper.from_array(np.zeros(1, self.dtype(tensor)))
        return self.op("ConstantOfShape", self.op("Shape", tensor), value=value)

    def reduce_sum(self, tensor: str, axes: Sequence[int], keepdims: bool = True) -> str:
        if not axes:
            return tensor
        if self.opset < 13:
            return self.op("ReduceSum", tensor, axes=list(axes), keepdims=int(keepdims))
        return self.op("ReduceSum", tensor, self.integers(axes), keepdims=int(keepdims))

    def reduce(self, op_type: str, tensor: str, axes: Sequence[int]) -> str:
        """Apply a reduction other than ReduceSum; the reduced axes stay, with size 1."""
        if not axes:
            return tensor
        if self.opset < 18:
            return self.op(op_type, tensor, axes=list(axes), keepdims=1)
        return self.op(op_type, tensor, self.integers(axes), keepdims=1)

    def reduce_mean(self, tensor: str, axes: Sequence[int]) -> str:
        return self.reduce("ReduceMean", tensor, axes)

    def reshape(self, tensor: str, shape: Shape) -> str:
        """Reshape; at most one dimension may vary with the batch.

        Raises:
            ValueError: more than one does.
        """
        if shape.count(None) > 1:
            raise ValueError(f"a reshape to {shape} has more than one dynamic dimension")
        return self.op("Reshape", tensor, self.integers([-1 if d is None else d for d in shape]))

    def reshape_like(self, tensor: str, forward: str) -> str:
        """Reshape to the shape of a forward tensor."""
        shape = self.shape(forward)
        if shape.count(None) > 1:
            return self.op("Reshape", tensor, self.op("Shape", forward))
        return self.reshape(tensor, shape)

    def unsqueeze(self, tensor: str, axis: int) -> str:
        """Insert an axis of size 1."""
        if self.opset < 13:
            return self.op("Unsqueeze", tensor, axes=[axis])
        return self.op("Unsqueeze", tensor, self.integers([axis]))

    def expand_like(self, tensor: str, forward: str) -> str:
        """Broadcast to the shape of a forward tensor."""
        return self.op("Expand", tensor, self.op("Shape", forward))

    def sum_to(self, tensor: str, shape: Shape, target: Shape) -> str:
        """Sum a tensor of `shape` over the axes along which broadcasting repeated `target`."""
        lead = len(shape) - len(target)
        axes = [
            axis for axis, size in enumerate(shape) if axis < lead or (target[axis - lead] == 1 and size != 1)
        ]
        if axes:
            tensor = self.reduce_sum(tensor, axes)
        return self.reshape(tensor, target) if lead else tensor

    def sum_to_input(self, tensor: str, output: str, operand: str) -> str:
        """Sum from the shape of a forward node's output to that of one of its operands."""
        return self.sum_to(tensor, self.shape(output), self.shape(operand))

    def pad(self, tensor: str, before: Sequence[int], after: Sequence[int]) -> str:
        """Pad a tensor with zeros; a negative amount cuts that many entries off."""
        cut = [axis for axis in range(len(before)) if before[axis] < 0 or after[axis] < 0]
        if cut:
            starts = self.integers([max(0, -before[axis]) for axis in cut])
            ends = self.integers([min(0, after[axis]) or _END for axis in cut])
            tensor = self.op("Slice", tensor, starts, ends, self.integers(cut))
        amounts = [max(0, amount) for amount in (*before, *after)]
        return self.op("Pad", tensor, self.integers(amounts)) if any(amounts) else tensor

    def slice(self, tensor: str, starts: str, ends: str, axis: int) -> str:
        """Return `tensor[starts:ends]` along one axis; the bounds are int64 vectors of length 1."""
        return self.op("Slice", tensor, starts, ends, self.integers([axis]))

    def reverse(self, tensor: str, axis: int) -> str:
        """Flip one axis."""
        lowest = np.iinfo(np.int64).min
        ends, axes = self.integers([lowest]), self.integers([axis])
        return self.op("Slice", tensor, self.integers([-1]), ends, axes, self.integers([-1]))

    def times_matrix(self, tensor: str, matrix: NDArray[Any], axis: int, rank: int, like: str) -> str:
        """Multiply the vectors along an axis of a tensor of `rank` by a constant matrix.

        Args:
            tensor: the tensor; its size along `axis` is m.
            matrix: [m, n], cast to the element type of the forward tensor `like`.
            axis: the axis, whose size becomes n.
            rank: rank of the tensor.
            like: a forward tensor.
        """
        if axis == rank - 1:
            return self.op("MatMul", tensor, self.like(matrix, like))
        if axis == rank - 2:
            return self.op("MatMul", self.like(matrix.T, like), tensor)
        order = [*range(axis), *range(axis + 1, rank), axis]
        last = self.op("MatMul", self.op("Transpose", tensor, perm=order), self.like(matrix, like))
        return self.op("Transpose", last, perm=[order.index(i) for i in range(rank)])

    def scatter_along(
        self, tensor: str, source: NDArray[np.int64], axis: int, rank: int, size: int, like: str
    ) -> str:
        """Add entry i of `axis` to entry `source[i]` of an axis of `size`, by a product with a 0/1 matrix.

        Raises:
            ValueError: the matrix would be too large.
        """
        if size * max(size, source.size) > LARGEST_TABLE:
            raise ValueError(f"picking {source.size} of {size} entries of an axis has too large a gradient")
        return self.times_matrix(tensor, np.eye(size)[source], axis, rank, like)

    def scatter_add(self, base: str, indices: str, updates: str) -> str:
        """Add `updates` to `base` at `indices`, as ScatterND does; repeated indices add up (opset 16)."""
        return self.op("ScatterND", base, indices, updates, reduction="add")

    def interleave_zeros(self, tensor: str, shape: Shape, steps: Sequence[int], dtype: np.dtype[Any]) -> str:
        """Insert `steps[i] - 1` zeros after every entry of axis i.

        Args:
            tensor: a tensor of `shape`.
            shape: its shape.
            steps: one step >= 1 an axis; 1 where the size varies with the batch.
            dtype: its element type.
        """
        if all(step == 1 for step in steps):
            return tensor
        merged = tuple(None if size is None else size * step for size, step in zip(shape, steps, strict=True))
        *other, rows, columns = steps
        width = shape[-1]
        entries = (width or 0) ** 2 * rows * columns
        if width is not None and shape[-2] is not None and set(other) <= {1} and entries <= _LARGEST_MATRIX:
            # Each row times a matrix of 0 and 1, [width, rows * width * columns], becomes a row with
            # its zeros and the rows of zeros under it: ten times as fast as Pad in onnxruntime.
            place = np.zeros((width, rows * width * columns), dtype)
            place[np.arange(width), np.arange(width) * columns] = 1
            return self.reshape(self.op("MatMul", tensor, self.constant(place)), merged)
        split: list[int | None] = []
        after: list[int] = []
        for size, step in zip(shape, steps, strict=True):
            split += [size] if step == 1 else [size, 1]
            after += [0] if step == 1 else [0, step - 1]
        padded = self.pad(self.reshape(tensor, tuple(split)), [0] * len(after), after)
        return self.reshape(padded, merged)


def static_size(shape: Shape, axes: Sequence[int]) -> int | None:
    """Return the number of entries over `axes`, None if it varies with the batch."""
    sizes = [shape[axis] for axis in axes]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
