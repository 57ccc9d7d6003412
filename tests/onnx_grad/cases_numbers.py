"""Cases of arithmetic, activations, products, normalization and reductions."""

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.onnx_grad.harness import BATCH, RNG, Case, X, ints, normal, positive

ERF = np.vectorize(math.erf)
ALL = (11, 13, 17, 21)
REDUCTIONS = ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


def reduction(op: str, axes: list[int], keepdims: int, **kwargs: Any) -> list[Case]:
    """With axes as an attribute, and as an input."""
    since = 13 if op == "ReduceSum" else 18
    attribute = {"axes": axes, "keepdims": keepdims}
    return [
        Case(op, (X,), attribute, (3, 2, 4), opsets=(11,) if since == 13 else (11, 13, 17), **kwargs),
        Case(op, (X, ints(*axes)), {"keepdims": keepdims}, (3, 2, 4), opsets=(since, 21), **kwargs),
    ]


# fmt: off
CASES = [
    # arithmetic: full, broadcast from either side, both operands the image
    *(
        Case(op, inputs, draw=positive, batch=2)
        for op in ("Add", "Sub", "Mul", "Div", "Pow")
        for inputs in (
            (X, X),
            (X, positive(4)),
            (positive(3, 1), X),
            (X, positive(2, 2, 3, 4)),
            (positive(1, 3, 4), X),
        )
    ),
    Case("Pow", (X, np.array(2.0))),
    Case("Pow", (X, np.array([0.0, 1.0, 2.0, 3.0]))),
    Case("Pow", (X, np.array(3, np.int64))),
    *(Case(op, (X, normal(4), normal(3, 1))) for op in ("Sum", "Mean", "Max", "Min")),
    *(Case(op, (normal(2, 2, 3, 4), X, X), batch=2) for op in ("Sum", "Mean")),
    Case("Max", (X,)),
    Case("Where", (np.array([True, False, False, True]), X, normal(2, 2, 3, 4)), batch=2),
    Case("Where", (RNG.random((2, 2, 3, 4)) < 0.5, normal(1), X), batch=2),
    *(Case(op) for op in ("Neg", "Abs", "Exp", "Identity", "Dropout")),
    Case("Erf", forward=ERF),  # the reference evaluator's is float32
    *(Case(op, draw=positive) for op in ("Log", "Sqrt", "Reciprocal")),
    Case("Cast", (X,), {"to": TensorProto.DOUBLE}),
    Case("Dropout", (X, np.array(0.5, np.float32), np.array(False)), {}),
    # activation
    *(Case(op) for op in ("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "Tanh")),
    *(Case(op) for op in ("Softplus",)),
    Case("HardSwish", draw=lambda *shape: 4 * normal(*shape), opsets=(14, 21)),
    Case("LeakyRelu", (X,), {"alpha": 0.3}),
    Case("LeakyRelu", (X,), {"alpha": -0.3}),
    Case("Elu", (X,), {"alpha": 0.5}),
    Case("HardSigmoid", (X,), {"alpha": 0.5, "beta": 0.2}),
    Case("PRelu", (X, normal(3, 1))),
    Case("PRelu", (normal(2, 3, 4), X)),
    Case("Clip", (X, np.array(-0.5), np.array(0.7)), opsets=ALL),
    Case("Clip", (X, "", np.array(0.7))),
    Case("Clip", (X, np.array(-0.5))),
    Case("Gelu", opsets=(20, 21), forward=lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    Case("Gelu", (X,), {"approximate": "tanh"}, opsets=(20,)),
    *(
        case
        for op in ("Softmax", "LogSoftmax")
        for attributes in ({}, {"axis": 1}, {"axis": -1}, {"axis": 2})
        for case in (
            Case(op, (X,), attributes, (3, 2, 4), opsets=(13, 17, 21)),
            # the reference evaluator does not flatten
            Case(op, (X,), attributes, (3, 2, 4), opsets=(11,), runtime="both"),
        )
    ),
    # linear
    Case("MatMul", (X, normal(4, 5)), image=(4,)),
    Case("MatMul", (X, normal(4, 5))),
    Case("MatMul", (X, normal(4))),
    Case("MatMul", (normal(3), X)),
    Case("MatMul", (normal(5, 3), X)),
    Case("MatMul", (normal(2, 5, 3), X), batch=2),
    Case("MatMul", (X, normal(3, 1, 4, 2))),
    Case("MatMul", (normal(3, 2, 5, 3), X), batch=2),
    Case("MatMul", (X, X), image=(3, 3)),
    Case("Gemm", (X, normal(4, 5), normal(5)), {"alpha": 0.5, "beta": 2.0}, (4,)),
    Case("Gemm", (X, normal(5, 4)), {"transB": 1}, (4,)),
    Case("Gemm", (X, normal(BATCH, 5)), {"transA": 1}, (4,), batch=2),
    Case("Gemm", (X, normal(5, BATCH)), {"transA": 1, "transB": 1}, (4,), batch=2),
    Case("Gemm", (normal(5, BATCH), X), {"alpha": 2.0}, (4,), batch=2),
    Case("Gemm", (normal(BATCH, 5), X), {"transA": 1}, (4,), batch=2),
    Case("Gemm", (normal(5, 4), X), {"transB": 1}, (4,)),
    Case("Gemm", (normal(4, 5), X), {"transA": 1, "transB": 1}, (4,), batch=2),
    Case("Gemm", (normal(BATCH, 5), normal(5, 4), X), {"beta": 0.5}, (4,), batch=2),
    # normalization
    Case("BatchNormalization", (X, *(positive(3) for _ in range(4))), {"epsilon": 0.01}, (3, 2, 2),
         opsets=(14, 15)),
    # the reference evaluator trains
    Case("BatchNormalization", (X, *(positive(3) for _ in range(4))), image=(3, 2, 2), opsets=(11,),
         runtime="both"),
    Case("BatchNormalization", (X, *(positive(4) for _ in range(4))), image=(4,), opsets=(14,)),
    Case("LayerNormalization", (X, normal(4), normal(4)), opsets=(17, 21)),
    Case("LayerNormalization", (X, normal(3, 4)), {"axis": 1, "epsilon": 0.1}, opsets=(17,)),
    Case("InstanceNormalization", (X, normal(3), normal(3)), image=(3, 2, 4), opsets=(11, 21)),
    # reduction
    *(
        case
        for op in (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
            "ReduceProd",
        )
        for axes, keepdims in (([2, 3], 1), ([-1], 0), ([1, 2], 0), ([0, 2], 1))
        for case in reduction(op, axes, keepdims)
    ),
    *(
        case
        for axes, keepdims in (([1, 2], 1), ([-1], 0))
        for case in reduction("ReduceLogSum", axes, keepdims, draw=positive)
    ),
    Case("ReduceProd", (X,), {"axes": [1]}, (3, 4), draw=lambda *shape: normal(*shape) * (RNG.random(shape) <
         0.7)),
    Case("ReduceMean", (X,), {"keepdims": 0}, opsets=(11, 18)),
    *(
        Case(op, inputs, {"noop_with_empty_axes": 1, "keepdims": keepdims}, draw=positive, opsets=opsets)
        for op, opsets in (("ReduceSum", (13, 24)), *((f"Reduce{kind}", (18, 24)) for kind in REDUCTIONS))
        for inputs, keepdims in (((X,), 1), ((X, ints()), 0))
    ),
    # sums of products
    Case("Einsum", (X, normal(4, 5)), {"equation": "bij,jk->bik"}),
    Case("Einsum", (normal(4, 3, 5), X), {"equation": "jik , bij -> bk"}, opsets=(12, 21)),
    Case("Einsum", (X, X), {"equation": "bij,bkj->bik"}),
    Case("Einsum", (X,), {"equation": "bij->bj"}),
    Case("Einsum", (X, normal(4, 5)), {"equation": "...j,jk"}),
    Case("Einsum", (X, normal(2, 3, 4)), {"equation": "...ij,...ij->...i"}, batch=2),
]
# fmt: on
