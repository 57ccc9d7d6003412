"""Expansion of nodes without a rule, and of old forms of operators, into operators that have rules."""

from collections.abc import Callable, Sequence

import onnx
import onnx.inliner

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, find_rule

# (builder, node) -> names of the outputs, computed by the nodes that it appends.
ExpansionFunction = Callable[[GraphBuilder, Node], Sequence[str]]
# The same; None where the node can stay as it is.
UpgradeFunction = Callable[[GraphBuilder, Node], Sequence[str] | None]

_EXPANSIONS: dict[tuple[str, str], ExpansionFunction] = {}
_UPGRADES: dict[str, tuple[int, UpgradeFunction]] = {}


def expansion(*op_types: str, domain: str = "") -> Callable[[ExpansionFunction], ExpansionFunction]:
    """Register the decorated function as the expansion of operators; the forward pass uses it as well."""

    def register(function: ExpansionFunction) -> ExpansionFunction:
        _EXPANSIONS.update({(domain, op_type): function for op_type in op_types})
        return function

    return register


def upgrade(*op_types: str, before: int) -> Callable[[UpgradeFunction], UpgradeFunction]:
    """Register the decorated function as the conversion of operators of opsets lower than `before`.

    Unlike an expansion, it also converts nodes that do not depend on the image.
    """

    def register(function: UpgradeFunction) -> UpgradeFunction:
        _UPGRADES.update(dict.fromkeys(op_types, (before, function)))
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
    before, conversion = _UPGRADES.get(node.op_type, (0, None)) if not domain else (0, None)
    if conversion is not None and opset < before:
        replacement = _replace(builder, node, conversion)
        if replacement is not None:
            return replacement
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
    builder: GraphBuilder, node: onnx.NodeProto, function: UpgradeFunction
) -> list[onnx.NodeProto] | None:
    """Return the nodes that an expansion appends, and an Identity for each output; None if it stays."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    view = Node(node, tuple(node.input), tuple(node.output), attributes, (), ())
    kept, builder.nodes = builder.nodes, []
    try:
        found = function(builder, view)
        made = builder.nodes
    finally:
        builder.nodes = kept
    if found is None:
        return None
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
