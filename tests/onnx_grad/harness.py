"""One-node models whose gradients are compared with finite differences."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
RNG = np.random.default_rng(0)
BATCH = 2
TOLERANCE: dict[type, float] = {np.float64: 1e-6, np.float32: 1e-5}


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def positive(*shape: int) -> Array:
    return RNG.uniform(0.5, 2.0, shape)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


ERF = np.vectorize(math.erf)
X = "image"  # where a node's input is the image itself


@dataclass(frozen=True)
class Case:
    """One node `op(*inputs, **attributes)`, of whose inputs those equal to X are the image."""

    op: str
    inputs: tuple[Any, ...] = (X,)
    attributes: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, ...] = (3, 4)
    draw: Any = normal
    opsets: tuple[int, ...] = (13,)
    outputs: int = 1
    batch: str | int = "N"
    # What onnxruntime has to compute, in `dtype`, where onnx's reference evaluator is wrong:
    # the vector-Jacobian product ("vjp"), or also the finite differences ("both").
    runtime: str = ""
    dtype: type = np.float64
    step: float = 1e-6
    forward: Callable[[Array], Array] | None = None  # another float64 forward function
    domain: str = ""
    more: int = 0  # outputs that are not differentiated


LINEAR: dict[str, Any] = {"runtime": "both", "dtype": np.float32, "step": 1.0}  # exact with any step
ON_RUNTIME: dict[str, Any] = {"runtime": "vjp", "dtype": np.float32}


def one_node_model(case: Case, opset: int, dtype: type) -> onnx.ModelProto:
    names, initializers = [], []
    for index, value in enumerate(case.inputs):
        if isinstance(value, str):
            names.append("x" if value == X else "")
        else:
            names.append(f"c{index}")
            typed = value.astype(dtype) if value.dtype == np.float64 else value
            initializers.append(numpy_helper.from_array(typed, f"c{index}"))
    outputs = [f"y{i}" for i in range(case.outputs)]
    more = [f"more{i}" for i in range(case.more)]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(case.op, names, [*outputs, *more], "node", domain=case.domain, **case.attributes)],
        "one node",
        [helper.make_tensor_value_info("x", element, [case.batch, *case.image])],
        [helper.make_tensor_value_info(y, element, None) for y in outputs],
        initializers,
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
            ir_version=max(4, min(10, opset - 4)),
        )
    )


def evaluator(model: onnx.ModelProto, on_runtime: bool) -> Callable[[dict[str, Array]], list[Any]]:
    """Runs a model on onnxruntime's CPU provider or on onnx's reference evaluator."""
    if not on_runtime:
        reference = ReferenceEvaluator(model)
        return lambda feeds: list(reference.run(None, feeds))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def finite_differences(f: Callable[[Array], Array], x: Array, v: Array, step: float) -> Array:
    """Central differences of <v, f(x)> by each entry of x."""
    gradient = np.empty_like(x)
    for position in np.ndindex(*x.shape):
        change = np.zeros_like(x)
        change[position] = step
        gradient[position] = np.sum(v * (f(x + change) - f(x - change))) / (2 * step)
    return gradient
