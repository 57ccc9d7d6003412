"""Reverse-mode differentiation of an ONNX model, and the split into a forward and a backward model."""

import onnx
import onnx.inliner
from onnx import TensorProto

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.facts import FLOAT_TYPES, GraphFacts
from ncen_tf.onnx_grad.registry import Node, UnsupportedOpError, find_rule

MIN_OPSET, MAX_OPSET = 11, 21


def gradient_model(
    model: onnx.ModelProto, output: str | None = None, image: str | None = None
) -> onnx.ModelProto:
    """Add the vector-Jacobian product of one output with respect to one input to a model.

    For a model f and a cotangent v, the new output is v^T df/dx: with v = dL/df(x) it is the gradient of
    the loss L with respect to the image. Only standard ONNX operators of the model's opset are used. The
    argument is not modified.

    Args:
        model: a float model, opset 11 to 21; of its input shapes only the first dimension (the
            batch) may be dynamic.
        output: the output to differentiate; may be omitted if there is only one.
        image: the input to differentiate by; may be omitted if there is only one.

    Returns:
        A model with the inputs of `model` and, last, `{output}_cotangent` of the shape of `output`;
        and with the outputs of `model` and, last, `{image}_gradient` of the shape of `image`. (A
        number is appended to a name that the model already uses.)

    Raises:
        UnsupportedOpError: an operator between image and output has no rule.
        ValueError: the opset is outside 11 to 21, there is no such input or output, either is not a
            float tensor, the output does not depend on the image, or a shape is not static.

    Source:
        Griewank and Walther, "Evaluating Derivatives", 2nd ed., 2008, ch. 3 (reverse mode).
    """
    opset = _opset(model)
    result = onnx.inliner.inline_local_functions(model)
    graph = result.graph
    initializers = {tensor.name for tensor in graph.initializer}
    # An initializer listed as an input could be overridden when the model runs, behind the back of
    # the kernels folded from it.
    inputs = [value for value in graph.input if value.name not in initializers]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    x = _choose(list(graph.input), image, "input")
    y = _choose(list(graph.output), output, "output")

    builder = GraphBuilder(graph, opset, GraphFacts(result))
    cotangent = builder.fresh(f"{y.name}_cotangent")
    gradient = onnx.ValueInfoProto(name=builder.fresh(f"{x.name}_gradient"), type=x.type)
    source = _backward(builder, x.name, y.name, cotangent)
    graph.node.append(onnx.helper.make_node("Identity", [source], [gradient.name]))
    graph.input.append(
        onnx.helper.make_tensor_value_info(cotangent, y.type.tensor_type.elem_type, builder.shape(y.name))
    )
    graph.output.append(gradient)
    onnx.checker.check_model(result, full_check=True)
    return result


def _backward(builder: GraphBuilder, image: str, output: str, cotangent: str) -> str:
    """Append the backward pass and return the name of the cotangent of `image`."""
    forward = list(builder.graph.node)
    active = _depend_on(builder.facts, forward, image)
    if output not in active:
        raise ValueError(
            f"output {output!r} does not depend on input {image!r} through float tensors: there is "
            "no gradient to take; attack this model without gradients instead (`suite`=blackbox)"
        )
    _refuse_quantisation(forward, active, output)
    cotangents: dict[str, list[str]] = {output: [cotangent]}
    for proto in reversed(forward):
        if not any(name in cotangents for name in proto.output):
            continue
        rule = find_rule(proto)
        node = Node(
            proto,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute},
            active=tuple(name in active for name in proto.input),
            cotangents=tuple(
                builder.add(cotangents.pop(name)) if name in cotangents else None for name in proto.output
            ),
        )
        for name, value in zip(proto.input, rule(builder, node), strict=False):
            if name in active and value is not None:
                cotangents.setdefault(name, []).append(value)
    return builder.add(cotangents[image]) if image in cotangents else builder.zeros(image)


def _depend_on(facts: GraphFacts, nodes: list[onnx.NodeProto], image: str) -> set[str]:
    """Return the float tensors that depend on the image through float tensors."""
    active = {image}
    for node in nodes:
        if active.intersection(nodes_read(node)):
            active.update(name for name in node.output if name and facts.is_float(name))
    return active


def _refuse_quantisation(nodes: list[onnx.NodeProto], active: set[str], output: str) -> None:
    """Refuse quantization, which would silently leave the gradient of the other paths only."""
    needed = {output}
    for node in reversed(nodes):
        if needed.isdisjoint(node.output):
            continue
        needed.update(nodes_read(node))
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") and active.intersection(node.input):
            raise UnsupportedOpError(node, "quantises, which has no gradient")


def nodes_read(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, including those read in its subgraphs (If, Loop)."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(name for inner in graph.node for name in nodes_read(inner))
            names.update(value.name for value in graph.output)
    return names


def _choose(values: list[onnx.ValueInfoProto], name: str | None, kind: str) -> onnx.ValueInfoProto:
    """Return the float value called `name`, or the only one."""
    names = [value.name for value in values]
    if name is None and len(names) != 1:
        raise ValueError(f"the model has {len(names)} {kind}s, name one of {names}")
    if name is not None and name not in names:
        raise ValueError(f"the model has no {kind} {name!r}, only {names}")
    value = values[0 if name is None else names.index(name)]
    element_type = value.type.tensor_type.elem_type
    if element_type not in FLOAT_TYPES:
        found = TensorProto.DataType.Name(element_type)
        raise ValueError(f"{kind} {value.name!r} is a tensor of {found}, not of floats")
    return value


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise ValueError(f"need ONNX opset {MIN_OPSET} to {MAX_OPSET}, the model has {versions}")
    return versions[0]


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
