"""Cuts a model with its gradient in two, so that the forward pass is run once."""

import onnx

from ncen_tf.onnx_grad.differentiation import nodes_read


def split_gradient_model(model: onnx.ModelProto, output: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A forward and a backward model that do together what a model of ``gradient_model`` does alone.

    Run at once, that model computes the output from the image again although the caller, who needed it
    for the cotangent, has computed it before. Here the forward model hands over what the backward one
    needs of it.

    Args:
        model: what ``gradient_model`` returned.
        output: the output that it differentiates.

    Returns:
        Forward: the inputs of the original model -> ``output``, then the tensors to keep.
        Backward: the tensors to keep, then the cotangent -> the image's gradient.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    cotangent, gradient = graph.input[-1], graph.output[-1]
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
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
    return (
        _part(model, forward, list(graph.input)[:-1], [values[output], *kept]),
        _part(model, backward, [*kept, cotangent], [gradient]),
    )


def _part(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    read = {name for node in nodes for name in nodes_read(node)}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = onnx.helper.make_graph(nodes, model.graph.name, inputs, outputs, initializers)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
