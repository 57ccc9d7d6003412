"""Operators of the domain ai.onnx.ml, as scikit-learn's converter writes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion
from ncen_tf.onnx_grad.expansions.standard import divide_by_norm
from ncen_tf.onnx_grad.registry import Node

_DOMAIN = "ai.onnx.ml"


@expansion("Scaler", domain=_DOMAIN)
def scaler(g: GraphBuilder, node: Node) -> Sequence[str]:
    offset, scale = (_floats(g, node, name) for name in ("offset", "scale"))
    return [g.op("Mul", g.op("Sub", _input(g, node), offset), scale)]


@expansion("Normalizer", domain=_DOMAIN)
def normalizer(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Divide each row by its norm; the gradient is that of rows that are not zero."""
    norm = node.attributes.get("norm", b"MAX")
    if norm not in (b"L1", b"L2"):
        raise node.unsupported("divides by the largest entry")
    return [divide_by_norm(g, _input(g, node), int(norm[1:]), -1)]


@expansion("ArrayFeatureExtractor", domain=_DOMAIN)
def array_feature_extractor(g: GraphBuilder, node: Node) -> Sequence[str]:
    x, indices = node.inputs
    if g.facts.has_shape(x) and len(g.shape(x)) < 2:
        raise node.unsupported("picks entries of a vector")
    return [g.op("Gather", x, g.op("Reshape", indices, g.integers([-1])), axis=-1)]


@expansion("LinearClassifier", domain=_DOMAIN)
def linear_classifier(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Labels, and x W^T + b with one row of W for each class, perhaps as probabilities."""
    a = node.attributes
    labels: list[Any] = a.get("classlabels_ints") or a.get("classlabels_strings") or []
    bias = np.array(a.get("intercepts", [0.0] * len(labels)), np.float32)
    final = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}
    transform = a.get("post_transform", b"NONE")
    if len(labels) < 2 or len(bias) != len(labels) or transform not in final:
        raise node.unsupported(f"has {len(bias)} scores for {len(labels)} classes, as {transform.decode()}")
    weights = np.array(a["coefficients"], np.float32).reshape(len(bias), -1).T
    scores = g.op("Add", g.op("MatMul", _input(g, node), g.constant(weights)), g.constant(bias))
    kind = np.int64 if "classlabels_ints" in a else object
    winner = g.op("ArgMax", scores, axis=-1, keepdims=0)
    return [g.op("Gather", g.constant(np.array(labels, kind)), winner), g.op(final[transform], scores)]


def _input(g: GraphBuilder, node: Node) -> str:
    """Return the input as float32, which these operators give for inputs of any type."""
    x = node.inputs[0]
    return x if g.facts.element_type(x) == TensorProto.FLOAT else g.op("Cast", x, to=TensorProto.FLOAT)


def _floats(g: GraphBuilder, node: Node, name: str) -> str:
    return g.constant(np.array(node.attributes[name], np.float32))
