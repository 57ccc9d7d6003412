"""Models assembled without copying their weights, and the split into a forward and a backward model."""

import math
from collections.abc import Iterable

import onnx
from onnx import TensorProto

from ncen_tf.onnx_grad.expansion import nodes_read

_SMALL = 2**10  # entries of the initializers that shape inference reads


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with its large initializers as inputs, which is quick to check, infer and rewrite."""
    inputs, initializers = [], []
    listed = {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            initializers.append(tensor)
        else:
            inputs.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    kept = [value for value in model.graph.input if value.name not in listed]
    opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry for entry in model.opset_import}
    result = make_model(
        model, model.graph.node, [*kept, *inputs], model.graph.output, initializers, opsets.values()
    )
    result.graph.value_info.extend(model.graph.value_info)
    result.functions.extend(model.functions)
    return result


def make_model(
    like: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    initializers: Iterable[TensorProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> onnx.ModelProto:
    """Make a model in place: the functions of `onnx.helper` copy the weights twice."""
    # Before IR version 4 every initializer had to be an input as well.
    result = onnx.ModelProto(ir_version=max(like.ir_version, 4), producer_name=like.producer_name)
    result.opset_import.extend(opsets)
    result.graph.name = like.graph.name or "graph"
    result.graph.node.extend(nodes)
    result.graph.input.extend(inputs)
    result.graph.output.extend(outputs)
    result.graph.initializer.extend(initializers)
    return result


def split_gradient_model(model: onnx.ModelProto, output: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Split a model of ``gradient_model`` in two, so that the forward pass runs only once.

    The cotangent usually depends on the output. Without the split, the caller computes the output first,
    and the gradient model computes it again. The forward model here also returns the intermediate tensors
    that the backward model reads.

    Args:
        model: a model returned by ``gradient_model``.
        output: name of the output that it differentiates.

    Returns:
        The forward model, from the inputs of the original model to ``output`` followed by the intermediate
        tensors; and the backward model, from the intermediate tensors and, last, the cotangent to the
        gradient of the image.
    """
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(without_weights(model)).graph
    cotangent, gradient = graph.input[-1], graph.output[-1]
    values = {value.name: value for value in (*inferred.value_info, *graph.input, *graph.output)}
    depends, forward, backward = {cotangent.name}, [], []
    for node in graph.node:
        if depends.intersection(nodes_read(node)):
            backward.append(node)
            depends.update(node.output)
        else:
            forward.append(node)
    made = {value.name for value in graph.input} | {name for node in forward for name in node.output}
    read = dict.fromkeys(name for node in backward for name in sorted(nodes_read(node)))
    kept = [values[name] for name in read if name in made and name and name != cotangent.name]
    parts = (
        (forward, list(graph.input)[:-1], [values[output], *kept]),
        (backward, [*kept, cotangent], [gradient]),
    )
    models = []
    for nodes, inputs, outputs in parts:
        names = {name for node in nodes for name in nodes_read(node)} | {value.name for value in outputs}
        weights = [tensor for tensor in graph.initializer if tensor.name in names]
        models.append(make_model(model, nodes, inputs, outputs, weights, model.opset_import))
    return models[0], models[1]
