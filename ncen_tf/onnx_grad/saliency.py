"""Heat maps of what an ONNX classifier looks at: plain gradient, integrated gradients and Grad-CAM.

This module, unlike the rest of the package, runs models, and therefore needs onnxruntime.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ncen_tf.onnx_grad.differentiation import gradient_model
from ncen_tf.onnx_grad.models import without_weights

Array = NDArray[Any]
METHODS = ("gradient", "integrated_gradients", "grad_cam")


def saliency(
    model: onnx.ModelProto | str | os.PathLike[str],
    images: Array,
    labels: Sequence[int] | NDArray[np.integer[Any]],
    method: str = "gradient",
    *,
    output: str | None = None,
    layer: str | None = None,
    baseline: float | Array = 0.0,
    steps: int = 50,
    channel_axis: int = 1,
) -> Array:
    """Compute how much each pixel matters for the score that a classifier gives to a label.

    The score is the entry of `output` at the label, along its last axis of more than one entry, summed over
    the members of an ensemble.

    Args:
        model: an ONNX file, or a model with its weights in memory.
        images: [N, ...] as the model takes them.
        labels: [N] integers, the class to explain for each image.
        method: "gradient", the largest absolute gradient over the channels; "integrated_gradients", the sum
            over the channels of (image - baseline) times the mean gradient on the way from the baseline,
            whose sum over the pixels is score(image) - score(baseline); "grad_cam", the positive part of the
            layer's channels weighted by their mean gradients, enlarged to the size of the image.
        output: the output to explain; may be omitted if there is only one.
        layer: for "grad_cam", a tensor [N, channels, height, width] inside the model; by default the last one
            of more than one pixel on which the output depends.
        baseline: for "integrated_gradients", an image or one number for all pixels.
        steps: for "integrated_gradients", the number of gradients (midpoint rule).
        channel_axis: 1 for images [N, channels, height, width], -1 for [N, height, width, channels].

    Returns:
        float32 [N, height, width].

    Raises:
        ValueError: an argument is out of range, or the model has no such gradient (see `gradient_model`).

    Source:
        Simonyan et al., arXiv:1312.6034; Sundararajan et al., arXiv:1703.01365; Selvaraju et al.,
        arXiv:1610.02391.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}.")
    if images.ndim != 4 or len(labels) != len(images):
        raise ValueError(
            f"`images` must have four axes and `labels` one entry each, got {images.shape}, {len(labels)}."
        )
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}.")
    source = onnx.load(model) if isinstance(model, str | os.PathLike) else model
    classes = np.asarray(labels)
    if method == "grad_cam":
        chosen = layer or _last_feature_map(source, output, images.shape[1:])
        run = _runner(source, output, images.shape[1:], chosen)
        features, gradients = run(images, classes)
        weights = gradients.mean((2, 3), keepdims=True)
        heat = np.maximum((weights * features).sum(1), 0)
        axis = channel_axis % 4
        sizes = tuple(size for i, size in enumerate(images.shape) if i not in (0, axis))
        return _enlarge(heat, *sizes).astype(np.float32)
    run = _runner(source, output, images.shape[1:], None)
    if method == "gradient":
        return np.asarray(np.abs(run(images, classes)[1]).max(channel_axis), np.float32)
    start = np.broadcast_to(np.asarray(baseline, images.dtype), images.shape)
    total = np.zeros(images.shape)
    for step in range(steps):
        share = images.dtype.type((step + 0.5) / steps)
        total += run(start + share * (images - start), classes)[1]
    return np.asarray(((images - start) * total / steps).sum(channel_axis), np.float32)


def _runner(
    model: onnx.ModelProto, output: str | None, shape: tuple[int, ...], layer: str | None
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function from images and classes to a layer (or the images) and the score's gradient by it."""
    with_gradient = gradient_model(model, output, image_shape=shape, tensor=layer)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        with_gradient.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image, cotangent = session.get_inputs()[0], session.get_inputs()[-1]
    explained = cotangent.name.rpartition("_cotangent")[0] if output is None else output
    sizes = cotangent.shape[1:]
    axis = max((i for i, size in enumerate(sizes) if size != 1), default=len(sizes) - 1)
    fixed = image.shape[0] if isinstance(image.shape[0], int) else None
    names = [layer or explained, session.get_outputs()[-1].name]

    def run(images: Array, classes: Array) -> tuple[Array, Array]:
        if not ((classes >= 0) & (classes < sizes[axis])).all():
            raise ValueError(f"`labels` must be from 0 to {sizes[axis] - 1}, got {classes.tolist()}.")
        parts = []
        batch = fixed or len(images)
        for begin in range(0, len(images), batch):
            x, c = images[begin : begin + batch], classes[begin : begin + batch]
            missing = batch - len(x)  # a file of fixed batch: the last image fills it up
            x = np.concatenate([x, np.repeat(x[-1:], missing, 0)])
            one_hot = np.zeros((batch, *sizes), images.dtype)
            np.moveaxis(one_hot, 1 + axis, 1)[np.arange(len(c)), c] = 1
            found = session.run(names, {image.name: x, cotangent.name: one_hot})
            parts.append([value[: len(c)] for value in found])
        first, second = (np.concatenate(values) for values in zip(*parts, strict=True))
        return first, second

    return run


def _last_feature_map(model: onnx.ModelProto, output: str | None, shape: tuple[int, ...]) -> str:
    """Return the last tensor [N, channels, height, width] of several pixels that the output is made from.

    Raises:
        ValueError: there is none.
    """
    bare = without_weights(model)
    image = next(value for value in bare.graph.input)
    for dim, size in zip(image.type.tensor_type.shape.dim, (1, *shape), strict=False):
        dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    known = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.value_info
    }
    needed = {output or model.graph.output[0].name}
    for node in reversed(model.graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        sizes = known.get(node.output[0], [])
        if len(sizes) == 4 and math.prod(sizes[2:]) > 1 and node.op_type not in ("Constant", "Transpose"):
            return str(node.output[0])
    raise ValueError(
        "no tensor of the model is [N, channels, height, width] with several pixels; name `layer`"
    )


def _enlarge(maps: Array, height: int, width: int) -> Array:
    """Resize maps [N, h, w] linearly, pixel centres aligned."""
    for axis, size in ((1, height), (2, width)):
        before = maps.shape[axis]
        places = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
        low = np.floor(places).astype(int)
        ratio = (places - low).reshape((-1, 1) if axis == 1 else (-1,))
        high = np.minimum(low + 1, before - 1)
        maps = np.take(maps, low, axis) * (1 - ratio) + np.take(maps, high, axis) * ratio
    return maps
