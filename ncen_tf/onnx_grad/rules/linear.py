"""Matrix products."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.facts import Shape
from ncen_tf.onnx_grad.registry import Node, rule


@rule("Gemm", inputs=(0, 1, 2))
def gemm(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Y = alpha A' B' + beta C, where ' transposes if transA, transB say so."""
    a, b = node.inputs[:2]
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    ta, tb = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    da = db = dc = None
    if node.active[0]:
        da = (
            g.op("Gemm", b, dy, alpha=alpha, transA=tb, transB=1)
            if ta
            else g.op("Gemm", dy, b, alpha=alpha, transB=1 - tb)
        )
    if node.active[1]:
        db = (
            g.op("Gemm", dy, a, alpha=alpha, transA=1, transB=ta)
            if tb
            else g.op("Gemm", a, dy, alpha=alpha, transA=1 - ta)
        )
    if len(node.inputs) > 2 and node.active[2]:
        scaled = dy if beta == 1.0 else g.op("Mul", dy, g.like(beta, a))
        dc = g.sum_to_input(scaled, node.outputs[0], node.inputs[2])
    return [da, db, dc]


@rule("MatMul", inputs=(0, 1))
def matmul(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Vectors count as a row (left) or a column (right); stacks of matrices broadcast."""
    a, b = node.inputs
    a_shape, b_shape = g.shape(a), g.shape(b)
    if len(a_shape) == 2 and len(b_shape) == 2:
        da = g.op("Gemm", dy, b, transB=1) if node.active[0] else None
        db = g.op("Gemm", a, dy, transA=1) if node.active[1] else None
        return [da, db]
    a_matrix: Shape = (1, *a_shape) if len(a_shape) == 1 else a_shape
    b_matrix: Shape = (*b_shape, 1) if len(b_shape) == 1 else b_shape
    lead = _broadcast(a_matrix[:-2], b_matrix[:-2])
    if len(a_shape) == 1 or len(b_shape) == 1:
        dy = g.reshape(dy, (*lead, a_matrix[-2], b_matrix[-1]))
    da = db = None
    if node.active[0]:
        right = _transpose(g, g.reshape(b, b_matrix) if b_matrix != b_shape else b, len(b_matrix))
        full = g.op("MatMul", dy, right)
        da = g.sum_to(full, (*lead, *a_matrix[-2:]), a_matrix)
        da = g.reshape_like(da, a) if a_matrix != a_shape else da
    if node.active[1]:
        left = _transpose(g, g.reshape(a, a_matrix) if a_matrix != a_shape else a, len(a_matrix))
        full = g.op("MatMul", left, dy)
        db = g.sum_to(full, (*lead, *b_matrix[-2:]), b_matrix)
        db = g.reshape_like(db, b) if b_matrix != b_shape else db
    return [da, db]


def _transpose(g: GraphBuilder, tensor: str, rank: int) -> str:
    return g.op("Transpose", tensor, perm=[*range(rank - 2), rank - 1, rank - 2])


def _broadcast(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))
