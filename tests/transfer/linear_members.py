"""Linear classifiers as ONNX files, and what attacks do to them, in NumPy and one example at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]


def weights(classes: int, count: int, pixels: int) -> list[Array]:
    """Members that share a part, so that attacks transfer in part: each [classes, pixels]."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(classes, pixels))
    return [(shared + generator.normal(size=shared.shape)).astype(np.float32) for _ in range(count)]


def write_member(file: Path, weight: Array, shape: tuple[int, int, int]) -> Path:
    """image [N, H, W, C] -> logits [N, classes], the products of centred pixels with the weights."""
    bias = (-0.5 * weight.sum(axis=1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", len(weight)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def logits(weight: Array, image: Array) -> Array:
    """[classes], in float64."""
    return weight.astype(np.float64) @ (image.reshape(-1).astype(np.float64) - 0.5)


def momentum_iterative(
    weight: Array, image: Array, label: int, eps: float, steps: int, step_size: float
) -> Array:
    """MI-FGSM (Dong et al., 2018, Algorithm 1; decay 1) on the cross-entropy of one member."""
    start = image.reshape(-1).astype(np.float64)
    moved, momentum = start, np.zeros_like(start)
    for _ in range(steps):
        scores = logits(weight, moved)
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        gradient = weight.T.astype(np.float64) @ (probabilities - np.eye(len(weight))[label])
        momentum = momentum + gradient / np.abs(gradient).mean()
        moved = np.clip(moved + step_size * np.sign(momentum), start - eps, start + eps).clip(0, 1)
    return moved


def worst_corner(weight: Array, image: Array, label: int, eps: float) -> Array:
    """With two classes, the corner of the ball where the loss is largest; PGD's full steps reach it."""
    assert len(weight) == 2
    return (image.reshape(-1) + eps * np.sign(weight[1 - label] - weight[label])).clip(0, 1)
