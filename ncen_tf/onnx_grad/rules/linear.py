"""Matrix products (also Einsum), reductions over axes, and normalization in inference mode."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder, static_size
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


def _axes(g: GraphBuilder, node: Node) -> list[int]:
    """Return the axes, from the attribute or the input, depending on the opset; all or none by default."""
    rank = len(g.shape(node.inputs[0]))
    if node.op_type.startswith("Global"):
        return list(range(2, rank))
    axes: Sequence[int] = node.attributes.get("axes", ())
    if node.input(1):
        value = g.facts.constant(node.input(1))
        if value is None:
            raise node.unsupported("has axes that are only known when the model runs")
        axes = value.tolist()
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return []
    return sorted(axis % rank for axis in axes) or list(range(rank))


def _keep(g: GraphBuilder, node: Node, tensor: str) -> str:
    """Insert the reduced axes, with size 1, into a tensor of the output's shape."""
    if node.attributes.get("keepdims", 1) or node.op_type.startswith("Global"):
        return tensor
    axes = _axes(g, node)
    if not axes:
        return tensor
    shape = g.shape(node.inputs[0])
    return g.reshape(tensor, tuple(1 if i in axes else size for i, size in enumerate(shape)))


@rule("ReduceSum")
def reduce_sum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.expand_like(_keep(g, node, dy), node.inputs[0])]


@rule("ReduceMean", "GlobalAveragePool")
def reduce_mean(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    count = static_size(g.shape(x), _axes(g, node))
    if count is None:
        ratio = g.op("Div", g.op("Size", x), g.op("Size", node.outputs[0]))
        share = g.op("Div", dy, g.op("Cast", ratio, to=g.facts.element_type(x)))
    else:
        share = g.op("Mul", dy, g.like(1 / count, x))
    return [g.expand_like(_keep(g, node, share), x)]


@rule("ReduceMax", "ReduceMin", "GlobalMaxPool")
def reduce_extremum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Entries that tie share the gradient equally, as in TensorFlow."""
    x = node.inputs[0]
    attains = g.op("Equal", x, _keep(g, node, node.outputs[0]))
    ones = g.op("Cast", attains, to=g.facts.element_type(x))
    share = g.op("Div", _keep(g, node, dy), g.reduce_sum(ones, _axes(g, node)))
    return [g.op("Mul", ones, share)]


@rule("ReduceL1")
def reduce_l1(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient at 0 is 0."""
    return [g.op("Mul", g.op("Sign", node.inputs[0]), _keep(g, node, dy))]


@rule("ReduceL2")
def reduce_l2(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """dx = dy x / |x|; 0 at x = 0."""
    x, y = node.inputs[0], node.outputs[0]
    zero, one = g.like(0.0, x), g.like(1.0, x)
    norm = g.op("Where", g.op("Greater", y, zero), y, one)
    return [g.op("Mul", x, _keep(g, node, g.op("Div", dy, norm)))]


@rule("ReduceSumSquare")
def reduce_sum_square(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    return [g.op("Mul", x, _keep(g, node, g.op("Mul", dy, g.like(2.0, x))))]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    weights = g.op("Exp", g.op("Sub", node.inputs[0], _keep(g, node, node.outputs[0])))
    return [g.op("Mul", weights, _keep(g, node, dy))]


@rule("ReduceLogSum")
def reduce_log_sum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    share = g.op("Mul", dy, g.op("Exp", g.op("Neg", node.outputs[0])))
    return [g.expand_like(_keep(g, node, share), node.inputs[0])]


@rule("ReduceProd")
def reduce_prod(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The product of the other entries, which is 0 if one of them is 0."""
    x, axes = node.inputs[0], _axes(g, node)
    zero, one = g.like(0.0, x), g.like(1.0, x)
    is_zero = g.op("Equal", x, zero)
    zeros = g.reduce_sum(g.op("Where", is_zero, one, zero), axes)
    safe = g.op("Where", is_zero, one, x)
    product = g.reduce("ReduceProd", safe, axes)
    others = g.op("Where", g.op("Equal", zeros, zero), g.op("Div", product, safe), zero)
    only_zero = g.op("And", is_zero, g.op("Equal", zeros, one))
    return [g.op("Mul", g.op("Where", only_zero, product, others), _keep(g, node, dy))]


@rule("BatchNormalization")
def batch_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Given statistics: dx = dy * scale / sqrt(variance + epsilon), channel by channel."""
    if node.attributes.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise node.unsupported("is in training mode")
    x, scale, _, _, variance = node.inputs
    epsilon = g.like(node.attributes.get("epsilon", 1e-5), variance)
    deviation = g.op("Sqrt", g.op("Add", variance, epsilon))
    slope = g.op("Div", scale, deviation)  # of constants: a runtime folds it when it loads
    rank = len(g.shape(x))
    if rank > 2:
        slope = g.reshape(slope, (g.shape(scale)[0], *[1] * (rank - 2)))
    return [g.op("Mul", dy, slope)]


@rule("LayerNormalization")
def layer_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, scale = node.inputs[:2]
    rank = len(g.shape(x))
    axis = node.attributes.get("axis", -1) % rank
    dz = g.op("Mul", dy, scale)
    return [_standardize(g, x, dz, range(axis, rank), node.attributes.get("epsilon", 1e-5))]


@rule("InstanceNormalization")
def instance_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, scale = node.inputs[:2]
    rank = len(g.shape(x))
    channels = g.reshape(scale, (g.shape(scale)[0], *[1] * (rank - 2)))
    dz = g.op("Mul", dy, channels)
    return [_standardize(g, x, dz, range(2, rank), node.attributes.get("epsilon", 1e-5))]


def _standardize(g: GraphBuilder, x: str, dz: str, axes: Sequence[int], epsilon: float) -> str:
    """dx for z = (x - mean x) / s, s = sqrt(var x + epsilon), both over `axes`.

    dx = (dz - mean dz - z mean(z dz)) / s (Ba, Kiros and Hinton, arXiv:1607.06450).
    """
    centred = g.op("Sub", x, g.reduce_mean(x, axes))
    variance = g.reduce_mean(g.op("Mul", centred, centred), axes)
    deviation = g.op("Sqrt", g.op("Add", variance, g.like(epsilon, x)))
    z = g.op("Div", centred, deviation)
    along = g.op("Mul", z, g.reduce_mean(g.op("Mul", z, dz), axes))
    rest = g.op("Sub", g.op("Sub", dz, g.reduce_mean(dz, axes)), along)
    return g.op("Div", rest, deviation)


@rule("Einsum", inputs=None)
def einsum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient by an operand is an Einsum of the cotangent and the other operands."""
    terms, output = _einsum_terms(g, node)
    gradients: list[str | None] = []
    for index, (name, term) in enumerate(zip(node.inputs, terms, strict=True)):
        if not node.active[index]:
            gradients.append(None)
            continue
        if len(set(term)) < len(term):
            raise node.unsupported("takes a diagonal")
        others = [i for i in range(len(terms)) if i != index]
        known = set(output).union(*(terms[i] for i in others))
        kept = "".join(letter for letter in term if letter in known)
        equation = ",".join([output, *(terms[i] for i in others)]) + "->" + kept
        gradient = g.op("Einsum", dy, *(node.inputs[i] for i in others), equation=equation)
        if kept != term:  # summed over on its own
            sizes = zip(term, g.shape(name), strict=True)
            gradient = g.reshape(gradient, tuple(size if letter in known else 1 for letter, size in sizes))
            gradient = g.expand_like(gradient, name)
        gradients.append(gradient)
    return gradients


def _einsum_terms(g: GraphBuilder, node: Node) -> tuple[list[str], str]:
    """Return the letters of the operands and the output, with letters in place of an ellipsis."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        output = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    sizes: dict[str, int | None] = {}
    for index, (term, name) in enumerate(zip(terms, node.inputs, strict=True)):
        shape = g.shape(name)
        count = len(shape) - len(term.replace("...", ""))
        terms[index] = term = term.replace("...", "".join(free[:count]))
        output = output.replace("...", "".join(free[:count])) if count else output
        if any(sizes.setdefault(c, size) != size for c, size in zip(term, shape, strict=True)):
            raise node.unsupported("broadcasts")
    return terms, output.replace("...", "")
