"""Outputs of ONNX classifiers as other exporters write them, and ensembles of files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.onnx_target import OnnxTarget
from ncen_tf.targets.opening import open_target
from tests.targets.onnx_files import (
    CHANNELS,
    CLASSES,
    COTANGENT,
    FLAT,
    HEIGHT,
    IMAGES,
    WEIGHTS,
    WIDTH,
    Array,
    check,
    signature,
    write,
)

SOFTMAX = helper.make_node("Softmax", ["y"], ["p"], axis=-1)


def test_a_softmax_at_the_end_is_left_out(tmp_path: Path) -> None:
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    steep = {"w": 1000 * WEIGHTS}  # the float32 softmax is 0 or 1
    nodes = [*FLAT, SOFTMAX, helper.make_node("Unsqueeze", ["p", "one"], ["q"])]
    file = write(tmp_path / "a.onnx", nodes, shape, {"q": 1}, weights={"one": np.array([1])} | steep)
    target = OnnxTarget(file)
    assert (signature(target, "output"), signature(target, "output_name")) == (
        "logits before the Softmax",
        "q",
    )
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], 1000 * IMAGES.reshape(5, -1) @ WEIGHTS, rtol=1e-3)
    gradient = target.gradient(IMAGES, COTANGENT).reshape(5, -1)
    np.testing.assert_allclose(gradient, 1000 * COTANGENT[:, 0] @ WEIGHTS.T, rtol=1e-3, atol=1)
    # Arithmetic after a softmax makes it no last one: logarithms of the probabilities are attacked.
    half = [helper.make_node("Mul", ["p", "half"], ["a"]), helper.make_node("Add", ["a", "a"], ["z"])]
    constants = {"half": np.array([0.5], np.float32)}
    file = write(tmp_path / "b.onnx", [*FLAT, SOFTMAX, *half], shape, {"z": 1}, weights=constants)
    logarithms = OnnxTarget(file)
    assert not logarithms.gives_logits
    logits = IMAGES.reshape(5, -1) @ WEIGHTS
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(logarithms.logits(IMAGES)[:, 0], expected, atol=1e-4)
    with pytest.raises(InputError, match="`output`=probabilities"):
        OnnxTarget(file, ModelInterface(output="logits"))
    with pytest.raises(InputError, match="`output`=logits"):
        OnnxTarget(write(tmp_path / "c.onnx", FLAT, shape), ModelInterface(output="probabilities"))


def test_of_several_outputs_the_scores_are_chosen(tmp_path: Path) -> None:
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    nodes = [*FLAT, SOFTMAX, helper.make_node("ArgMax", ["y"], ["label"], axis=1)]
    nodes.append(helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0))
    for outputs in (["p", "y"], ["loss", "y"], ["y", "p"], ["label", "y"], ["x32", "label", "p"]):
        further = [helper.make_node("Identity", ["x"], ["x32"])] if "x32" in outputs else []
        kinds = {name: TensorProto.INT64 if name == "label" else 1 for name in outputs}
        target = OnnxTarget(write(tmp_path / "m.onnx", [*nodes, *further], shape, kinds))
        assert signature(target, "output").startswith("logits")
        check(target, IMAGES)
    features = [*FLAT, helper.make_node("Relu", ["flat"], ["features"])]
    ambiguous = write(tmp_path / "m.onnx", features, shape, {"y": 1, "features": 1})
    with pytest.raises(InputError, match=r"more than one looks like the scores.*one of y, features"):
        OnnxTarget(ambiguous)
    check(OnnxTarget(ambiguous, ModelInterface(output_name="y")), IMAGES)
    named = [*features, helper.make_node("Identity", ["y"], ["logits"])]
    check(OnnxTarget(write(tmp_path / "m.onnx", named, shape, {"features": 1, "logits": 1})), IMAGES)


def test_the_dictionaries_of_scikit_learn_are_unpacked(tmp_path: Path) -> None:
    zipmap = helper.make_node(
        "ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=list(range(CLASSES))
    )
    argmax = helper.make_node("ArgMax", ["y"], ["label"], axis=1)
    nodes = [*FLAT, SOFTMAX, argmax, zipmap]
    file = write(
        tmp_path / "m.onnx", nodes, ["N", HEIGHT, WIDTH, CHANNELS], {"label": TensorProto.INT64, "z": 1}
    )
    model = onnx.load(file)
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, ()))
    model.graph.output[1].CopyFrom(helper.make_value_info("z", helper.make_sequence_type_proto(maps)))
    onnx.save(model, file)
    check(OnnxTarget(file), IMAGES)


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Softmax", ["a"], ["b"], axis=-1)]
    call = helper.make_node("Own", ["y"], ["p"], domain="own")
    file = write(tmp_path / "m.onnx", [*FLAT, call], ["N", HEIGHT, WIDTH, CHANNELS], {"p": 1})
    model = onnx.load(file)
    model.functions.append(helper.make_function("own", "Own", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, file)
    target = OnnxTarget(file)
    assert signature(target, "output") == "logits before the Softmax"
    check(target, IMAGES)


def test_files_that_are_no_classifiers_of_images(tmp_path: Path) -> None:
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    argmax = helper.make_node("ArgMax", ["y"], ["label"], axis=1)
    one = {"w": WEIGHTS[:, :1]}
    cases = [
        (write(tmp_path / "a.onnx", [*FLAT, argmax], shape, {"label": TensorProto.INT64}), "are floats"),
        (write(tmp_path / "b.onnx", FLAT, shape, weights=one), "gives one score an image: set `output`"),
        (write(tmp_path / "c.onnx", FLAT, ["N", 4096, 4096, 3]), "values; at most"),
        (write(tmp_path / "d.onnx", FLAT, shape, input_type=TensorProto.STRING), "takes string, not numbers"),
        (write(tmp_path / "e.onnx", FLAT, ["N", 7, 7, 3]), "does not run on two images"),
    ]
    for file, says in cases:
        with pytest.raises(InputError, match=says):
            OnnxTarget(file)


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize(
    ("end", "rank", "said", "holds"),
    [
        (["Sigmoid"], 2, None, "logits before the Sigmoid"),
        (["Sigmoid", "Flatten"], 2, "probabilities", "logits before the Sigmoid"),
        (["Squeeze", "Sigmoid"], 1, None, "logits before the Sigmoid"),
        ([], 2, "logits", "logits of the second class"),
        (["Neg", "Exp", "Add", "Reciprocal"], 2, "probabilities", "probabilities of the second class"),
    ],
)
def test_one_score_is_that_of_the_second_class(
    end: list[str], rank: int, said: Any, holds: str, batch: Any, tmp_path: Path
) -> None:
    nodes, last = list(FLAT), "y"
    more = {"Add": ["unit"], "Squeeze": ["axis"]}
    for index, operator in enumerate(end):
        nodes.append(helper.make_node(operator, [last, *more.get(operator, [])], [f"z{index}"]))
        last = f"z{index}"
    w = WEIGHTS[:, :1] / 10
    weights: dict[str, Array] = {"w": w, "unit": np.ones(1, np.float32), "axis": np.array([1], np.int64)}
    file = tmp_path / "m.onnx"
    write(file, nodes, [batch, HEIGHT, WIDTH, CHANNELS], {last: 1}, weights=weights, ranks={last: rank})
    target = OnnxTarget(file, ModelInterface(output=said))
    assert (target.members, target.classes, signature(target, "output")) == (1, 2, holds)
    z = IMAGES.reshape(5, -1) @ w[:, 0]
    logits, pull_back = target.linearize(IMAGES)
    difference = logits[:, 0, 1] - logits[:, 0, 0]
    np.testing.assert_allclose(difference, z, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(target.logits(IMAGES), logits, rtol=1e-4, atol=1e-5)
    cotangent = np.tile(np.array([-1, 1], np.float32), (5, 1, 1))
    gradient = np.tile(w[:, 0], (5, 1)).reshape(IMAGES.shape)
    np.testing.assert_allclose(pull_back(cotangent), gradient, rtol=1e-2, atol=1e-4)


def test_an_ensemble_of_several_files(tmp_path: Path) -> None:
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    files = [
        write(tmp_path / "a.onnx", FLAT, shape),
        write(tmp_path / "b.onnx", FLAT, shape, weights={"w": 2 * WEIGHTS[::-1].copy()}),
    ]
    alone = [OnnxTarget(file).logits(IMAGES)[:, 0] for file in files]
    softmax = open_target(files)
    assert (softmax.members, len(softmax.split())) == (2, 2)
    np.testing.assert_allclose(softmax.logits(IMAGES), np.stack(alone, 1), rtol=1e-5)
    both = np.concatenate([COTANGENT, -2 * COTANGENT], axis=1)
    flat = COTANGENT[:, 0]
    expected = flat @ WEIGHTS.T - 4 * flat @ WEIGHTS[::-1].T
    np.testing.assert_allclose(softmax.gradient(IMAGES, both).reshape(5, -1), expected, rtol=1e-3, atol=1e-3)
    mean = open_target(files, combine="logits")
    assert (mean.members, mean.split()) == (1, [mean])
    np.testing.assert_allclose(mean.logits(IMAGES)[:, 0], np.mean(alone, 0), rtol=1e-4, atol=1e-4)
    expected = flat @ WEIGHTS.T / 2 + flat @ WEIGHTS[::-1].T
    np.testing.assert_allclose(
        mean.gradient(IMAGES, COTANGENT).reshape(5, -1), expected, rtol=1e-3, atol=1e-3
    )
    assert len({mean.sha256 + mean.description, softmax.sha256 + softmax.description}) == 2
    other = write(tmp_path / "c.onnx", FLAT, shape, weights={"w": WEIGHTS[:, :4]})
    with pytest.raises(InputError, match="do not fit each other: classes 6 and 4"):
        open_target([files[0], other])
    with pytest.raises(InputError, match="at least two models"):
        open_target(files[:1])
