"""Reverse-mode differentiation of an ONNX model, and the split into a forward and a backward model."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import onnx
import onnx.inliner
from onnx import TensorProto

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expand, nodes_read
from ncen_tf.onnx_grad.facts import FLOAT_TYPES, GraphFacts
from ncen_tf.onnx_grad.registry import Node, UnsupportedOpError, find_rule

MIN_OPSET, MAX_OPSET = 9, 24
_OLDEST_WRITTEN = 11  # the rules write operators of this opset or later
_SMALL = 2**10  # entries of the initializers that shape inference reads
_INTEGER_IMAGES = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


def gradient_model(
    model: onnx.ModelProto,
    output: str | None = None,
    image: str | None = None,
    image_shape: Sequence[int] | None = None,
) -> onnx.ModelProto:
    """Add the vector-Jacobian product of one output with respect to one input to a model.

    For a model f and a cotangent v, the new output is v^T df/dx: with v = dL/df(x) it is the gradient of
    the loss L with respect to the image. Only standard ONNX operators of the model's opset are used (of
    opset 11 for older models). The argument is not modified.

    Args:
        model: a float model, opset 9 to 24, its weights in memory.
        output: the output to differentiate; may be omitted if there is only one.
        image: the input to differentiate by; may be omitted if there is only one. An input of integers is
            differentiated through the Cast to floats that reads it.
        image_shape: sizes of the image without the batch, for a model that leaves more than the batch
            dynamic; the gradient then holds for images of this shape only.

    Returns:
        A model with the inputs of `model` and, last, `{output}_cotangent` of the shape of `output`; and with
        the outputs of `model` and, last, `{image}_gradient` of the shape of `image`. (A number is appended
        to a name that the model already uses.)

    Raises:
        UnsupportedOpError: operators between image and output have no rule.
        ValueError: the opset is outside 9 to 24, there is no such input or output, either is not a float
            tensor, the output does not depend on the image, or a shape is not static.

    Source:
        Griewank and Walther, "Evaluating Derivatives", 2nd ed., 2008, ch. 3 (reverse mode).
    """
    opset = _opset(model)
    skeleton = _without_weights(model)
    if model.functions:
        skeleton = onnx.inliner.inline_local_functions(skeleton)
    weights = {tensor.name for tensor in model.graph.initializer}
    # An initializer that is listed as an input could be overridden when the model runs, but the gradient is
    # computed with its value.
    inputs = [value for value in skeleton.graph.input if value.name not in weights]
    x = _choose(inputs, image, "input", (*FLOAT_TYPES, *_INTEGER_IMAGES))
    y = _choose(list(skeleton.graph.output), output, "output", FLOAT_TYPES)

    written = max(opset, _OLDEST_WRITTEN)
    imports = [onnx.helper.make_opsetid("", written)]
    imports += [entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]
    facts = GraphFacts(imports, model.ir_version)
    for value in inputs:
        facts.add_input(value, image_shape if value.name == x.name else None)
    for tensor in model.graph.initializer:
        facts.add_weight(tensor)
    names = {value.name for value in (*inputs, *skeleton.graph.output)} | weights
    names.update(name for node in skeleton.graph.node for name in (node.name, *node.input, *node.output))
    builder = GraphBuilder(written, facts, names)
    active = _forward(builder, skeleton.graph.node, x, opset)
    _refuse(builder, active, y.name)

    cotangent = builder.fresh(f"{y.name}_cotangent")
    element_type = x.type.tensor_type.elem_type
    source = _backward(builder, active, x.name, y.name, cotangent)
    if element_type not in FLOAT_TYPES:
        element_type = TensorProto.FLOAT
        source = builder.op("Cast", source, to=element_type)
    gradient = onnx.ValueInfoProto(name=builder.fresh(f"{x.name}_gradient"), type=x.type)
    gradient.type.tensor_type.elem_type = element_type
    builder.nodes.append(onnx.helper.make_node("Identity", [source], [gradient.name]))
    for value in skeleton.graph.output:  # the checker asks for shapes
        if not value.type.tensor_type.HasField("shape") and facts.has_shape(value.name):
            element = facts.element_type(value.name)
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, facts.shape(value.name)))
    inputs.append(
        onnx.helper.make_tensor_value_info(cotangent, y.type.tensor_type.elem_type, builder.shape(y.name))
    )
    result = _model(
        model, builder.nodes, inputs, [*skeleton.graph.output, gradient], model.graph.initializer, imports
    )
    read = {name for node in builder.nodes for name in nodes_read(node)}
    result.graph.initializer.extend(tensor for tensor in builder.initializers if tensor.name in read)
    onnx.checker.check_model(_without_weights(result), full_check=True)
    return result


def _forward(
    builder: GraphBuilder, nodes: Iterable[onnx.NodeProto], image: onnx.ValueInfoProto, opset: int
) -> set[str]:
    """Append the forward pass, analysed and expanded; return the float tensors that depend on the image."""
    active = {image.name}
    integers = image.type.tensor_type.elem_type not in FLOAT_TYPES
    waiting = deque((node, opset) for node in nodes)
    while waiting:
        node, version = waiting.popleft()
        depends = not active.isdisjoint(nodes_read(node))
        if integers and image.name in node.input and node.op_type != "Cast":
            raise UnsupportedOpError(node, "reads an image of integers that is not cast to floats")
        replacement = expand(builder, node, version, depends)
        if replacement is not None:
            # Only a branch of an If is still written in the opset of the model.
            version = version if node.op_type == "If" else builder.opset
            waiting.extendleft((inner, version) for inner in reversed(replacement))
            continue
        builder.nodes.append(node)
        builder.facts.add_node(node)
        if depends:
            active.update(name for name in node.output if name and builder.facts.is_float(name))
    return active


def _refuse(builder: GraphBuilder, active: set[str], output: str) -> None:
    """Refuse a model without a gradient, naming all operators on the path that have no rule.

    Raises:
        UnsupportedOpError: an operator has no rule, or quantizes, which would silently leave the gradient
            of the other paths.
        ValueError: the output does not depend on the image.
    """
    needed, missing, seen = {output}, [], set[tuple[str, str]]()
    for node in reversed(builder.nodes):
        if needed.isdisjoint(node.output):
            continue
        read = nodes_read(node)
        needed.update(read)
        if active.isdisjoint(read):
            continue
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            raise UnsupportedOpError(node, "quantizes, which has no gradient")
        if not active.isdisjoint(node.output) and find_rule(node) is None:
            if (node.domain, node.op_type) not in seen:
                missing.append(node)
            seen.add((node.domain, node.op_type))
    if missing:
        raise UnsupportedOpError(missing[::-1], "has no differentiation rule")
    if output not in active:
        raise ValueError(
            f"output {output!r} does not depend on the image through float tensors: there is no gradient to "
            "take; attack this model without gradients instead (`suite`=blackbox)"
        )


def _backward(builder: GraphBuilder, active: set[str], image: str, output: str, cotangent: str) -> str:
    """Append the backward pass and return the name of the cotangent of `image`."""
    cotangents: dict[str, list[str]] = {output: [cotangent]}
    for proto in reversed(list(builder.nodes)):
        if not any(name in cotangents for name in proto.output):
            continue
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
        rule = find_rule(proto)
        if rule is None:
            raise UnsupportedOpError(proto, "has no differentiation rule")
        for name, value in zip(proto.input, rule(builder, node), strict=False):
            if name in active and value is not None:
                cotangents.setdefault(name, []).append(value)
    return builder.add(cotangents[image]) if image in cotangents else builder.zeros(image)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
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
    result = _model(
        model, model.graph.node, [*kept, *inputs], model.graph.output, initializers, opsets.values()
    )
    result.graph.value_info.extend(model.graph.value_info)
    result.functions.extend(model.functions)
    return result


def _model(
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


def _choose(
    values: list[onnx.ValueInfoProto], name: str | None, kind: str, types: Sequence[int]
) -> onnx.ValueInfoProto:
    """Return the value called `name`, or the only one."""
    names = [value.name for value in values]
    if name is None and len(names) != 1:
        raise ValueError(f"the model has {len(names)} {kind}s, name one of {names}")
    if name is not None and name not in names:
        raise ValueError(f"the model has no {kind} {name!r}, only {names}")
    value = values[0 if name is None else names.index(name)]
    element_type = value.type.tensor_type.elem_type
    if element_type not in types:
        found = TensorProto.DataType.Name(element_type)
        raise ValueError(f"{kind} {value.name!r} is a tensor of {found}, not of floats")
    return value


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    versions = sorted({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")})
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
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
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
        models.append(_model(model, nodes, inputs, outputs, weights, model.opset_import))
    return models[0], models[1]
