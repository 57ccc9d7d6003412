"""Resize, a linear map along each axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncen_tf.onnx_grad.builder import LARGEST_TABLE, GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


@rule("Resize")
def resize(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The output along an axis is a constant matrix times the input, for every mode."""
    x, y, a = node.inputs[0], node.outputs[0], node.attributes
    shape, result = g.shape(x), g.shape(y)
    rank = len(shape)
    coordinates = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    if coordinates == "tf_crop_and_resize":
        raise node.unsupported("crops")
    scales = g.facts.constant(node.input(2)) if node.input(2) and g.opset > 10 else None
    axes = [axis % rank for axis in a.get("axes", range(rank))]
    fixes_batch = False
    for position, axis in enumerate(axes):
        before, after = shape[axis], result[axis]
        if before is None or after is None:
            if all(p[axis] == q[axis] for p, q in zip(g.facts.shapes(x), g.facts.shapes(y), strict=True)):
                continue  # the batch
            if before is None and node.input(3):
                fixes_batch = True  # to the only number of images that the sizes are right for
                continue
            raise node.unsupported("has sizes that vary with the batch")
        if node.input(2) and not node.input(3) and scales is None:
            raise node.unsupported("has scales that are only known when the model runs")
        given = scales is not None and scales.size and not node.input(3)
        scale = float(scales.reshape(-1)[position]) if given and scales is not None else after / before
        if a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" and node.input(3):
            scale = _common_scale(g, node, [shape[i] for i in axes])
        if before * after > LARGEST_TABLE:
            raise node.unsupported(f"resizes an axis of {before} entries to {after}")
        matrix = _matrix(node, before, after, scale, coordinates)
        if before != after or (matrix != np.eye(before)).any():
            dy = g.times_matrix(dy, matrix, axis, rank, x)
    # With another number of images the Reshape fails, instead of a gradient of the wrong image.
    return [g.op("Reshape", dy, g.op("Shape", x)) if fixes_batch else dy]


def _common_scale(g: GraphBuilder, node: Node, before: Sequence[int | None]) -> float:
    """Return the scale of all axes where the aspect ratio is kept."""
    sizes = g.facts.constant(node.inputs[3])
    if sizes is None or None in before:
        raise node.unsupported("keeps the aspect ratio of sizes that are only known when the model runs")
    ratios = [after / size for after, size in zip(sizes.tolist(), before, strict=True) if size]
    return min(ratios) if node.attributes["keep_aspect_ratio_policy"] == b"not_larger" else max(ratios)


def _matrix(node: Node, before: int, after: int, scale: float, coordinates: str) -> NDArray[Any]:
    """Return the matrix [after, before] of a resized axis, in the float32 coordinates of onnxruntime."""
    a = node.attributes
    mode = a.get("mode", b"nearest").decode()
    o, s, half = np.arange(after, dtype=np.float32), np.float32(scale), np.float32(0.5)
    if coordinates == "align_corners":
        x = o * np.float32(before - 1) / np.float32(max(after - 1, 1))
    elif coordinates == "asymmetric":
        x = o / s
    elif coordinates == "tf_half_pixel_for_nn":
        x = (o + half) / s
    elif coordinates == "pytorch_half_pixel" and after == 1:
        x = o
    else:
        x = (o + half) / s - half
        if coordinates == "half_pixel_symmetric":
            x += np.float32(before / 2 * (1 - after / (scale * before)))
    if a.get("antialias", 0) and mode != "nearest":
        return _antialiased(x + half, before, min(1.0, scale), mode, a)
    rows = np.arange(after)[:, None]
    matrix = np.zeros((after, before))
    if mode == "nearest":
        nearest = a.get("nearest_mode", b"round_prefer_floor").decode()
        if nearest == "floor" or nearest == "round_prefer_ceil":
            index = np.floor(x if nearest == "floor" else x + half)
        else:
            index = np.ceil(x if nearest == "ceil" else x - half)
        matrix[rows[:, 0], np.clip(index, 0, before - 1).astype(int)] = 1
        return matrix
    start = np.floor(x)
    ratio = (x - start).astype(np.float64)[:, None]
    if mode == "linear":
        taps = start[:, None] + np.arange(2)
        weights = np.concatenate([1 - ratio, ratio], axis=1)
    else:  # Keys, "Cubic convolution interpolation for digital image processing", 1981
        taps = start[:, None] + np.arange(-1, 3)
        distance = np.abs(ratio - np.arange(-1, 3))
        weights = _cubic(distance, a.get("cubic_coeff_a", -0.75))
        if a.get("exclude_outside", 0):
            weights = np.where((taps < 0) | (taps >= before), 0, weights)
            weights /= weights.sum(axis=1, keepdims=True)
    np.add.at(matrix, (rows, np.clip(taps, 0, before - 1).astype(int)), weights)
    return matrix


def _cubic(distance: NDArray[np.float64], c: float) -> NDArray[np.float64]:
    near = ((c + 2) * distance - (c + 3)) * distance**2 + 1
    far = ((c * distance - 5 * c) * distance + 8 * c) * distance - 4 * c
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _antialiased(
    centers: NDArray[np.float32], before: int, scale: float, mode: str, attributes: dict[str, Any]
) -> NDArray[np.float64]:
    """Return the matrix of a filter that is as many times wider as an axis shrinks, each row of sum 1.

    Pixels outside repeat the last one inside, or have no weight with `exclude_outside`.
    """
    reach = (1 if mode == "linear" else 2) / scale
    beyond = int(np.ceil(reach)) + 1
    pixels = np.arange(-beyond, before + beyond)
    middle = centers[:, None].astype(np.float64)
    distance = np.abs((pixels - middle + 0.5) * scale)
    c = attributes.get("cubic_coeff_a", -0.75)
    weights = np.maximum(0, 1 - distance) if mode == "linear" else _cubic(distance, c)
    used = (pixels >= np.floor(middle - reach + 0.5)) & (pixels < np.floor(middle + reach + 0.5))
    if attributes.get("exclude_outside", 0):
        used &= (pixels >= 0) & (pixels < before)
    weights = np.where(used, weights, 0)
    matrix = np.zeros((len(centers), before))
    rows = np.arange(len(centers))[:, None]
    np.add.at(matrix, (rows, np.clip(pixels, 0, before - 1)[None]), weights)
    return np.asarray(matrix / weights.sum(axis=1, keepdims=True))
