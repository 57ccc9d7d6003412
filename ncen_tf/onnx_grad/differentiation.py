"""Reverse-mode differentiation of an ONNX model."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
import onnx.inliner
from onnx import TensorProto

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expand, nodes_read
from ncen_tf.onnx_grad.facts import FLOAT_TYPES, GraphFacts
from ncen_tf.onnx_grad.models import make_model, without_weights
from ncen_tf.onnx_grad.registry import Node, UnsupportedOpError, find_rule

STRAIGHT_THROUGH = "straight_through"
MIN_OPSET, MAX_OPSET = 7, 24
_OLDEST_WRITTEN = 11  # the rules write operators of this opset or later
_ENTRY_BY_ENTRY = ("Add", "Mul", "Pow", "Sqrt", "Relu", "Identity", "Cast")
_INTEGER_IMAGES = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


def gradient_model(
    model: onnx.ModelProto,
    output: str | None = None,
    image: str | None = None,
    image_shape: Sequence[int] | None = None,
    *,
    tensor: str | None = None,
    quantization: str | None = None,
) -> onnx.ModelProto:
    """Add the vector-Jacobian product of one output with respect to one tensor to a model.

    For a model f and a cotangent v, the new output is v^T df/dx: with v = dL/df(x) it is the gradient of
    the loss L with respect to the image, or to a tensor inside the model. Only standard ONNX operators of the
    model's opset are used (of opset 11 for older models). The argument is not modified.

    Args:
        model: a float model, opset 7 to 24, its weights in memory.
        output: the output to differentiate; may be omitted if there is only one.
        image: the input to differentiate by; may be omitted if there is only one. An input of integers is
            differentiated through the Cast to floats that reads it.
        image_shape: sizes of the image without the batch, for a model that leaves more than the batch
            dynamic; the gradient then holds for images of this shape only.
        tensor: a tensor inside the model to differentiate by, instead of the image. It becomes an output.
        quantization: "straight_through" takes the gradient of a quantized model as if it did not round
            (Bengio et al., arXiv:1308.3432); None refuses a model that quantizes what depends on the image.

    Returns:
        A model with the inputs of `model` and, last, `{output}_cotangent` of the shape of `output`; and with
        the outputs of `model` (and `tensor`) and, last, `{image}_gradient` (or `{tensor}_gradient`) of the
        shape of `image`. (A number is appended to a name that the model already uses.)

    Raises:
        UnsupportedOpError: operators between image and output have no rule.
        ValueError: the opset is outside 7 to 24, there is no such input, output or tensor, one is not of
            floats, the output does not depend on the image, a shape is not static, or `quantization` is
            another word.

    Source:
        Griewank and Walther, "Evaluating Derivatives", 2nd ed., 2008, ch. 3 (reverse mode).
    """
    if quantization not in (None, STRAIGHT_THROUGH):
        raise ValueError(f"`quantization` must be {STRAIGHT_THROUGH!r} or None, got {quantization!r}.")
    opset = _opset(model)
    skeleton = without_weights(model)
    if model.functions:
        skeleton = onnx.inliner.inline_local_functions(skeleton)
    weights = {weight.name for weight in model.graph.initializer}
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
    for weight in model.graph.initializer:
        facts.add_weight(weight)
    names = {value.name for value in (*inputs, *skeleton.graph.output)} | weights
    names.update(name for node in skeleton.graph.node for name in (node.name, *node.input, *node.output))
    builder = GraphBuilder(written, facts, names)
    signs = _signs_of_magnitudes(skeleton.graph.node)
    source = _Source(tensor or x.name, quantization == STRAIGHT_THROUGH, signs)
    active = _forward(builder, skeleton.graph.node, x, opset, source)
    outputs = list(skeleton.graph.output)
    wanted = x if tensor is None else _inner(builder, tensor)
    if wanted.name not in {value.name for value in (*inputs, *outputs)} | weights:
        outputs.append(wanted)
    _refuse(builder, active, y.name, source)

    cotangent = builder.fresh(f"{y.name}_cotangent")
    element_type = wanted.type.tensor_type.elem_type
    found = _backward(builder, active, wanted.name, y.name, cotangent)
    if element_type not in FLOAT_TYPES:
        element_type = TensorProto.FLOAT
        found = builder.op("Cast", found, to=element_type)
    gradient = onnx.ValueInfoProto(name=builder.fresh(f"{wanted.name}_gradient"), type=wanted.type)
    gradient.type.tensor_type.elem_type = element_type
    builder.nodes.append(onnx.helper.make_node("Identity", [found], [gradient.name]))
    for value in skeleton.graph.output:  # the checker asks for shapes
        if not value.type.tensor_type.HasField("shape") and facts.has_shape(value.name):
            element = facts.element_type(value.name)
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, facts.shape(value.name)))
    inputs.append(
        onnx.helper.make_tensor_value_info(cotangent, y.type.tensor_type.elem_type, builder.shape(y.name))
    )
    result = make_model(model, builder.nodes, inputs, [*outputs, gradient], model.graph.initializer, imports)
    read = {name for node in builder.nodes for name in nodes_read(node)}
    result.graph.initializer.extend(weight for weight in builder.initializers if weight.name in read)
    try:
        onnx.checker.check_model(without_weights(result), full_check=True)
    except onnx.shape_inference.InferenceError as error:  # as of bfloat16 in operators of older opsets
        raise ValueError(f"the gradient cannot be written in opset {written}: {error}") from error
    return result


@dataclass(frozen=True)
class _Source:
    """What a gradient is taken by, whether it passes through quantization, and where it ends."""

    name: str
    straight_through: bool
    constant: set[str]

    def passes(self, builder: GraphBuilder, node: onnx.NodeProto, active: set[str]) -> list[str]:
        """Return the outputs of a node that have a gradient, if `active` are the tensors that have one."""
        outputs = [name for name in node.output if name and name not in self.constant]
        if self.straight_through:
            rule = find_rule(node)
            # Shapes and indices are int64.
            quantized = builder.facts.element_type(node.output[0]) not in (
                TensorProto.INT64,
                TensorProto.BOOL,
            )
            integers = any(name in active and not builder.facts.is_float(name) for name in node.input)
            if (integers and quantized) or (rule is not None and rule.straight_through):
                return outputs[:1]
        return [name for name in outputs if builder.facts.is_float(name)]


def _signs_of_magnitudes(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Name the results of Sign that only multiply functions of |x|, as in sign(x) |x|^p of a signed root.

    Such a product depends on x by |x| alone, except where x is 0. Other signs have no useful gradient.
    """
    makers = {name: node for node in nodes for name in node.output}

    def of_magnitude(name: str, x: str) -> bool:
        while name in makers and makers[name].op_type in _ENTRY_BY_ENTRY:
            computed = [n for n in makers[name].input if n in makers and makers[n].op_type != "Constant"]
            name = computed[0] if computed else ""
        return name in makers and makers[name].op_type == "Abs" and makers[name].input[0] == x

    scales: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        for name in nodes_read(node):
            sign = makers.get(name)
            if sign is not None and sign.op_type == "Sign":
                x = sign.input[0]
                multiplies = node.op_type == "Mul" and any(of_magnitude(n, x) for n in node.input)
                (scales if multiplies else others).add(name)
    return scales - others


def _inner(builder: GraphBuilder, tensor: str) -> onnx.ValueInfoProto:
    """Describe a tensor inside the model.

    Raises:
        ValueError: there is none of this name, or it is not of floats.
    """
    element_type = builder.facts.element_type(tensor)
    if element_type not in FLOAT_TYPES:
        raise ValueError(f"the model has no tensor of floats {tensor!r}")
    return onnx.helper.make_tensor_value_info(tensor, element_type, builder.shape(tensor))


def _forward(
    builder: GraphBuilder,
    nodes: Iterable[onnx.NodeProto],
    image: onnx.ValueInfoProto,
    opset: int,
    source: _Source,
) -> set[str]:
    """Append the forward pass, analysed and expanded; return the tensors that have a gradient."""
    active = {source.name}
    integers = source.name == image.name and image.type.tensor_type.elem_type not in FLOAT_TYPES
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
            active.update(source.passes(builder, node, active))
    return active


def _refuse(builder: GraphBuilder, active: set[str], output: str, source: _Source) -> None:
    """Refuse a model without a gradient, naming all operators on the path that have no rule.

    Raises:
        UnsupportedOpError: an operator has no rule, or quantizes, which would silently leave the gradient
            of the other paths.
        ValueError: the output does not depend on the image, or the graph fits some batch sizes only.
    """
    needed, with_gradient = {output}, {output} & active
    missing: dict[tuple[str, str], onnx.NodeProto] = {}
    for node in reversed(builder.nodes):
        if needed.isdisjoint(node.output):
            continue
        read = nodes_read(node)
        needed.update(read)
        if active.isdisjoint(read):
            continue
        rule = find_rule(node)
        reached = not with_gradient.isdisjoint(node.output)
        quantizes = rule is not None and rule.straight_through and not source.straight_through
        quantizes &= node.op_type != "DequantizeLinear"  # which only undoes what another node did
        # A Round may compute an index, which has no gradient anyway; integers hide what they were made from.
        if quantizes and (reached or not builder.facts.is_float(node.output[0])):
            raise UnsupportedOpError(
                node,
                "quantizes, which has no gradient; with `quantization`=straight_through the gradient is that "
                "of the model without rounding",
            )
        if not reached:
            continue
        with_gradient.update(read & active)
        typed = all(builder.facts.element_type(name) for name in node.input if name)
        if rule is not None and typed and not builder.facts.element_type(node.output[0]):
            raise ValueError(
                f"operator {node.op_type} (node {node.name or node.output[0]!r}) fits some batch sizes only: "
                "give the input a fixed batch size"
            )
        if rule is None and typed:
            missing.setdefault((node.domain, node.op_type), node)
    if missing:
        raise UnsupportedOpError(list(missing.values())[::-1], "has no differentiation rule")
    if output not in active:
        raise ValueError(
            f"output {output!r} does not depend on {source.name!r} through float tensors: there is no "
            "gradient to take"
        )


def _backward(builder: GraphBuilder, active: set[str], image: str, output: str, cotangent: str) -> str:
    """Append the backward pass and return the name of the cotangent of `image`."""
    cotangents: dict[str, list[str]] = {output: [cotangent]}
    for proto in reversed(list(builder.nodes)):
        if not any(name in cotangents for name in proto.output) or active.isdisjoint(proto.input):
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
