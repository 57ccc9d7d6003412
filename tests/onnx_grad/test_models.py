"""Whole exported classifiers against TensorFlow's and PyTorch's gradients."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray

from ncen_tf.onnx_grad import gradient_model

Array = NDArray[Any]
TOLERANCE = 1e-4
layers = keras.layers


def vjp(model: onnx.ModelProto, x: Array, v: Array) -> tuple[Array, Array]:
    """First output and image gradient of a model, on onnxruntime's CPU provider."""
    result = gradient_model(model)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    session = onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    y, gradient = session.run(None, dict(zip(names, (x, v), strict=True)))
    return y, gradient


def relative_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def randomize(model: keras.Model) -> None:
    """Weights of unit gain and BatchNorm statistics that change what passes through."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            low = rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape)
            layer.set_weights([*low, rng.normal(0, 0.3, shape), rng.uniform(0.5, 1.5, shape)])


def resnet() -> keras.Model:
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(x))
    for filters, stride in ((8, 1), (16, 2), (16, 2)):
        shortcut = layers.Conv2D(filters, 1, strides=stride)(x)
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Add()([layers.BatchNormalization()(x), shortcut])
        x = layers.LeakyReLU(negative_slope=0.1)(x)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def mobilenet() -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    for stride, activation in ((1, "relu6"), (2, "hard_swish"), (1, "silu")):
        y = layers.Conv2D(24, 1)(x)
        y = layers.Activation(activation)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, strides=stride, padding="same")(y)
        y = layers.Activation(activation)(layers.BatchNormalization()(y))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(6, 1, activation="relu")(gate)
        gate = layers.Conv2D(24, 1, activation="hard_sigmoid")(gate)
        y = layers.Conv2D(8, 1)(layers.Multiply()([y, gate]))
        x = layers.Add()([x, y]) if stride == 1 else y
    x = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
    return keras.Model(image, x)


def smooth_relu(x: tf.Tensor) -> tf.Tensor:
    """tf2onnx has no Erfc, which Keras writes the exact form with."""
    return keras.activations.gelu(x, approximate=True)


def pooled() -> keras.Model:
    image = keras.Input((15, 15, 3))
    x = layers.Conv2D(8, 3, activation=smooth_relu)(image)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="elu")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Dense(16, activation="tanh")(layers.Flatten()(x))
    return keras.Model(image, layers.LayerNormalization()(layers.Dense(10)(x)))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("build", [resnet, mobilenet, pooled])
def test_keras_model_matches_tensorflow(build: Any, opset: int) -> None:
    keras.utils.set_random_seed(0)
    model = build()
    randomize(model)
    signature = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    exported, _ = tf2onnx.convert.from_function(function, signature, opset=opset)
    rng = np.random.default_rng(2)
    x = rng.random((5, *model.input_shape[1:]), np.float32)
    v = rng.normal(size=(5, 10)).astype(np.float32)

    @tf.function
    def tensorflow_vjp(images: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = model(images, training=False)
        return logits, tape.gradient(logits, images, output_gradients=cotangent)

    logits, expected = (t.numpy() for t in tensorflow_vjp(tf.constant(x), tf.constant(v)))
    y, found = vjp(exported, x, v)
    assert relative_error(y, logits) < TOLERANCE
    assert relative_error(found, expected) < TOLERANCE


def torch_models() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Residual(nn.Module):  # type: ignore[name-defined]
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=2),
                nn.GroupNorm(2, width),
            )
            self.shortcut = nn.Conv2d(channels, width, 1, stride)

        def forward(self, x: Any) -> Any:
            return nn.functional.silu(self.branch(x) + self.shortcut(x))

    class Dense(nn.Module):  # type: ignore[name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.new = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4, 3, padding=1)
            )

        def forward(self, x: Any) -> Any:
            return torch.cat([x, self.new(x)], 1)

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return {
        "vgg": nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(256, 32), nn.PReLU(), nn.Dropout(), nn.Linear(32, 10),
        ),
        "densenet": nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(3, 2, 1), Dense(8), Dense(12),
            nn.Conv2d(16, 8, 1), nn.AvgPool2d(2), Dense(8), *head, nn.Linear(12, 10),
        ),
        "resnet": nn.Sequential(
            Residual(3, 8, 1), Residual(8, 16, 2), Residual(16, 16, 2), *head,
            nn.Linear(16, 10), nn.LogSoftmax(1),
        ),
        "mlp": nn.Sequential(
            nn.Flatten(), nn.Linear(768, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32),
            nn.Hardswish(), nn.Linear(32, 10), nn.Softmax(-1),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", ["vgg", "densenet", "resnet", "mlp"])
def test_torch_model_matches_autograd(name: str, opset: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch_models()[name].train()
    for _ in range(3):  # gives BatchNorm its statistics
        model(torch.randn(16, 3, 16, 16) * 2 + 1)
    model.eval()
    images = torch.rand(5, 3, 16, 16, requires_grad=True)
    v = torch.randn(5, 10)
    logits = model(images)
    (expected,) = torch.autograd.grad(logits, images, v)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (images,),
        path,
        dynamo=False,
        opset_version=opset,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )
    for file in (path, *optimized(path)):
        y, found = vjp(onnx.load(file), images.detach().numpy(), v.numpy())
        assert relative_error(y, logits.detach().numpy()) < TOLERANCE
        assert relative_error(found, expected.numpy()) < TOLERANCE


def optimized(path: Path) -> Iterator[Path]:
    """Yield what onnxruntime's optimizer makes of a file; level "all" is for one processor."""
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED):
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.graph_optimization_level = 4, level
        options.optimized_model_filepath = os.fspath(path.with_suffix(f".{int(level)}.onnx"))
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        yield Path(options.optimized_model_filepath)
