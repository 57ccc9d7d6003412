"""Convolutions; kernels and biases do not depend on the image."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule
from ncen_tf.onnx_grad.rules.window import transposed, window


@rule("Conv")
def conv(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, name = node.inputs[:2]
    kernel = g.facts.constant(name)
    sizes = tuple(node.attributes.get("kernel_shape", ())) or g.shape(name)[2:]
    w = window(g, node, sizes, x, node.outputs[0])  # type: ignore[arg-type]
    return [transposed(g, dy, name if kernel is None else kernel, w, node.attributes.get("group", 1))]


@rule("ConvTranspose")
def conv_transpose(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The transpose of a transposed convolution is the convolution with the same kernel."""
    x, name = node.inputs[:2]
    sizes = tuple(node.attributes.get("kernel_shape", ())) or g.shape(name)[2:]
    w = window(g, node, sizes, node.outputs[0], x)  # type: ignore[arg-type]
    before = w.before
    if "output_shape" in node.attributes and node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET":
        # The padding is what makes the shape fit, the odd one before.
        extra = node.attributes.get("output_padding", [0] * len(sizes))
        totals = [
            max(0, (i - 1) * s + p + extent - o)
            for i, s, p, extent, o in zip(w.outputs, w.strides, extra, w.extents, w.inputs, strict=True)
        ]
        before = tuple(total - total // 2 for total in totals)
    # As many rows after as the last window reads beyond the output, fewer than a stride are unread.
    after = [
        max(0, (i - 1) * s + extent - b - o)
        for i, s, extent, b, o in zip(w.outputs, w.strides, w.extents, before, w.inputs, strict=True)
    ]
    return [
        g.op(
            "Conv",
            dy,
            name,
            group=node.attributes.get("group", 1),
            strides=w.strides,
            dilations=w.dilations,
            pads=[*before, *after],
        )
    ]
