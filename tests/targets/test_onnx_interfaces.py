"""ONNX classifiers as other exporters write them: what is found out about them, and that it is right."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.onnx_target import OnnxTarget
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target

Array = npt.NDArray[Any]

HEIGHT, WIDTH, CHANNELS, CLASSES = 4, 5, 3, 6
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(HEIGHT * WIDTH * CHANNELS, CLASSES)).astype(np.float32)
IMAGES = RNG.random((5, HEIGHT, WIDTH, CHANNELS), np.float32)
COTANGENT = RNG.normal(size=(5, 1, CLASSES)).astype(np.float32)

FLAT = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]


def write(
    file: Path,
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    outputs: dict[str, int] | None = None,
    input_type: int = TensorProto.FLOAT,
    weights: dict[str, Array] | None = None,
    **options: Any,
) -> Path:
    """Write a model x [shape] -> outputs; ``w`` is WEIGHTS, and a producer does not give the layout away."""
    weights = {"w": WEIGHTS} | (weights or {})
    read = {name for node in nodes for name in node.input}
    inputs = [helper.make_tensor_value_info("x", input_type, shape)]
    ranks = {"q": 3, "x32": 4, "loss": 0} | options.pop("ranks", {})
    graph = helper.make_graph(
        nodes,
        "classifier",
        inputs + options.pop("further_inputs", []),
        [
            helper.make_tensor_value_info(name, kind, [None] * ranks.get(name, 2))
            for name, kind in (outputs or {"y": 1}).items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in read],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **options), file)
    return file


def check(target: Target, inputs: Array, derivative: Array | float = 1.0, tolerance: float = 1e-4) -> None:
    """Compare with NumPy: logits of flattened inputs, and the gradient with respect to IMAGES.

    ``derivative`` is that of the inputs with respect to the images, in the order of the inputs' axes.
    """
    expected = inputs.reshape(len(inputs), -1) @ WEIGHTS
    found, pull_back = target.linearize(IMAGES)
    size = np.abs(expected).max()
    np.testing.assert_allclose(found[:, 0], expected, atol=tolerance * size)
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], expected, atol=tolerance * size)
    gradient = (COTANGENT[:, 0] @ WEIGHTS.T).reshape(inputs.shape) * derivative
    if target.signature and target.signature.layout == "NCHW":
        gradient = gradient.transpose(0, 2, 3, 1)
    if target.signature and target.signature.channel_order == "BGR":
        gradient = gradient[..., ::-1]
    np.testing.assert_allclose(
        pull_back(COTANGENT),
        gradient.reshape(IMAGES.shape),
        atol=tolerance * np.abs(gradient).max(),
    )


def signature(target: Target, name: str) -> Any:
    assert target.signature is not None
    return getattr(target.signature, name)


def test_the_layout_is_told_by_channels_or_by_the_images(tmp_path: Path) -> None:
    nhwc = OnnxTarget(write(tmp_path / "a.onnx", FLAT, ["N", HEIGHT, WIDTH, CHANNELS]))
    nchw = OnnxTarget(write(tmp_path / "b.onnx", FLAT, ["N", CHANNELS, HEIGHT, WIDTH]))
    assert (signature(nhwc, "layout"), signature(nchw, "layout")) == ("NHWC", "NCHW")
    assert nhwc.image_shape == nchw.image_shape == (HEIGHT, WIDTH, CHANNELS)
    check(nhwc, IMAGES)
    check(nchw, IMAGES.transpose(0, 3, 1, 2))
    both = write(tmp_path / "c.onnx", FLAT, ["N", 3, 20, 1], producer_name="someone")
    with pytest.raises(InputError, match="may be NHWC or NCHW: set `input_layout`"):
        OnnxTarget(both)
    for image_shape, interface in (((20, 1, 3), None), (None, ModelInterface(input_layout="NCHW"))):
        target = OnnxTarget(both, interface, image_shape=image_shape)
        assert (target.image_shape, signature(target, "layout")) == ((20, 1, 3), "NCHW")
    by_writer = write(tmp_path / "d.onnx", FLAT, ["N", 3, 20, 1], producer_name="pytorch")
    assert signature(OnnxTarget(by_writer), "layout") == "NCHW"


RESHAPE = [helper.make_node("Reshape", ["x", "shape"], ["flat"]), FLAT[1]]
SQUEEZE = [
    helper.make_node("Squeeze", ["x", "zero"], ["image"]),
    helper.make_node("Reshape", ["image", "shape"], ["flat"]),
    FLAT[1],
]
NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
RESIZE = [  # twice the size and back
    helper.make_node("Resize", ["x", "", "", "twice"], ["large"], **NEAREST),
    helper.make_node("Resize", ["large", "", "", "once"], ["small"], **NEAREST),
    helper.make_node("Flatten", ["small"], ["flat"]),
    FLAT[1],
]
MIXED = [
    helper.make_node("Softmax", ["x"], ["z"], axis=0),
    helper.make_node("Reshape", ["z", "shape"], ["flat"]),
    FLAT[1],
]


@pytest.mark.parametrize(
    ("nodes", "batch", "said"),
    [
        (FLAT, 1, r"any number \(the file says 1"),
        (FLAT, 3, r"any number \(the file says 3"),
        (RESHAPE, 1, r"any number \(the file says 1"),
        (RESHAPE, 3, r"any number \(the file says 3"),
        (RESIZE, 1, r"any number \(the file says 1"),
        (RESIZE, 3, r"any number \(the file says 3"),
        (SQUEEZE, 1, "pieces of 1"),
        (MIXED, 3, None),
    ],
)
def test_a_fixed_batch_is_freed_or_cut_into_pieces(
    nodes: list[onnx.NodeProto], batch: int, said: str | None, tmp_path: Path
) -> None:
    constants = {
        "shape": np.array([batch, WEIGHTS.shape[0]]),
        "zero": np.array([0]),
        "twice": np.array([batch, 2 * HEIGHT, 2 * WIDTH, CHANNELS]),
        "once": np.array([batch, HEIGHT, WIDTH, CHANNELS]),
    }
    file = write(tmp_path / "m.onnx", nodes, [batch, HEIGHT, WIDTH, CHANNELS], weights=constants)
    target = OnnxTarget(file)
    if said is None:  # a model that mixes the images of a batch is not freed
        assert signature(target, "batch") == "pieces of 3"
        return
    assert re.match(said, signature(target, "batch"))
    check(target, IMAGES)


def test_free_sizes_are_those_of_the_images(tmp_path: Path) -> None:
    kernel = RNG.normal(size=(CLASSES, CHANNELS, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),  # [N, classes, 1, 1]
    ]
    file = write(tmp_path / "m.onnx", nodes, ["N", CHANNELS, "h", "w"], weights={"k": kernel}, ranks={"y": 4})
    with pytest.raises(InputError, match="images of any size"):
        OnnxTarget(file)
    target = OnnxTarget(file, image_shape=(HEIGHT, WIDTH, CHANNELS))
    assert (target.classes, target.members) == (CLASSES, 1)
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), axis=(1, 2))
    expected = np.einsum("nhwcij,kcij->nk", windows, kernel) / windows[0, :, :, 0, 0, 0].size
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], expected, atol=1e-5)
    assert np.abs(target.gradient(IMAGES, COTANGENT)).min() > 0


def test_weights_in_another_file_of_the_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "m.onnx", FLAT, ["N", HEIGHT, WIDTH, CHANNELS])
    plain = OnnxTarget(file)
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    target = OnnxTarget(file)
    check(target, IMAGES)
    data = tmp_path / "m.onnx.data"
    content = data.read_bytes()
    assert len(content) >= WEIGHTS.nbytes
    data.write_bytes(content[:-4] + b"\0\0\0\1")
    assert len({target.sha256, plain.sha256, OnnxTarget(file).sha256}) == 3
    data.write_bytes(content[: WEIGHTS.nbytes // 2])
    with pytest.raises(InputError, match="does not hold all the weights"):
        OnnxTarget(file)
    data.unlink()
    with pytest.raises(InputError, match="is missing: keep both in one folder"):
        OnnxTarget(file)
    outside = tmp_path / "other" / "secret"
    outside.parent.mkdir()
    outside.write_bytes(content)
    data.symlink_to(outside)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "m.onnx").write_bytes(file.read_bytes())
    (inner / "m.onnx.data").symlink_to(outside)
    with pytest.raises(InputError, match="outside its folder: do not trust it"):
        OnnxTarget(inner / "m.onnx")


def test_inputs_that_nothing_reads_are_no_inputs(tmp_path: Path) -> None:
    unread = helper.make_tensor_value_info("normalization/Sub/y:0", TensorProto.FLOAT, [1, 1, 1, 3])
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    check(OnnxTarget(write(tmp_path / "a.onnx", FLAT, shape, further_inputs=[unread])), IMAGES)
    read = [helper.make_node("Add", ["x", unread.name], ["z"]), helper.make_node("Flatten", ["z"], ["flat"])]
    file = write(tmp_path / "b.onnx", [*read, FLAT[1]], shape, further_inputs=[unread])
    with pytest.raises(InputError, match=r"has 2 inputs \(x, normalization/Sub/y:0\)"):
        OnnxTarget(file)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.BFLOAT16, "bfloat16"),
    ],
)
def test_inputs_and_outputs_of_other_floats(kind: int, name: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x32"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y32"]),
        helper.make_node("Cast", ["y32"], ["y"], to=kind),
    ]
    file = write(tmp_path / "m.onnx", nodes, [1, HEIGHT, WIDTH, CHANNELS], {"y": kind}, kind)
    target = OnnxTarget(file)
    assert signature(target, "input_type") == name
    check(target, IMAGES, tolerance=1e-2 if name == "bfloat16" else 1e-3)


CAST = [
    helper.make_node("Cast", ["x"], ["x32"], to=1),
    helper.make_node("Flatten", ["x32"], ["flat"]),
    FLAT[1],
]


def test_integers_are_attacked_through_their_cast(tmp_path: Path) -> None:
    shape = ["N", HEIGHT, WIDTH, CHANNELS]
    for kind in (TensorProto.UINT8, TensorProto.INT32):
        file = write(tmp_path / "m.onnx", CAST, shape, input_type=kind)
        target = OnnxTarget(file)
        assert target.whole_pixels
        assert signature(target, "input_range") == (0, 255)
        check(target, np.rint(IMAGES * 255), 255.0)
    with pytest.raises(InputError, match="takes whole pixel values from 0 to 255"):
        OnnxTarget(file, ModelInterface(input_range=(0, 1)))


def test_integers_that_are_moved_before_their_cast(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], ["x32"], to=1),
        helper.make_node("Transpose", ["x32"], ["back"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["back"], ["flat"]),
        FLAT[1],
    ]
    for batch in ("N", 1):
        shape = [batch, HEIGHT, WIDTH, CHANNELS]
        file = write(tmp_path / "m.onnx", nodes, shape, input_type=TensorProto.UINT8)
        check(OnnxTarget(file), np.rint(IMAGES * 255), 255.0)


def test_range_mean_deviation_and_order_of_channels(tmp_path: Path) -> None:
    nchw = write(tmp_path / "m.onnx", FLAT, ["N", CHANNELS, HEIGHT, WIDTH])
    mean, std = np.array([10.0, 20, 30]), np.array([2.0, 3, 4])
    interface = ModelInterface(input_range=(-5, 250), mean=tuple(mean), std=tuple(std), channel_order="BGR")
    inputs = (-5 + 255 * IMAGES[..., ::-1] - mean) / std
    derivative = np.broadcast_to(255 / std[:, np.newaxis, np.newaxis], (5, CHANNELS, HEIGHT, WIDTH))
    target = OnnxTarget(nchw, interface)
    check(target, inputs.transpose(0, 3, 1, 2), derivative)
    assert target.description.endswith(
        ", range -5.0 250.0, channel_order BGR, mean 10.0 20.0 30.0, std 2.0 3.0 4.0"
    )
    # What enters this model with one interface is what enters it with another, of other images.
    plain = OnnxTarget(nchw)
    assert plain.preprocessing is not None
    assert target.preprocessing is not None
    same = plain.preprocessing.images_for(target.preprocessing, IMAGES)
    np.testing.assert_allclose(plain.logits(same), target.logits(IMAGES), rtol=1e-4)
    same = target.preprocessing.images_for(plain.preprocessing, IMAGES)
    np.testing.assert_allclose(target.logits(same), plain.logits(IMAGES), rtol=1e-3, atol=1e-3)


def test_flat_images_and_images_without_channels(tmp_path: Path) -> None:
    matmul = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    flat = write(tmp_path / "a.onnx", matmul, ["N", 60])
    check(OnnxTarget(flat, image_shape=(HEIGHT, WIDTH, CHANNELS)), IMAGES)
    interface = ModelInterface(input_layout="NCHW")
    target = OnnxTarget(flat, interface, image_shape=(HEIGHT, WIDTH, CHANNELS))
    check(target, IMAGES.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match="the images' size is needed"):
        OnnxTarget(flat)
    square = write(tmp_path / "b.onnx", matmul, ["N", 784], weights={"w": np.ones((784, 3), np.float32)})
    assert OnnxTarget(square).image_shape == (28, 28, 1)
    plane = OnnxTarget(write(tmp_path / "c.onnx", FLAT, ["N", 4, 15]))
    assert plane.image_shape == (4, 15, 1)
    images = IMAGES.reshape(5, 4, 15, 1)
    np.testing.assert_allclose(plane.logits(images)[:, 0], images.reshape(5, -1) @ WEIGHTS, rtol=1e-4)
    assert plane.gradient(images, COTANGENT).shape == images.shape
    for shape in (["N"], [], ["N", 1, 2, 2, 3]):
        with pytest.raises(InputError, match="not a batch of images"):
            OnnxTarget(write(tmp_path / "d.onnx", FLAT, shape))


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
