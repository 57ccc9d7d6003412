"""Every rule against central finite differences of a one-node model, and over optimizations and types."""

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from ncen_tf import onnx_grad
from ncen_tf.onnx_grad import gradient_model, supported_ops
from ncen_tf.onnx_grad.expansion import expanded_ops
from tests.onnx_grad import cases_entries, cases_expanded, cases_numbers, cases_windows
from tests.onnx_grad.harness import (
    BATCH,
    TOLERANCE,
    Array,
    Case,
    evaluator,
    finite_differences,
    one_node_model,
)

CASES = [*cases_windows.CASES, *cases_numbers.CASES, *cases_entries.CASES, *cases_expanded.CASES]
QUANTIZATION = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "Round"
}  # fmt: skip
SKLEARN = {"Scaler", "Normalizer", "ArrayFeatureExtractor", "LinearClassifier"}


LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.mark.parametrize(
    ("case", "opset"),
    [
        pytest.param(case, opset, id=f"{index}-{case.op}-{opset}")
        for index, case in enumerate(CASES)
        for opset in case.opsets
    ],
)
def test_matches_finite_differences(case: Case, opset: int) -> None:
    rng = np.random.default_rng(1)
    x = case.draw(BATCH, *case.image)
    model = one_node_model(case, opset, case.dtype)
    both = case.runtime == "both"
    exact = None
    if case.forward is None:
        exact = evaluator(model if both else one_node_model(case, opset, np.float64), both)
    for index in range(case.outputs):

        def forward(x: Array, index: int = index) -> Array:
            if exact is None:
                return np.asarray(case.forward(x))  # type: ignore[misc]
            return np.asarray(exact({"x": x.astype(case.dtype) if both else x})[index])

        v = rng.normal(size=forward(x).shape)
        expected = finite_differences(forward, x, v, case.step)
        gradient = evaluator(gradient_model(model, f"y{index}"), bool(case.runtime))
        feeds = {"x": x.astype(case.dtype), f"y{index}_cotangent": v.astype(case.dtype)}
        outputs = gradient(feeds)
        found = outputs[-1]
        np.testing.assert_allclose(outputs[index], forward(x), rtol=1e-4, atol=1e-5)
        assert found.shape == x.shape
        error = np.linalg.norm(found - expected) / max(1.0, float(np.linalg.norm(expected)))
        assert error < TOLERANCE[case.dtype]


def on_runtime(model: onnx.ModelProto, level: Any, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([session.get_outputs()[-1].name], feeds)[0])


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_optimization_levels_agree(op: str) -> None:
    """The graph with the gradient gives the same at each of onnxruntime's four levels."""
    case = next(case for case in CASES if case.op == op)
    dtype = np.float64 if op == "Cast" else np.float32  # to float64
    x = case.draw(BATCH, *case.image).astype(dtype)
    model = one_node_model(case, case.opsets[-1], dtype)
    if case.outputs + case.more > 1:
        y = onnx.shape_inference.infer_shapes(model).graph.output[0]
        shape = tuple(size.dim_value or BATCH for size in y.type.tensor_type.shape.dim)
    else:
        shape = on_runtime(model, LEVELS.ORT_DISABLE_ALL, {"x": x}).shape
    feeds = {"x": x, "y0_cotangent": np.random.default_rng(1).normal(size=shape).astype(dtype)}
    result = gradient_model(model, "y0")
    plain = on_runtime(result, LEVELS.ORT_DISABLE_ALL, feeds)
    for level in (LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_EXTENDED, LEVELS.ORT_ENABLE_ALL):
        np.testing.assert_allclose(on_runtime(result, level, feeds), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_other_float_types(dtype: type) -> None:
    """The gradient of operators that take 16-bit floats has the right types, which `gradient_model` checks.

    Some operators take bfloat16 later than the operators that their gradient needs.
    """
    built = refused = 0
    for case in CASES:
        model = one_node_model(case, case.opsets[-1], dtype)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            continue  # the operator does not take the type
        built += 1
        if dtype is np.float16:
            gradient_model(model, "y0")
            continue
        try:
            gradient_model(model, "y0")
        except ValueError:
            refused += 1
    assert built > 200
    assert refused < 10


def test_every_rule_and_expansion_has_a_case() -> None:
    others = (set(supported_ops()) | set(expanded_ops())) - QUANTIZATION - SKLEARN  # have files of tests
    assert others <= {case.op for case in CASES}
    assert len({case.op for case in CASES} | QUANTIZATION) >= 100


def test_the_readme_names_every_rule_and_expansion() -> None:
    text = (Path(onnx_grad.__file__).parent / "README.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    named = set(re.findall(r"\w+", " ".join(tables)))
    assert set(supported_ops()) | set(expanded_ops()) <= named
