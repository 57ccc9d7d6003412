"""What is told of images and target before the attacks start."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ncen_tf.attack.attack import Array
from ncen_tf.attack.masked_gradients import ROUNDING, repeat_difference
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.suites import Suite
from ncen_tf.data.dataset import Split
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)

_TINY = 100
"""Passes an image below which an estimate is not worth its time."""
_MOST_CLASSES = 100
"""Classes that a picture shows."""


def describe_sample(data: Split) -> str:
    """Say how many images and classes there are: ``200 images of 10 classes, 18 to 22 of each``."""
    counts = np.unique(data.labels, return_counts=True)[1]
    fewest, most = counts.min(), counts.max()
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{len(data):,} images of {len(counts)} classes, {each} of each"


def save_class_sheet(data: Split, file: Path) -> None:
    """Write a PNG file with the first image of each class and its name, of the first 100 classes at most."""
    labels, first = np.unique(data.labels, return_index=True)
    labels, first = labels[:_MOST_CLASSES], first[:_MOST_CLASSES]
    columns = math.ceil(math.sqrt(len(labels)))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(1.4 * columns, 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, label, image in zip(grid, labels, data[first].float_images(), strict=False):
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(data.class_names[label][:20], fontsize=8, parse_math=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def warn_of_other_classes(data: Split, target: Target) -> None:
    """Warn where the classes of the data may not be those of the target's outputs.

    That is so if the names of the data's classes differ from those that the target's export recorded, or,
    where nothing is recorded, if there are fewer of them than outputs.

    Args:
        data: The images.
        target: What will be attacked.
    """
    names, recorded = data.class_names, target.class_names
    numbers = tuple(map(str, range(len(names))))
    if recorded and names != numbers and recorded != tuple(map(str, range(len(recorded)))):
        other = [i for i, name in enumerate(names[: len(recorded)]) if name != recorded[i]]
        if other:
            logger.warning(
                "Class %d of %s is %s, but output %d of the target is %s by its manifest: list the names of "
                "all outputs in a file, `classes`.",
                other[0],
                data.name,
                names[other[0]],
                other[0],
                recorded[other[0]],
            )
    elif len(names) < target.classes:
        logger.warning(
            "%s has %d classes and the target %d outputs: class 0, %s, is taken for output 0, and so on. "
            "List the names of all outputs in a file, `classes`, if they are in another order.",
            data.name,
            len(names),
            target.classes,
            names[0],
        )


def warn_of_randomness(target: Target, images: Array) -> None:
    """Warn of a target that answers two calls on the same images [N, H, W, C] differently."""
    difference = repeat_difference(Objective(target, "ensemble"), images)
    if difference > ROUNDING:
        logger.warning(
            "%s is not deterministic: between two calls on %d images a probability changes by up to %.2g. "
            "Attack the mean of several calls: `eot_samples`=20.",
            target.description,
            len(images),
            difference,
        )


def estimate_cost(target: Target, suite: Suite, images: Array) -> str | None:
    """Estimate from one batch how long the attacks take if no image is broken; masked gradients not included.

    Args:
        target: What will be attacked.
        suite: The attacks.
        images: float32 [N, H, W, C] in [0, 1].

    Returns:
        ``at most about 25 minutes: 919 gradients and 6,821 forward passes an image``; ``None``, and nothing
        is measured, where the attacks take few passes or an unknown number.
    """
    budget = suite.budget(target.classes, target.members)
    if budget is None or budget.queries < _TINY:
        return None
    batch = images[: suite.batch_size]

    def differentiate() -> None:
        logits, pull_back = target.linearize(batch)
        pull_back(np.ones_like(logits))

    seconds = max(0, budget.queries - budget.gradients) * _seconds(lambda: target.logits(batch))
    if budget.gradients:
        seconds += budget.gradients * _seconds(differentiate)
    time_needed = _in_words(seconds * len(images) / len(batch))
    gradients, queries = (passes * target.calls for passes in budget)
    of_gradients = f"{gradients:,} gradients and " if gradients else ""
    return f"at most about {time_needed}: {of_gradients}{queries:,} forward passes an image"


def _seconds(run: Callable[[], object]) -> float:
    """Time the second of two runs: the first may compile."""
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _in_words(seconds: float) -> str:
    """Write a time in minutes, hours or days, rounded up."""
    if seconds > 48 * 3600:
        unit, length = "day", 86400
    else:
        unit, length = ("hour", 3600) if seconds > 2 * 3600 else ("minute", 60)
    number = max(1, math.ceil(seconds / length))
    return f"{number:,} {unit}{'s' if number > 1 else ''}"
