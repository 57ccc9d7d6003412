"""Cases of operators that move, join, cut and pick entries."""

import numpy as np

from tests.onnx_grad.harness import LINEAR, RNG, Case, X, ints, normal

PLACES = RNG.integers(-2, 2, (2, 3, 4))  # along the first axis; the image has a batch of two
SOME_ZEROS = normal(5, 4, 4) * (RNG.random((5, 4, 4)) < 0.7)

# fmt: off
CASES = [
    # moving, joining, cutting
    Case("Reshape", (X, ints(-1, 12)), opsets=(11, 21)),
    Case("Reshape", (X, ints(0, 2, -1))),
    Case("Flatten", opsets=(11, 21)),
    Case("Squeeze", (X,), {"axes": [1]}, (1, 4), opsets=(11,)),
    Case("Squeeze", (X, ints(1, -1)), {}, (1, 4, 1)),
    Case("Unsqueeze", (X,), {"axes": [1, 3]}, opsets=(11,)),
    Case("Unsqueeze", (X, ints(0, -1))),
    Case("Transpose", (X,), {"perm": [0, 3, 1, 2]}, (2, 3, 4)),
    Case("Transpose", (X,), {"perm": [0, 3, 1, 2]}, (2, 3, 1)),
    Case("Transpose"),
    Case("Expand", (X, ints(2, 1, 3, 4)), {}, (1, 4)),
    Case("Concat", (X, normal(2, 2, 4), X), {"axis": 1}, batch=2),
    Case("Concat", (X, normal(2, 3, 1)), {"axis": -1}, batch=2),
    Case("Concat", (X, normal(1, 3, 4), X), {"axis": 0}),
    Case("Split", (X,), {"axis": 2, "split": [1, 3]}, opsets=(11,), outputs=2),
    Case("Split", (X, ints(1, 3)), {"axis": 2}, outputs=2),
    Case("Split", (X,), {"axis": -1, "num_outputs": 2}, opsets=(18,), outputs=2),
    Case("Slice", (X, ints(1), ints(3), ints(1))),
    Case("Slice", (X, ints(0, 0), ints(2**63 - 1, 2**63 - 1), ints(2, 3), ints(2, 2)), image=(2, 5, 4)),
    Case("Slice", (X, ints(-1, 3), ints(-(2**63), 1), ints(1, 2), ints(-2, -1)), image=(4, 5)),
    Case("Slice", (X, ints(0, 1, -3), ints(2**63 - 1, 3, -1))),
    Case("Slice", (X, ints(1), ints(4), ints(2), ints(3))),
    Case("Pad", (X, ints(0, 1, 2, 0, 0, 1), np.array(0.5)), opsets=(11, 21)),
    Case("Pad", (X, ints(0, -1, 2, 0, 1, -2)), runtime="both"),  # the reference does not crop
    Case("Pad", (X, ints(1, 2), np.array(0.0), ints(2)), opsets=(18,)),
    Case("Pad", (X, ints(0, 1, 2, 0, 2, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 1, 2, 0, 0, 1)), {"mode": "edge"}),
    Case("Gather", (X, np.array(1)), {"axis": 1}),
    Case("Gather", (X, ints(-1)), {"axis": 2}),
    Case("Gather", (X, np.array([[0, 2], [2, -3]])), {"axis": 1}),
    Case("Gather", (X, np.array([1, 0, 1])), {"axis": 0}, opsets=(16, 18), runtime="vjp"),
    Case("Gather", (X, np.array([[1], [0]], np.int32)), {"axis": 0}, opsets=(16,), runtime="vjp"),
    Case("Slice", (X, ints(1), ints(2), ints(0)), runtime="vjp"),
    Case("Slice", (X, ints(0, 1), ints(1, 3), ints(0, 1)), runtime="vjp"),
    Case("GatherElements", (X, RNG.integers(-3, 3, (2, 2, 4))), {"axis": 1}, opsets=(16, 18), batch=2),
    Case("GatherElements", (X, RNG.integers(-3, 3, (2, 5, 4))), {"axis": 1}, opsets=(11, 13), batch=2),
    *(
        Case("GatherElements", (X, indices), {"axis": axis}, opsets=(13, 16), batch=2, **LINEAR)
        for indices, axis in ((RNG.integers(-3, 3, (2, 5, 2)), -2), (RNG.integers(-4, 4, (1, 3, 3)), 2))
    ),
    *(
        Case("GatherND", (X, np.array([[0, 1], [1, -2], [0, 1]])), {}, opsets=(opset,), runtime=run, batch=2)
        for opset, run in ((12, "vjp"), (16, "vjp"))
    ),
    Case("GatherND", (X, np.array([[[0, 1]], [[1, 2]]])), {}, opsets=(11,), batch=2),
    *(
        Case("GatherND", (X, np.array([indices] * 2)), {"batch_dims": 1}, opsets=(12, 18), batch=2)
        for indices in ([[0, 1], [-1, -2], [0, 1]], [[2], [0]])
    ),
    Case("Gather", (X, np.array([1, 0, 1])), {"axis": 0}, opsets=(11, 13)),
    Case("ScatterElements", (X, ints(*(2, 0) * 4).reshape(2, 1, 4), normal(2, 1, 4)), {"axis": 1}, batch=2),
    Case("ScatterElements", (normal(2, 5, 4), RNG.permuted(np.tile(np.arange(5), (2, 4, 1)),
         axis=2).transpose(0, 2, 1)[:, :3], X), {"axis": 1}, batch=2),
    Case("ScatterElements", (normal(2, 3, 4), RNG.integers(0, 3, (2, 3, 4)), X), {"axis": 1, "reduction":
         "add"}, opsets=(18,), batch=2),
    *(
        Case(op, (data, indices, updates), {"reduction": reduction}, image, opsets=opsets, batch=2, **kind)
        for reduction, opsets in (("mul", (16, 18)), ("max", (18, 21)), ("min", (18,)))
        for op, data, indices, updates, image, kind in (
            ("ScatterElements", X, PLACES, SOME_ZEROS[:2, :3], (3, 4), {}),
            ("ScatterElements", SOME_ZEROS[:2, :3], PLACES, X, (3, 4), {}),
            ("ScatterElements", X, PLACES, X, (3, 4), {}),
            ("ScatterND", X, ints(1, 0, 1).reshape(3, 1), SOME_ZEROS[:3, :3], (3, 4), {}),
            ("ScatterND", SOME_ZEROS[:, :3], ints(4, 4).reshape(2, 1), X, (3, 4), {}),
        )
    ),
    Case("ScatterND", (X, np.array([[0, 1], [1, 2]]), normal(2, 4)), runtime="vjp", batch=2),
    Case("ScatterND", (normal(5, 3, 4), ints(3, 1).reshape(2, 1), X), batch=2),
    Case("TopK", (X, ints(2)), {"axis": 1}, (5, 3), runtime="vjp", opsets=(11, 21), more=1),
    Case("TopK", (X, ints(2)), {"largest": 0}, (5,), runtime="vjp", more=1),
    Case("Tile", (X, ints(1, 2, 3))),
    Case("Tile", (X, ints(2, 1, 1))),
    Case("DepthToSpace", (X,), {"blocksize": 2}, (8, 3, 2)),
    Case("DepthToSpace", (X,), {"blocksize": 2, "mode": "CRD"}, (8, 3, 2)),
    Case("SpaceToDepth", (X,), {"blocksize": 2}, (2, 4, 6)),
    Case("Trilu", (X, np.array(1)), {"upper": 0}, opsets=(14,)),
    Case("Trilu", opsets=(14,)),
    *(
        Case("CumSum", (X, np.array(axis)), {"reverse": reverse, "exclusive": exclusive})
        for axis, reverse, exclusive in ((1, 0, 0), (-1, 1, 0), (2, 0, 1), (1, 1, 1))
    ),
    Case("CastLike", (X, normal(1)), opsets=(15, 21)),
    *(Case(op, opsets=(11, 22)) for op in ("Sin", "Cos", "Tan", "Sinh", "Cosh", "Asinh", "Atan")),
    *(Case(op, draw=lambda *s: RNG.uniform(-0.9, 0.9, s)) for op in ("Asin", "Acos", "Atanh")),
    Case("Acosh", draw=lambda *s: RNG.uniform(1.5, 3.0, s)),
]
# fmt: on
