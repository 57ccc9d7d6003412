"""Quantised ONNX files as targets: refused by attacks that need a gradient, or attacked straight through."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from ncen_tf.base.errors import InputError
from ncen_tf.targets.opening import open_target

RNG = np.random.default_rng(0)
IMAGES = RNG.random((7, 4, 4, 1), np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a float32 network and what onnxruntime's dynamic quantisation makes of it."""
    plain = tmp_path_factory.mktemp("models") / "plain.onnx"
    weights = {"v": RNG.normal(size=(16, 32)), "w": RNG.normal(size=(32, 5))}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "v"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 4, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), plain)
    quantized = plain.with_name("quantized.onnx")
    quantize_dynamic(plain, quantized)
    return plain, quantized


def test_refused_unless_asked_for(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"`quantization`=straight_through.* `suite`=blackbox\.$"):
        open_target(files[1])
    assert open_target(files[1], differentiable=False).logits(IMAGES).shape == (7, 1, 5)


def test_straight_through_gradient_is_close_to_that_of_the_float_sibling(files: tuple[Path, Path]) -> None:
    plain, quantized = (open_target(file, quantization="straight_through") for file in files)
    assert [target.signatures[0].gradient for target in (plain, quantized)] == [
        "exact",
        "straight through its quantization",
    ]
    cotangent = RNG.normal(size=(7, 1, 5)).astype(np.float32)
    expected, found = (target.linearize(IMAGES)[1](cotangent).ravel() for target in (plain, quantized))
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert 0.9 < cosine < 0.99999, cosine


def test_only_onnx_files_take_the_setting() -> None:
    with pytest.raises(InputError, match="`quantization` is for ONNX files"):
        open_target(
            lambda x: x[:, 0, 0], image_shape=(4, 4, 3), differentiable=False, quantization="straight_through"
        )
