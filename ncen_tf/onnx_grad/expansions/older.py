"""Older forms of operators, written as the rules know them."""

from collections.abc import Sequence

import numpy as np

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import upgrade
from ncen_tf.onnx_grad.registry import Node


@upgrade("MaxPool", "AveragePool", "LpPool", before=22)
def pool(g: GraphBuilder, node: Node) -> Sequence[str] | None:
    """Lower the padding of a pool with `ceil_mode` whose last window starts in the padding.

    Runtimes drop such a window, but before opset 22 ONNX's shape inference counts it. With less padding at
    the end, and without `ceil_mode`, both give the same, and padding does not change the other windows.
    """
    a = node.attributes
    if not a.get("ceil_mode", 0) or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if not g.facts.has_shape(node.inputs[0]):
        return None
    sizes = g.shape(node.inputs[0])[2:]
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
    if not dropped:
        return None
    same = {k: v for k, v in a.items() if k not in ("ceil_mode", "pads")}
    return g.ops(node.op_type, len(node.outputs), *node.inputs, pads=pads, **same)


@upgrade("Clip", before=11)
def clip(g: GraphBuilder, node: Node) -> Sequence[str]:
    x, a = node.inputs[0], node.attributes
    bounds = [g.like(a[name], x) if name in a else "" for name in ("min", "max")]
    return [g.op("Clip", x, *bounds)]


@upgrade("Pad", before=11)
def pad(g: GraphBuilder, node: Node) -> Sequence[str]:
    x, a = node.inputs[0], node.attributes
    value = g.like(a.get("value", 0.0), x)
    return [g.op("Pad", x, g.integers(a["pads"]), value, mode=a.get("mode", b"constant"))]


@upgrade("Slice", before=11)
def slice_(g: GraphBuilder, node: Node) -> Sequence[str]:
    a = node.attributes
    bounds = [g.integers(a[name]) for name in ("starts", "ends", "axes") if name in a]
    return [g.op("Slice", *node.inputs, *bounds)]  # from opset 10 the bounds are inputs


@upgrade("Upsample", "Resize", before=11)
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


@upgrade("Scatter", before=11)
def scatter(g: GraphBuilder, node: Node) -> Sequence[str]:
    return [g.op("ScatterElements", *node.inputs, axis=node.attributes.get("axis", 0))]


@upgrade("TopK", before=11)
def top_k(g: GraphBuilder, node: Node) -> Sequence[str]:
    k = node.inputs[1] if len(node.inputs) > 1 else g.integers([node.attributes["k"]])
    return g.ops("TopK", 2, node.inputs[0], k, axis=node.attributes.get("axis", -1))


@upgrade("BatchNormalization", before=9)
def batch_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    if not node.attributes.get("spatial", 1):
        raise node.unsupported("has a mean for each pixel (spatial=0)")
    same = {k: v for k, v in node.attributes.items() if k != "spatial"}
    return [g.op("BatchNormalization", *node.inputs, **same)]
