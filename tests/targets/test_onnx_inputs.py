"""Inputs of ONNX classifiers as other exporters write them: what is found out, and that it is right."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.onnx_target import OnnxTarget
from tests.targets.onnx_files import (
    CHANNELS,
    CLASSES,
    COTANGENT,
    FLAT,
    HEIGHT,
    IMAGES,
    RNG,
    WEIGHTS,
    WIDTH,
    check,
    signature,
    write,
)


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


@pytest.mark.parametrize(("traced", "stated"), [(1, "pieces of 1"), (2, "pieces of 2")])
def test_a_graph_that_was_traced_for_fewer_images_than_it_says(
    traced: int, stated: str, tmp_path: Path
) -> None:
    """As len(images) in a PyTorch model leaves it: the class token is expanded to a constant batch."""
    token = np.zeros((traced, 1), np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["pixels"]),
        helper.make_node("Concat", ["token", "pixels"], ["flat"], axis=1),
        FLAT[1],
    ]
    weights = {"token": token, "w": np.concatenate([np.ones((1, CLASSES), np.float32), WEIGHTS])}
    file = write(tmp_path / "m.onnx", nodes, ["N", HEIGHT, WIDTH, CHANNELS], weights=weights)
    target = OnnxTarget(file)
    assert signature(target, "batch") == stated
    check(target, IMAGES)


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


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_0_or_less_is_any_number(batch: int, tmp_path: Path) -> None:
    target = OnnxTarget(write(tmp_path / "m.onnx", FLAT, [batch, HEIGHT, WIDTH, CHANNELS]))
    assert signature(target, "batch") == "any number"
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
