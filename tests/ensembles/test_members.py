"""Members: Keras applications and a user's functions by name, and which models can be members."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf import ADP, GAL, NCE, Ensemble
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.ensembles.members import all_layers, ends_in_softmax
from ncen_tf.ensembles.structures import parse_architecture
from tests.ensembles.conftest import CLASSES, SHAPE, small_member

MODULE = """
import keras

def build(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, strides=3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(classes),
    ])

def three_classes(input_shape, classes):
    return build(input_shape, 3)

def fails(input_shape, classes):
    raise ValueError("no such depth")

def nothing(input_shape, classes):
    return None
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory."""
    (tmp_path / "own_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "own_net"


def test_a_users_function_from_training_to_an_attack(module: str) -> None:
    data = ncen_tf.load_data("fashion_mnist_sample", train_examples=40, test_examples=10)
    config = ncen_tf.TrainConfig(members=(f"{module}:build", f"{module}:build"), epochs=1, batch_size=20)
    run = ncen_tf.train_ensemble(config, data, "run", progress=False)
    assert run.config.members == ("own_net:build", "own_net:build")
    opened = ncen_tf.open_run("run")
    for left, right in zip(run.ensemble.get_weights(), opened.ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    manifest = ncen_tf.export_ensemble(opened, "export", data=data, formats=("onnx",))
    assert manifest.members == ("own_net:build", "own_net:build")
    report = ncen_tf.evaluate("export", data.test, suite="quick")
    expected = np.mean(np.argmax(opened.ensemble.predict(data.test.images, verbose=0), 1) == data.test.labels)
    assert report.clean_accuracy.value == pytest.approx(expected)


def test_each_member_has_weights_of_its_own_seed(module: str) -> None:
    first, again = (build_ensemble([f"{module}:build"] * 2, (9, 9, 1), 3, seed=4) for _ in range(2))
    for left, right in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    kernels = [member.get_weights()[0] for member in first.members]
    assert np.abs(kernels[0] - kernels[1]).min() > 0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("three_classes", r"logits \(None, 5\), but its model maps \(None, 9, 9, 1\) to \(None, 3\)"),
        ("fails", r"own_net:fails\(\(9, 9, 1\), 5\) fails: ValueError: no such depth"),
        ("nothing", "must return a Keras model, but returned a NoneType"),
        ("missing", "own_net:missing cannot be imported: AttributeError"),
    ],
)
def test_unusable_functions_are_refused(module: str, function: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_ensemble([f"{module}:{function}", "resnet8"], (9, 9, 1), 5)


def test_names_of_applications() -> None:
    names = ["mobilenet_v2", "MobileNetV2", "EfficientNetB0", "res_net50", "resnet50", "vgg16"]
    expected = ("MobileNetV2", "MobileNetV2", "EfficientNetB0", "ResNet50", "resnet50", "VGG16")
    assert parse_architecture(names) == parse_architecture(expected) == expected
    for name in ("imagenet_utils", "resnet101", "mobilenet_v9", "own_net:"):
        with pytest.raises(InputError, match=f"or module:function, got '{name}'"):
            parse_architecture([name, "resnet8"])


def test_an_application_has_right_second_derivatives_and_no_preprocessing() -> None:
    ensemble = build_ensemble(["mobilenet_v2", "efficientnet_b0"], (32, 32, 3), 5, seed=0)
    for member in ensemble.members:
        assert (member.input_shape, member.output_shape) == ((None, 32, 32, 3), (None, 5))
        kinds = [type(layer) for layer in all_layers(member)]
        assert BatchNorm in kinds
        assert keras.layers.BatchNormalization not in kinds
        assert keras.layers.Rescaling not in kinds
        assert keras.layers.Normalization not in kinds
    reference = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), weights=None, classes=5, classifier_activation=None
    )
    reference.set_weights(ensemble.members[0].get_weights())
    images = tf.constant(np.random.default_rng(0).random((2, 32, 32, 3), np.float32))
    np.testing.assert_allclose(ensemble.members[0](images), reference(images), rtol=1e-4, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras's BatchNormalization would lead to a warning.
        ensemble.compile(regularizer=ncen_tf.NCE(0.1, 0.1))


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 4)])
def test_images_that_an_application_refuses(image_shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="`members`: MobileNetV2"):
        build_ensemble(["mobilenet_v2"] * 2, image_shape, 5)


def test_the_program_names_a_module_that_is_missing(tmp_path: Path, refuse: Callable[..., None]) -> None:
    arguments = ("--dataset=fashion_mnist_sample", "--architecture=no_such_net:build,no_such_net:build")
    size = ("--train_examples=40", "--test_examples=10", f"--run_dir={tmp_path / 'run'}")
    refuse("train", *arguments, *size, says="no_such_net:build cannot be imported: ModuleNotFoundError")


# Models that can be members, and models that cannot


class Subclassed(keras.Model):
    """A model whose layers Keras does not see from outside."""

    def __init__(self, activation: str | None) -> None:
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(CLASSES, activation=activation)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.dense(self.flatten(images))


def on_image(function: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    image = keras.Input(SHAPE)
    return keras.Model(image, function(image))


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_member(activation="softmax"),
        lambda: keras.Sequential([small_member(), keras.layers.Softmax()]),
        lambda: keras.Sequential([small_member(), keras.layers.Activation("softmax")]),
        lambda: keras.Sequential([keras.Input(SHAPE), small_member(activation="softmax")]),
        lambda: keras.Sequential([small_member(activation="softmax"), keras.layers.Reshape((CLASSES,))]),
        lambda: keras.Sequential([small_member(), keras.layers.Lambda(tf.nn.softmax)]),
        lambda: on_image(lambda image: keras.ops.softmax(small_member()(image))),
        lambda: on_image(Subclassed("softmax")),
    ],
)
def test_members_that_end_in_softmax_are_refused(make: Callable[[], keras.Model]) -> None:
    with pytest.raises(InputError, match=r"member 1 .* ends in softmax"):
        Ensemble([small_member(), make()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_member(activation="relu"),
        lambda: keras.Sequential([small_member(), keras.layers.Activation("linear", dtype="float32")]),
        lambda: keras.Sequential([keras.Input(SHAPE), small_member()]),
        lambda: keras.Sequential([small_member(), keras.layers.Lambda(tf.nn.log_softmax)]),
        lambda: on_image(Subclassed(None)),
    ],
)
def test_members_that_return_logits_are_not(make: Callable[[], keras.Model]) -> None:
    assert not ends_in_softmax(make())


def test_members_must_be_distinct_models_of_one_shape() -> None:
    one = small_member()
    shared = keras.layers.Dense(CLASSES)
    for members, says in (
        ([], "at least two models, got 0"),
        ([one], "at least two models, got 1"),
        ([one] * 3, "members 0 and 1 share weights"),
        ([on_image(lambda x: shared(keras.layers.Flatten()(x))) for _ in range(2)], "share weights"),
        ([one, lambda images: images], "member 1 is a function"),
        ([one, Subclassed(None)], "wrap the model"),
        ([one, keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])], "wrap the model"),
        ([one, keras.Sequential([small_member(), keras.layers.Dense(3)])], "member 1 .* to \\(3,\\)"),
        ([one, on_image(keras.layers.Flatten()), one], "same images and know the same classes"),
        ([one, on_image(keras.layers.Conv2D(4, 3))], "maps .* to \\(None, 6, 6, 4\\)"),
    ):
        with pytest.raises(InputError, match=says):
            Ensemble(members)


def test_layers_with_wrong_second_derivatives_are_warned_of() -> None:
    def warned(layer: keras.layers.Layer, regularizer: Any, trainable: bool = True) -> bool:
        ensemble = Ensemble([small_member(), small_member(layer)])
        ensemble.members[1].trainable = trainable
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ensemble.compile("sgd", regularizer)
        return any("Member 1" in str(w.message) and "second derivatives" in str(w.message) for w in caught)

    plain = keras.layers.BatchNormalization
    assert warned(plain(), NCE())
    assert warned(keras.layers.LayerNormalization(), GAL())
    assert not warned(plain(), None)
    assert not warned(plain(), ADP())
    assert not warned(plain(), NCE(), trainable=False)
    assert not warned(plain(synchronized=True), NCE())
    assert not warned(BatchNorm(), NCE())
