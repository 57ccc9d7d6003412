"""Minimal distances of images, and the curve of robust accuracy against the perturbation bound."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncen_tf.attack.attack import Array, Labels, Norm, sizes_of
from ncen_tf.attack.minimum_norm import DecoupledDirectionNorm, FastMinimumNorm, MinimumNorm, SigmaZero
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.runner import run_attack
from ncen_tf.attack.scoring import check_examples, predict, round_images
from ncen_tf.base.errors import InputError
from ncen_tf.data.sources import test_images
from ncen_tf.report.curve import CurveAttack, RobustnessCurve, build_curve, finite_median
from ncen_tf.report.results import AttackResult, describe_target
from ncen_tf.targets.combination import Combine
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target, no_gradient

_NAMED = ("attack", "norm", "eps")


def robustness_curve(
    model: str | Path | Target | Callable[..., Any] | Sequence[Any],
    data: Any,
    *,
    norm: Norm = "Linf",
    examples: int | None = None,
    sample_seed: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int = 100,
    interface: ModelInterface | None = None,
    combine: Combine = "softmax",
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
) -> RobustnessCurve:
    """Measure robust accuracy at every perturbation bound at once, by minimum-norm attacks.

    The distance of an image is the smallest that any of the attacks finds: FMN in Linf and L1, FMN and DDN in
    L2, sigma-zero and FMN in L0, where it is a number of changed values. It is an upper bound of the true
    one, so the curve is an upper bound of robust accuracy, as every attack's is.

    Args:
        model: As for ``ncen_tf.evaluate``; it must have a gradient.
        data: Test images and labels: a ``Split``, a ``Dataset``, a pair of arrays, or another
            source of ``ncen_tf.load_data``.
        norm: ``Linf``, ``L2``, ``L1`` or ``L0``.
        examples: Number of images, as many of each class as ``Split.sample`` can take; all by default.
        sample_seed: Of a random choice of the images; by default the first of each class are taken.
        seed: Recorded; the attacks make no random choice.
        steps: Number of gradient steps of each attack; each attack's own by default.
        batch_size: Number of images attacked at a time.
        interface: How the model takes images and returns scores, where it cannot be found by itself.
        combine: What an ensemble of several models averages: ``softmax`` or ``logits``.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: Attack files whose hash differs from their manifest's.

    Raises:
        InputError: Something cannot be used, or the model has no gradient.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample").test
        >>> curve = ncen_tf.robustness_curve("exports/reference", data, examples=10, steps=20)
        >>> curve.norm, curve.examples, curve.robust_accuracy(1.0).value
        ('Linf', 10, 0.0)
    """
    data = test_images(data)
    data = data.sample(examples, sample_seed) if examples else data
    target = open_target(
        model,
        image_shape=data.images.shape[1:],
        interface=interface,
        combine=combine,
        providers=providers,
        allow_unverified=allow_unverified,
    )
    images = round_images(data.float_images()) if target.whole_pixels else data.float_images()
    check_examples(target, images, data.labels)
    return measure_curve(
        target, images, data.labels, norm, dataset=data.name, seed=seed, steps=steps, batch_size=batch_size
    )


def measure_curve(
    target: Target,
    images: Array,
    labels: Labels,
    norm: Norm,
    *,
    dataset: str,
    seed: int,
    batch_size: int,
    steps: int | None = None,
    known: Sequence[AttackResult] = (),
    round_to_8bit: bool = False,
) -> RobustnessCurve:
    """Attack images float32 [N, H, W, C] in [0, 1] as :func:`robustness_curve` does.

    Args:
        dataset: Name of the images' dataset.
        known: Attacks on the same images, whose adversarial images count, too, in Linf and L2.
        round_to_8bit: Round adversarial images to multiples of 1/255.

    The other arguments are those of :func:`robustness_curve`.

    Raises:
        InputError: The target has no gradient, or ``norm`` is unknown.
    """
    if not target.has_gradient:
        raise no_gradient(target.description)
    objective = Objective(target, "ensemble")
    right = predict(objective, images, batch_size, "clean images") == labels
    found, costs = [], []
    for attack in _attacks(norm, images[0].size, steps):
        adversarials, result = run_attack(
            attack, objective, images[right], labels[right], batch_size, seed, round_to_8bit=round_to_8bit
        )
        broken = result.predictions != labels[right]
        found.append(np.where(broken, sizes_of(adversarials - images[right], norm), np.inf))
        costs.append((attack, result))
    smallest = np.min(found, axis=0)
    distances = np.zeros(len(images))
    distances[right] = smallest
    for other in known:
        distances = np.minimum(distances, _known_distances(other, labels, norm))
    attacks = [
        CurveAttack(
            attack=attack.name,
            settings={name: v for name, v in attack.settings().items() if name not in _NAMED},
            attacked=len(smallest),
            found=int(np.isfinite(sizes).sum()),
            nearest=int((np.isfinite(sizes) & (sizes == smallest)).sum()),
            median_distance=finite_median(sizes),
            queries=result.queries,
            gradients=result.gradients,
            seconds=result.seconds,
        )
        for (attack, result), sizes in zip(costs, found, strict=True)
    ]
    info = describe_target(target)
    return build_curve(distances, attacks, norm=norm, dataset=dataset, seed=seed, target=info)


def _attacks(norm: Norm, values: int, steps: int | None) -> list[MinimumNorm]:
    """List the attacks of a norm; their bound excludes no image of this number of values."""
    chosen: dict[str, Any] = {"eps": 1 if norm == "Linf" else values, "norm": norm}
    if steps is not None:
        chosen["steps"] = steps
    if norm == "Linf":  # Long steps find nearer images of some, short steps of others.
        return [FastMinimumNorm(**chosen, step_size=5.0), FastMinimumNorm(**chosen)]
    if norm == "L2":
        return [FastMinimumNorm(**chosen), DecoupledDirectionNorm(**chosen)]
    if norm == "L1":
        return [FastMinimumNorm(**chosen)]
    if norm == "L0":
        return [SigmaZero(**chosen), FastMinimumNorm(**chosen)]
    raise InputError(f"`norm` must be one of Linf, L2, L1, L0, got {norm!r}.")


def _known_distances(result: AttackResult, labels: Labels, norm: Norm) -> Array:
    """Return the distances [N] of the images that an attack broke, infinite for the others."""
    if norm not in ("Linf", "L2"):
        return np.full(len(labels), np.inf)
    sizes = result.linf if norm == "Linf" else result.l2
    if result.settings["norm"] == norm:  # A change of eps is longer by the rounding of float32.
        sizes = np.minimum(sizes, result.settings["eps"])
    return np.where(result.predictions != labels, sizes, np.inf)
