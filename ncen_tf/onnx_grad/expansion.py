"""Expansion of nodes without a rule, and of old forms of operators, into operators that have rules."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.inliner

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, find_rule

# (builder, node) -> names of the outputs, computed by the nodes that it appends.
ExpansionFunction = Callable[[GraphBuilder, Node], Sequence[str]]

_EXPANSIONS: dict[tuple[str, str], ExpansionFunction] = {}
_UPGRADES: dict[str, ExpansionFunction] = {}
_MICROSOFT = "com.microsoft"
_POOLS = ("MaxPool", "AveragePool", "LpPool")


def expansion(*op_types: str, domain: str = "") -> Callable[[ExpansionFunction], ExpansionFunction]:
    """Register the decorated function as the expansion of operators; the forward pass uses it as well."""

    def register(function: ExpansionFunction) -> ExpansionFunction:
        _EXPANSIONS.update({(domain, op_type): function for op_type in op_types})
        return function

    return register


def upgrade(*op_types: str) -> Callable[[ExpansionFunction], ExpansionFunction]:
    """Register the decorated function as the conversion of operators from opset 9 or 10 to opset 11."""

    def register(function: ExpansionFunction) -> ExpansionFunction:
        _UPGRADES.update(dict.fromkeys(op_types, function))
        return function

    return register


def expanded_ops() -> tuple[str, ...]:
    """Return the names of the operators that have an expansion or an upgrade, sorted."""
    return tuple(sorted({op_type for _, op_type in _EXPANSIONS} | set(_UPGRADES)))


def expand(
    builder: GraphBuilder, node: onnx.NodeProto, opset: int, depends: bool
) -> list[onnx.NodeProto] | None:
    """Return nodes that replace a node of the forward pass, None if it stays.

    Args:
        builder: builder of the graph, which knows the tensors before the node.
        node: the node.
        opset: the opset in which it is written; the builder's is 11 or later.
        depends: whether the node depends on the image. Nodes that do not are only converted to opset 11.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type == "If" and not domain:
        condition = builder.facts.constant(node.input[0])
        if condition is not None:
            return _branch(builder, node, bool(condition.any()))
    if node.op_type in _POOLS and builder.opset < 22:
        pads = _pads_without_ceil_mode(builder, node)
        if pads is not None:
            return _replace(builder, node, lambda g, view: _pool_with_pads(g, view, pads))
    if opset < 11 and not domain and node.op_type in _UPGRADES:
        return _replace(builder, node, _UPGRADES[node.op_type])
    if node.op_type == "LayerNormalization" and builder.opset < 17:
        return _replace(builder, node, layer_normalization_before_17)
    if not depends or find_rule(node) is not None:
        return None
    if (domain, node.op_type) in _EXPANSIONS:
        return _replace(builder, node, _EXPANSIONS[domain, node.op_type])
    return _schema_function(builder, node) if not domain else None


def nodes_read(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, including those read in its subgraphs (If, Loop)."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(name for inner in graph.node for name in nodes_read(inner))
            names.update(value.name for value in graph.output)
    names.discard("")
    return names


def _replace(
    builder: GraphBuilder, node: onnx.NodeProto, function: ExpansionFunction
) -> list[onnx.NodeProto]:
    """Return the nodes that an expansion appends, and an Identity for each output."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    view = Node(node, tuple(node.input), tuple(node.output), attributes, (), ())
    kept, builder.nodes = builder.nodes, []
    try:
        found = function(builder, view)
        made = builder.nodes
    finally:
        builder.nodes = kept
    named = zip(found, node.output, strict=False)
    return [*made, *(onnx.helper.make_node("Identity", [a], [b]) for a, b in named if b)]


def _branch(builder: GraphBuilder, node: onnx.NodeProto, condition: bool) -> list[onnx.NodeProto]:
    """Return the nodes of the branch that an If with a constant condition takes."""
    name = "then_branch" if condition else "else_branch"
    graph = next(attribute.g for attribute in node.attribute if attribute.name == name)
    made = [tensor.name for tensor in graph.initializer]
    made += [output for inner in graph.node for output in inner.output if output]
    names = {inner: builder.fresh(inner) for inner in made}
    nodes = [
        onnx.helper.make_node("Constant", [], [names[tensor.name]], value=tensor)
        for tensor in graph.initializer
    ]
    nodes += [_renamed(inner, names) for inner in graph.node]
    outputs = zip(graph.output, node.output, strict=True)
    return nodes + [
        onnx.helper.make_node("Identity", [names.get(inner.name, inner.name)], [outer])
        for inner, outer in outputs
        if outer
    ]


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """Copy a node with its tensors renamed, also where its subgraphs read them."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    result.input[:] = [names.get(name, name) for name in node.input]
    result.output[:] = [names.get(name, name) for name in node.output]
    for attribute in result.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            renamed = [_renamed(inner, names) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(renamed)
            for value in graph.output:
                value.name = names.get(value.name, value.name)
    return result


def _schema_function(builder: GraphBuilder, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Return the function body by which the ONNX standard defines a node's operator, None if it has none."""
    facts = builder.facts
    opsets = [onnx.helper.make_opsetid("", builder.opset)]
    try:
        schema = onnx.defs.get_schema(node.op_type, builder.opset, "")
    except onnx.defs.SchemaError:
        return None
    if not all(facts.has_shape(name) for name in node.input if name):
        return None
    inputs = [
        onnx.helper.make_tensor_value_info(name, facts.element_type(name), facts.shape(name))
        for name in dict.fromkeys(node.input)
        if name
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    complete = onnx.NodeProto()
    complete.CopyFrom(node)  # the inliner does not fill in the default values of attributes
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            complete.attribute.append(attribute.default_value)
    graph = onnx.helper.make_graph([complete], "node", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = onnx.inliner.inline_selected_functions(
        model, [("", node.op_type)], exclude=False, inline_schema_functions=True
    )
    if any(inner.op_type == node.op_type for inner in found.graph.node):
        return None
    kept = {value.name for value in (*inputs, *outputs)}
    made = {name for inner in found.graph.node for name in inner.output if name} - kept
    names = {name: builder.fresh(f"{node.output[0]}/{name}") for name in sorted(made)}
    return [_renamed(inner, names) for inner in found.graph.node]


def _pads_without_ceil_mode(builder: GraphBuilder, node: onnx.NodeProto) -> list[int] | None:
    """Return pads for a pool with `ceil_mode` whose last window starts in the padding, else None.

    Runtimes drop such a window, but before opset 22 ONNX's shape inference counts it. With less padding at
    the end, and without `ceil_mode`, both give the same, and padding does not change the other windows.
    """
    a = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if not a.get("ceil_mode", 0) or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if not builder.facts.has_shape(node.input[0]):
        return None
    sizes = builder.facts.shape(node.input[0])[2:]
    rank = len(sizes)
    pads = list(a.get("pads", [0] * 2 * rank))
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    dropped = False
    for i, (size, kernel) in enumerate(zip(sizes, a["kernel_shape"], strict=True)):
        if size is None:
            return None
        extent = (kernel - 1) * dilations[i] + 1
        steps = -(-(size + pads[i] + pads[rank + i] - extent) // strides[i])
        if steps * strides[i] >= size + pads[i]:
            steps -= 1
            dropped = True
            pads[rank + i] = max(0, steps * strides[i] + extent - size - pads[i])
        elif steps * strides[i] + extent > size + pads[i] + pads[rank + i]:
            if a.get("count_include_pad", 0):
                return None  # more padding would count as entries
            pads[rank + i] = steps * strides[i] + extent - size - pads[i]
    return pads if dropped else None


def _pool_with_pads(g: GraphBuilder, node: Node, pads: Sequence[int]) -> Sequence[str]:
    same = {k: v for k, v in node.attributes.items() if k not in ("ceil_mode", "pads")}
    return g.ops(node.op_type, len(node.outputs), *node.inputs, pads=pads, **same)


# Operators of opset 9 and 10, written as in opset 11.


@upgrade("Clip")
def clip(g: GraphBuilder, node: Node) -> Sequence[str]:
    x, a = node.inputs[0], node.attributes
    bounds = [g.like(a[name], x) if name in a else "" for name in ("min", "max")]
    return [g.op("Clip", x, *bounds)]


@upgrade("Pad")
def pad(g: GraphBuilder, node: Node) -> Sequence[str]:
    x, a = node.inputs[0], node.attributes
    value = g.like(a.get("value", 0.0), x)
    return [g.op("Pad", x, g.integers(a["pads"]), value, mode=a.get("mode", b"constant"))]


@upgrade("Slice")
def slice_(g: GraphBuilder, node: Node) -> Sequence[str]:
    a = node.attributes
    bounds = [g.integers(a[name]) for name in ("starts", "ends", "axes") if name in a]
    return [g.op("Slice", *node.inputs, *bounds)]  # from opset 10 the bounds are inputs


@upgrade("Upsample", "Resize")
def resize(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Both have no coordinate modes: an output at o reads the input at o / scale."""
    x = node.inputs[0]
    scales = (
        node.inputs[1]
        if len(node.inputs) > 1
        else g.constant(np.array(node.attributes["scales"], np.float32))
    )
    value = g.facts.constant(scales)
    if value is None or (value.min() < 1 < value.max()):
        raise node.unsupported("has unknown scales, or enlarges one axis and shrinks another")
    return [
        g.op(
            "Resize",
            x,
            g.constant(np.zeros(0, np.float32)),
            scales,
            mode=node.attributes.get("mode", b"nearest"),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="ceil" if value.min() < 1 else "floor",
        )
    ]


@upgrade("Scatter")
def scatter(g: GraphBuilder, node: Node) -> Sequence[str]:
    return [g.op("ScatterElements", *node.inputs, axis=node.attributes.get("axis", 0))]


@upgrade("TopK")
def top_k(g: GraphBuilder, node: Node) -> Sequence[str]:
    k = node.inputs[1] if len(node.inputs) > 1 else g.integers([node.attributes["k"]])
    return g.ops("TopK", 2, node.inputs[0], k, axis=node.attributes.get("axis", -1))


# Operators of the ONNX standard without a function body.


@expansion("CastLike")
def cast_like(g: GraphBuilder, node: Node) -> Sequence[str]:
    return [g.op("Cast", node.inputs[0], to=g.facts.element_type(node.inputs[1]))]


@expansion("LpNormalization")
def lp_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    op = f"ReduceL{node.attributes.get('p', 2)}"
    norm = g.reduce(op, x, [node.attributes.get("axis", -1)])
    is_zero = g.op("Equal", norm, g.like(0.0, x))
    return [g.op("Div", x, g.op("Where", is_zero, g.like(1.0, x), norm))]


@expansion("LpPool")
def lp_pool(g: GraphBuilder, node: Node) -> Sequence[str]:
    """(sum of |x|^p over the window)^(1/p), the sum as an average times the size of the window."""
    x, p = node.inputs[0], node.attributes.get("p", 2)
    same = {k: v for k, v in node.attributes.items() if k != "p"}
    powers = g.op("Pow", g.op("Abs", x), g.like(p, x))
    mean = g.op("AveragePool", powers, count_include_pad=1, **same)
    total = g.op("Mul", mean, g.like(math.prod(node.attributes["kernel_shape"]), x))
    return [g.op("Pow", total, g.like(1 / p, x))]


@expansion("LRN")
def local_response_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    """x / (bias + alpha / size * sum of x^2 over `size` channels)^beta."""
    x, a = node.inputs[0], node.attributes
    size = a["size"]
    channels = g.shape(x)[1]
    if channels is None:
        raise node.unsupported("normalizes over an unknown number of channels")
    flat = g.op("Reshape", g.op("Mul", x, x), g.integers([0, 1, channels, -1]))
    pads = [(size - 1) // 2, 0, size // 2, 0]
    mean = g.op("AveragePool", flat, kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    scaled = g.op("Mul", g.op("Reshape", mean, g.op("Shape", x)), g.like(a.get("alpha", 1e-4), x))
    base = g.op("Add", scaled, g.like(a.get("bias", 1.0), x))
    return [g.op("Div", x, g.op("Pow", base, g.like(a.get("beta", 0.75), x)))]


# Operators that onnxruntime's optimizer writes.


def _activation(g: GraphBuilder, node: Node, x: str, kind: bytes, parameters: Sequence[float]) -> str:
    op = kind.decode()
    if op in ("", "Relu", "Sigmoid", "Tanh"):
        return g.op(op, x) if op else x
    if op == "LeakyRelu":
        return g.op(op, x, alpha=parameters[0])
    if op == "HardSigmoid":
        return g.op(op, x, alpha=parameters[0], beta=parameters[1])
    if op == "Clip":
        return g.op(op, x, *(g.like(value, node.inputs[0]) for value in parameters))
    raise node.unsupported(f"applies {op}")


@expansion("FusedConv", domain=_MICROSOFT)
def fused_conv(g: GraphBuilder, node: Node) -> Sequence[str]:
    own = ("activation", "activation_params")
    y = g.op("Conv", *node.inputs[:3], **{k: v for k, v in node.attributes.items() if k not in own})
    if node.input(3):
        y = g.op("Add", y, node.input(3))
    a = node.attributes
    return [_activation(g, node, y, a.get("activation", b""), a.get("activation_params", ()))]


@expansion("FusedGemm", domain=_MICROSOFT)
def fused_gemm(g: GraphBuilder, node: Node) -> Sequence[str]:
    own = [k for k in node.attributes if k.startswith("activation")]
    y = g.op("Gemm", *node.inputs, **{k: v for k, v in node.attributes.items() if k not in own})
    names = ("activation_alpha", "activation_beta")
    parameters = [node.attributes[name] for name in names if name in node.attributes]
    return [_activation(g, node, y, node.attributes.get("activation", b""), parameters)]


@expansion("FusedMatMul", domain=_MICROSOFT)
def fused_matmul(g: GraphBuilder, node: Node) -> Sequence[str]:
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        raise node.unsupported("transposes the batch")
    operands = []
    for name, flag in zip(node.inputs, ("transA", "transB"), strict=True):
        rank = len(g.shape(name))
        swap = node.attributes.get(flag, 0) and rank > 1
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(g.op("Transpose", name, perm=perm) if swap else name)
    product = g.op("MatMul", *operands)
    return [g.op("Mul", product, g.like(node.attributes.get("alpha", 1.0), node.inputs[0]))]


@expansion("Gelu", "BiasGelu", domain=_MICROSOFT)
def gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = g.add(node.inputs)
    like = node.inputs[0]
    error = g.op("Erf", g.op("Mul", x, g.like(math.sqrt(0.5), like)))
    return [g.op("Mul", g.op("Mul", x, g.like(0.5, like)), g.op("Add", error, g.like(1.0, like)))]


@expansion("FastGelu", domain=_MICROSOFT)
def fast_gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = g.add([name for name in node.inputs if name])
    like = node.inputs[0]
    cubic = g.op("Add", g.op("Mul", g.op("Mul", x, x), g.like(0.044715, like)), g.like(1.0, like))
    inner = g.op("Mul", g.op("Mul", x, cubic), g.like(math.sqrt(2 / math.pi), like))
    factor = g.op("Add", g.op("Tanh", inner), g.like(1.0, like))
    return [g.op("Mul", g.op("Mul", x, g.like(0.5, like)), factor)]


@expansion("QuickGelu", domain=_MICROSOFT)
def quick_gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    gate = g.op("Sigmoid", g.op("Mul", x, g.like(node.attributes.get("alpha", 1.702), x)))
    return [g.op("Mul", x, gate)]


@expansion("SkipLayerNormalization", domain=_MICROSOFT)
def skip_layer_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    if any(node.outputs[1:3]):
        raise node.unsupported("has statistics as outputs")
    total = g.op("Add", *node.inputs[:2])
    if node.input(4):
        total = g.op("Add", total, node.input(4))
    y = _normalized(g, node, total, node.inputs[2], node.input(3), len(g.shape(node.inputs[0])) - 1)
    return [y, "", "", total]


def layer_normalization_before_17(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Expand what onnxruntime's optimizer writes in models of opsets that have no such operator."""
    axis = node.attributes.get("axis", -1) % len(g.shape(node.inputs[0]))
    return [_normalized(g, node, node.inputs[0], node.inputs[1], node.input(2), axis)]


def _normalized(g: GraphBuilder, node: Node, x: str, scale: str, bias: str, axis: int) -> str:
    like = node.inputs[0]
    axes = range(axis, len(g.shape(like)))
    centred = g.op("Sub", x, g.reduce_mean(x, axes))
    variance = g.reduce_mean(g.op("Mul", centred, centred), axes)
    epsilon = g.like(node.attributes.get("epsilon", 1e-5), like)
    y = g.op("Mul", g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, epsilon))), scale)
    return g.op("Add", y, bias) if bias else y
