"""Looks at images and target before hours of attacks: what is shown, told and refused.

Throughout, images are float32 [N, H, W, C] in [0, 1], and labels int32 [N].
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from ncen_tf.attack.attack import Array, Labels
from ncen_tf.attack.masked_gradients import ROUNDING, repeat_difference
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.scoring import predict
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import ImageShape, Split
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)

_TINY = 100
"""Passes an image below which an estimate is not worth its time."""
_MOST_CLASSES = 100
"""Classes that a picture shows."""
_FEWEST, _MOST, _FOR_ALTERNATIVES = 30, 256, 100
"""Images: fewer tell nothing, more are not looked at; and those that alternatives are tried on."""
_LIKELY_CHANCE, _UNLIKELY = 1e-3, 1e-6
_CLEARLY = 0.2
"""What another way of feeding the images must add to the accuracy to be named."""
_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CAFFE: dict[str, Any] = {"input_range": (0, 255), "mean": (103.939, 116.779, 123.68), "channel_order": "BGR"}


def describe_bounds(suite: Suite, image_shape: ImageShape) -> Iterator[str]:
    """Iterate over the norms' default bounds: ``eps 8/255 (default for 32 x 32 colour images, Linf)``."""
    height, width, channels = image_shape
    kind = f"{height} x {width} {'grey' if channels == 1 else 'colour'} images"
    for norm in dict.fromkeys(attack.norm for attack in suite.attacks):
        bounds = sorted({attack.eps for attack in suite.attacks if attack.norm == norm})
        yield f"eps {', '.join(map(write_eps, bounds))} (default for {kind}, {norm})"


def write_eps(eps: float) -> str:
    """Write a bound as a fraction of 255 where it is one, such as ``8/255``; otherwise as a decimal."""
    numerator = round(eps * 255)
    if 0 < numerator < 255 and abs(eps * 255 - numerator) < 1e-9:
        return f"{numerator}/255"
    return f"{eps:g}"


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


def check_clean_accuracy(target: Target, images: Array, labels: Labels, batch_size: int) -> None:
    """Refuse a target whose accuracy on clean images tells that they are not what it was trained on.

    That is an accuracy which guessing reaches (one-sided binomial test at 1e-3), or one far below what its
    export recorded (at 1e-6). A target that passes, but would be clearly more accurate with images of another
    range, mean, deviation or order of channels, gets a warning that names it. Fewer than 30 images are not
    judged; of more than 256, as many are taken.

    Raises:
        InputError: The accuracy is too low. The message names what to check, and the way to feed the images
            that gives a clearly higher accuracy, if one was found.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_MOST, len(images))).astype(int))
    images, labels = images[chosen], labels[chosen]
    count = len(images)
    if count < _FEWEST:
        return
    predictions = predict(Objective(target, "ensemble"), images, batch_size, "clean images")
    correct = int((predictions == labels).sum())
    recorded = target.recorded
    if scipy.stats.binom.sf(correct - 1, count, 1 / target.classes) > _LIKELY_CHANCE:
        reason = f"no better than guessing one of {target.classes} classes"
    elif recorded and scipy.stats.binom.cdf(correct, count, recorded.value) < _UNLIKELY:
        reason = f"far below the {recorded.value:.4g} that its export recorded"
    else:
        if recorded is None and correct <= (1 - _CLEARLY) * count:
            hint = _better_way(target, images, labels, batch_size)
            if hint:
                logger.warning("%s may be fed wrongly: %s on clean images.", target.description, hint)
        return
    hint = _better_way(target, images, labels, batch_size) or _other_order(predictions, labels)
    if not hint:
        hint = (
            "check the order of classes, `input_range`, `mean` and `std`, `input_layout` and `channel_order`"
        )
    raise InputError(
        f"{target.description} classifies {correct} of {count} clean images correctly, {reason}: {hint}. Set "
        "`allow_low_accuracy` to attack it all the same."
    )


def _better_way(target: Target, images: Array, labels: Labels, batch_size: int) -> str:
    """Try other ranges, deviations and orders of channels; name the best if it is clearly better."""
    now = target.preprocessing
    if now is None:
        return ""
    images, labels = images[:_FOR_ALTERNATIVES], labels[:_FOR_ALTERNATIVES]
    objective = Objective(target, "ensemble")

    def accuracy(interface: ModelInterface) -> float:
        fed = now.images_for(now.replaced(interface), images)
        return float((predict(objective, fed, batch_size, "clean images") == labels).mean())

    tried = {interface: accuracy(interface) for interface in _alternatives(now.interface, target)}
    if not tried:
        return ""
    best = max(tried, key=lambda interface: tried[interface])
    if tried[best] < accuracy(now.interface) + _CLEARLY:
        return ""
    settings = [
        f"`{name}`={','.join(f'{v:g}' for v in value) if isinstance(value, tuple) else value}"
        for name in ("input_range", "mean", "std", "channel_order")
        if (value := getattr(best, name)) is not None and value != getattr(now.interface, name)
    ]
    return f"with {' '.join(settings)} the accuracy is {tried[best]:.2g}"


def _alternatives(now: ModelInterface, target: Target) -> Iterator[ModelInterface]:
    """Iterate over the usual ways to feed images, other than the present one."""
    kept: dict[str, Any] = {
        "input_layout": now.input_layout,
        "output": now.output,
        "output_name": now.output_name,
    }
    ways: list[dict[str, Any]] = [{"input_range": r} for r in ((0, 1), (0, 255), (-1, 1))]
    color = target.image_shape[2] == 3
    if target.whole_pixels:
        ways = [{}]
    elif color:
        ways += [{"input_range": (0, 1), **_IMAGENET}, _CAFFE]
    if color:
        ways += [{**way, "channel_order": "BGR"} for way in ways if "channel_order" not in way]
    for way in ways:
        interface = ModelInterface(**kept, **way)
        if interface != now:
            yield interface


def _other_order(predictions: Labels, labels: Labels) -> str:
    """Say that predictions follow another order of classes, if that explains most of them."""
    classes = np.unique(labels)
    usual = [int(np.bincount(predictions[labels == c]).argmax()) for c in classes]
    explained = sum(int((predictions[labels == c] == u).sum()) for c, u in zip(classes, usual, strict=True))
    if len(classes) < 2 or len(set(usual)) < len(classes) or explained < 0.6 * len(labels):
        return ""
    pairs = [f"{u} for {c}" for c, u in zip(classes[:3], usual[:3], strict=True)]
    return (
        f"it mostly answers with one other class for each ({', '.join(pairs)}, ...), so the order of classes "
        "in the data is not that of its outputs"
    )


def estimate_cost(target: Target, suite: Suite, images: Array) -> str | None:
    """Estimate from one batch how long the attacks take if no image is broken; masked gradients not included.

    Returns:
        ``at most about 25 minutes: 1,539 gradients and 7,441 forward passes an image``; ``None``, and nothing
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
