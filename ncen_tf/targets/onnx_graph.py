"""Changes to the graph of an ONNX classifier that leave its answers as they are."""

import copy
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.onnx_grad.expansion import nodes_read

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_ONLY_SHAPES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
_MOVES = (*_ONLY_SHAPES, "Transpose")
_BATCH = "N"


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of the model's own functions by their nodes."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def use_float32(model: onnx.ModelProto) -> None:
    """Let an input of other floats be float32, with a Cast after it, and outputs of bfloat16 too.

    onnxruntime exchanges no bfloat16 with NumPy.
    """
    nodes = model.graph.node
    (image,) = model.graph.input
    tensor = image.type.tensor_type
    if tensor.elem_type in _FLOATS and tensor.elem_type != TensorProto.FLOAT:
        name = _fresh(model, f"{image.name}_float32")
        nodes.insert(0, helper.make_node("Cast", [name], [image.name], to=tensor.elem_type))
        image.name, tensor.elem_type = name, TensorProto.FLOAT
    for value in model.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            name = _fresh(model, f"{value.name}_bfloat16")
            for node in nodes:
                node.input[:] = [name if read == value.name else read for read in node.input]
                node.output[:] = [name if made == value.name else made for made in node.output]
            nodes.append(helper.make_node("Cast", [name], [value.name], to=TensorProto.FLOAT))
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def cast_first(model: onnx.ModelProto) -> None:
    """Cast an image of integers to floats before its entries are moved, instead of after that.

    Gradients are taken through a Cast that reads the image itself.
    """
    graph = model.graph
    (image,) = graph.input
    moved, name = [], image.name
    outputs = {value.name for value in graph.output}
    while image.type.tensor_type.elem_type not in _FLOATS and name not in outputs:
        readers = [node for node in graph.node if name in nodes_read(node)]
        if len(readers) != 1 or name not in readers[0].input[:1]:
            return
        (reader,) = readers
        if reader.op_type == "Cast":
            break
        if reader.op_type not in _MOVES or len(reader.output) != 1:
            return
        moved.append(reader)
        name = reader.output[0]
    else:
        return
    (to,) = (attribute.i for attribute in reader.attribute if attribute.name == "to")
    if not moved or to not in _FLOATS:
        return
    first = _fresh(model, f"{image.name}_floats")
    moved[0].input[0] = first
    reader.CopyFrom(helper.make_node("Identity", [name], list(reader.output)))
    graph.node.insert(0, helper.make_node("Cast", [image.name], [first], to=to))
    del graph.value_info[:]


def unpack_maps(model: onnx.ModelProto) -> None:
    """Give the probabilities that a ZipMap of scikit-learn's converter turns into a list of dictionaries."""
    for node in [node for node in model.graph.node if node.op_type == "ZipMap"]:
        for output in model.graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, None))
        identity = helper.make_node("Identity", [node.input[0]], [node.output[0]])
        node.CopyFrom(identity)


def float_outputs(model: onnx.ModelProto) -> list[str]:
    """List the outputs that hold floats."""
    return [
        output.name
        for output in model.graph.output
        if output.type.tensor_type.elem_type in (*_FLOATS, TensorProto.UNDEFINED)
        and output.type.WhichOneof("value") in ("tensor_type", None)
    ]


def before(model: onnx.ModelProto, operators: tuple[str, ...], output: str) -> str | None:
    """Name the input of the operator whose result an output holds, perhaps in another shape, if any."""
    makers = {name: node for node in model.graph.node for name in node.output}
    while output in makers:
        node = makers[output]
        if node.op_type in operators:
            return str(node.input[0])
        if node.op_type not in _ONLY_SHAPES:
            return None
        output = node.input[0]
    return None


def two_scores(model: onnx.ModelProto, score: str, logits: bool, dtype: np.dtype[Any]) -> str:
    """Make the scores [N, 2] of two classes from one number an image: (0, z) of a logit, (1 - p, p) else."""
    names = {
        part: _fresh(model, f"{score}_{part}") for part in ("shape", "column", "constant", "first", "two")
    }
    number = np.array(0 if logits else 1, dtype)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([-1, 1], np.int64), names["shape"]),
            numpy_helper.from_array(number, names["constant"]),
        ]
    )
    column, constant = names["column"], names["constant"]
    model.graph.node.extend(
        [
            helper.make_node("Reshape", [score, names["shape"]], [column]),
            helper.make_node("Mul", [column, constant], [names["first"]])
            if logits
            else helper.make_node("Sub", [constant, column], [names["first"]]),
            helper.make_node("Concat", [names["first"], column], [names["two"]], axis=1),
        ]
    )
    return names["two"]


def add_outputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Let a model return further tensors; their types are left to be inferred."""
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)


def end_at(model: onnx.ModelProto, name: str, sizes: tuple[int, ...], element_type: int) -> str:
    """Let a model return one tensor, as float32, and compute nothing else.

    Args:
        model: Changed in place.
        name: The tensor.
        sizes: Of its axes after the batch.
        element_type: Its ``TensorProto.DataType``.

    Returns:
        The name of the output.
    """
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    output = name
    if element_type != TensorProto.FLOAT:
        output = _fresh(model, f"{name}_float32")
        graph.node.append(helper.make_node("Cast", [name], [output], to=TensorProto.FLOAT))
    elif any(value.name == name for value in graph.input):
        output = _fresh(model, f"{name}_scores")
        graph.node.append(helper.make_node("Identity", [name], [output]))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch if batch > 0 else _BATCH, *sizes])
    )
    needed = {output}
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if needed.isdisjoint(node.output):
            del graph.node[index]
        else:
            needed.update(nodes_read(node))
    for index in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    return output


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model for a fixed number of images, and let it take any number.

    The first size of the input becomes free. Where the constant shape of a Reshape begins with the fixed
    number, it takes what is left; where the constant sizes of a Resize do, that of its input. Whether the
    model allows that must be tried.
    """
    result = copy.deepcopy(model)
    graph = result.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    del graph.value_info[:]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    nodes = []
    for index, node in enumerate(graph.node):
        position = {"Reshape": 1, "Resize": 3}.get(node.op_type, len(node.input))
        name = "".join(node.input[position : position + 1])
        shape = numpy_helper.to_array(constants[name]) if name in constants else np.zeros(0)
        of_some_axes = any(attribute.name == "axes" for attribute in node.attribute)
        if shape.ndim == 1 and len(shape) and shape[0] == batch and not of_some_axes:
            free, rest, zero, sizes, count = (
                _fresh(result, f"{name}_{part}_{index}")
                for part in ("free", "rest", "zero", "sizes", "count")
            )
            if node.op_type == "Reshape":
                values = {free: [0 if -1 in shape else -1, *shape[1:]]}
            else:
                values = {rest: [*shape[1:]], zero: [0]}
                nodes += [
                    helper.make_node("Shape", [node.input[0]], [sizes]),
                    helper.make_node("Gather", [sizes, zero], [count]),
                    helper.make_node("Concat", [count, rest], [free], axis=0),
                ]
            graph.initializer.extend(
                numpy_helper.from_array(np.array(value, np.int64), key) for key, value in values.items()
            )
            node.input[position] = free
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _fresh(model: onnx.ModelProto, name: str) -> str:
    """Make a name that no tensor of the model has."""
    graph = model.graph
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken.update(name for node in graph.node for name in node.output)
    while name in taken:
        name += "_"
    return name
