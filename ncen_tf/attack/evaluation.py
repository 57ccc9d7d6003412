"""One call from a classifier and images to a report on its robustness."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ncen_tf.attack.attack import Norm
from ncen_tf.attack.curve import measure_curve
from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.masked_gradients import examine_gradients
from ncen_tf.attack.objectives import MeanTarget
from ncen_tf.attack.preview import (
    check_clean_accuracy,
    describe_bounds,
    describe_sample,
    estimate_cost,
    save_class_sheet,
    warn_of_other_classes,
    warn_of_randomness,
)
from ncen_tf.attack.results import read_adversarials
from ncen_tf.attack.runner import replay, run_suite
from ncen_tf.attack.scoring import check_examples, round_images
from ncen_tf.attack.suites import SUITES, Suite, load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import ImageShape
from ncen_tf.data.sources import test_images
from ncen_tf.report.gate import Gate
from ncen_tf.report.metrics import build_report
from ncen_tf.report.results import Report, describe_target
from ncen_tf.targets.combination import Combine
from ncen_tf.targets.interface import ModelInterface, Quantization
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target, no_gradient

logger = logging.getLogger(__name__)


def evaluate(
    target: str | Path | Target | Callable[..., Any] | Sequence[Any],
    data: Any,
    *,
    suite: str | Path | Suite = "paper",
    eps: float | str | None = None,
    norm: Norm | None = None,
    examples: int | None = None,
    sample_seed: int | None = None,
    seed: int = 0,
    objective: ObjectiveName | None = None,
    batch_size: int | None = None,
    check_gradients: bool | None = None,
    interface: ModelInterface | None = None,
    combine: Combine = "softmax",
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
    gate: Gate | Path | str | None = None,
    out: Path | str | None = None,
    save_adversarials: bool = False,
    allow_low_accuracy: bool = False,
    quantization: Quantization | None = None,
    eot_samples: int = 1,
    round_to_8bit: bool = False,
    curve: Sequence[Norm] = (),
    ray: str | None = None,
    ray_cpus: float = 1,
    ray_gpus: float = 0,
) -> Report:
    """Attack a classifier and report its robustness.

    Args:
        target: Path of a run directory, a ``.keras`` file, a SavedModel, an ``.onnx`` file or an export's
            folder; a Keras model images [N, H, W, C] in [0, 1] -> logits or probabilities; an array function
            of the same kind, for attacks without gradients; or what ``ncen_tf.open_target`` returned.
            A list of them is attacked as one ensemble.
        data: Test images and labels: a ``Split``, a ``Dataset``, a pair of arrays, or another
            source of ``ncen_tf.load_data``.
        suite: Name of a suite (``paper``, ``released``, ``strict``, ``screen``, ``blackbox``, ``quick``),
            path of a ``.toml`` file, or a suite. It decides everything that follows and is ``None``.
        eps: Bound of every attack of a named suite, for images in [0, 1], as a number or a fraction such as
            ``"8/255"``; by default the usual one of images of this size, which is logged.
        norm: Run only the suite's attacks in this norm, ``Linf`` or ``L2``.
        examples: Number of images, as many of each class as ``Split.sample`` can take; 0 for all.
        sample_seed: Of a random choice of the images; by default the first of each class are taken.
        seed: Of random starts and random attacks, in [0, 2^31).
        objective: Loss that gradient attacks maximise: ``member_average`` or ``ensemble``.
        batch_size: Number of images attacked at a time.
        check_gradients: Whether to look for masked gradients.
        interface: How the model takes images and returns scores, where it cannot be found by itself.
        combine: What an ensemble of several models averages: ``softmax`` or ``logits``.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: Attack files whose hash differs from their manifest's.
        gate: Thresholds that the report will be checked against. One that asks for something this evaluation
            does not measure is refused before the attacks.
        out: Folder where an interrupted evaluation keeps its state: the same call goes on where it stopped;
            and where ``classes.png`` shows one image of each class.
        save_adversarials: Keep adversarial images in the subfolder ``adversarials`` of ``out``.
        allow_low_accuracy: Attack also a target whose clean accuracy tells that it is fed wrongly: one that
            guessing reaches, or far below what its export recorded.
        quantization: ``straight_through`` attacks ONNX models that quantise their activations by the gradient
            of the model without rounding, a direction rather than a derivative, which the report names. By
            default such models are refused, unless no attack of the suite needs a gradient.
        eot_samples: Number of calls whose mean is attacked, for targets that answer differently each time
            (expectation over transformation); each call counts as a pass.
        round_to_8bit: Round clean and adversarial images to multiples of 1/255, as an image file does.
        curve: Norms in which the curve of robust accuracy against eps is added, by minimum-norm attacks; see
            ``ncen_tf.robustness_curve``.
        ray: Address of a Ray cluster whose workers attack the batches: ``auto``, ``HOST:PORT``, or ``local``
            for one on this machine. The results are those of an evaluation without it.
        ray_cpus: Number of CPUs of each worker, > 0.
        ray_gpus: Number of GPUs of each worker, >= 0.

    Returns:
        The report; ``report.save(folder)`` writes it.

    Raises:
        InputError: Something cannot be used, or settings do not fit each other.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample").test
        >>> report = ncen_tf.evaluate("exports/reference/ensemble.onnx", data, suite="quick", examples=10)
        >>> report.protocol, report.examples, [row.attack for row in report.attacks]
        ('quick', 10, ['FGSM', 'PGD'])
    """
    if not 0 <= seed < 2**31:
        raise InputError(f"`seed` must be in [0, 2^31), got {seed}.")
    if eot_samples < 1:
        raise InputError(f"`eot_samples` must be positive, got {eot_samples}.")
    if save_adversarials and out is None:
        raise InputError("`save_adversarials` needs a folder: set `out`.")
    if gate is not None and not isinstance(gate, Gate):
        gate = Gate.read(gate)
    data = test_images(data)
    chosen = _load_suite(suite, data.images.shape[1:], eps, norm)
    choices: dict[str, Any] = {
        "objective": objective,
        "batch_size": batch_size,
        "norm": norm,
        "check_gradients": check_gradients,
    }
    chosen = chosen.with_choices(**choices, round_to_8bit=round_to_8bit)
    number = min(chosen.examples, len(data)) if examples is None else examples
    data = data.sample(number, sample_seed) if number else data
    opening: dict[str, Any] = {
        "image_shape": data.images.shape[1:],
        "interface": interface,
        "combine": combine,
        "providers": providers,
        "allow_unverified": allow_unverified,
        "differentiable": bool(curve) or not all(attack.gradient_free for attack in chosen.attacks),
        "batch_statistics": chosen.batch_statistics,
        "quantization": quantization,
    }
    opened = open_target(target, **opening)
    if eot_samples > 1:
        opened = MeanTarget(opened, eot_samples)
    chosen = chosen.with_choices(
        classes=opened.classes, members=opened.members, check_gradients=chosen.check_gradients
    )
    if not opened.has_gradient and not all(attack.gradient_free for attack in chosen.attacks):
        raise no_gradient(opened.description)
    if not opened.gives_logits:
        logger.info("The target gives probabilities: attacks maximise losses of their logarithms.")
    if gate is not None:
        planned = [(attack.name, attack.eps) for attack in chosen.attacks]
        gate.require_measured(planned, len(data), opened.recorded, gradients_checked=chosen.check_gradients)
    for signature in opened.signatures:
        logger.info("%s", signature)
    images = data.float_images()
    if chosen.round_to_8bit or opened.whole_pixels:
        images = round_images(images)
    check_examples(opened, images, data.labels)
    logger.info("%s", describe_sample(data))
    warn_of_other_classes(data, opened)
    folder = None if out is None else Path(out)
    if folder is not None:
        save_class_sheet(data, folder / "classes.png")
        logger.info("One image of each class: %s", folder / "classes.png")
    warn_of_randomness(opened, images[: chosen.batch_size])
    if not allow_low_accuracy:
        check_clean_accuracy(opened, images, data.labels, chosen.batch_size)
    if ray is None and (cost := estimate_cost(opened, chosen, images)):
        logger.info("The attacks take %s", cost)
    with contextlib.ExitStack() as stack:
        run_jobs = None
        if ray is not None:
            from ncen_tf.attack import ray_workers  # Ray takes a second to import, and is optional.

            batches = -(-len(images) // chosen.batch_size)
            pool = ray_workers.workers(
                ray, target, opening, chosen.objective, batches, eot_samples, ray_cpus, ray_gpus
            )
            run_jobs = stack.enter_context(pool)
        result = run_suite(
            opened,
            images,
            data.labels,
            chosen,
            seed=seed,
            # A function in memory cannot be recognised by a later call.
            state_dir=folder / "finished_attacks" if folder and opened.sha256 else None,
            save_adversarials=folder / "adversarials" if folder and save_adversarials else None,
            dataset=data.name,
            class_names=data.class_names,
            run_jobs=run_jobs,
        )
    curves = [
        measure_curve(
            opened,
            images,
            data.labels,
            each,
            dataset=data.name,
            seed=seed,
            batch_size=chosen.batch_size,
            known=result.attacks,
            round_to_8bit=chosen.round_to_8bit,
        )
        for each in curve
    ]
    masked = examine_gradients(opened, chosen, result, images, seed) if chosen.check_gradients else None
    return build_report(
        result,
        protocol=chosen.protocol,
        objective=chosen.objective,
        dataset=data.name,
        target=describe_target(opened),
        seed=seed,
        cumulative=chosen.cumulative,
        recorded=opened.recorded,
        masked_gradients=masked,
        images=images,
        curves=curves,
    )


def evaluate_saved(
    target: str | Path | Target | Callable[..., Any] | Sequence[Any],
    file: Path | str,
    *,
    interface: ModelInterface | None = None,
    combine: Combine = "softmax",
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
    batch_size: int = 100,
) -> Report:
    """Show a classifier adversarial images that an earlier evaluation saved: how far its attack transfers.

    Args:
        target: As for ``evaluate``; it needs no gradient.
        file: An ``.npz`` file of the folder ``adversarials`` of an evaluation.
        interface: How the model takes images and returns scores, where it cannot be found by itself.
        combine: What an ensemble of several models averages: ``softmax`` or ``logits``.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: Open files whose hash differs from their manifest's.
        batch_size: Number of images at a time.

    Raises:
        InputError: The file holds no saved images, or the target does not take them.

    Examples:
        >>> import pathlib, ncen_tf
        >>> data, file = ncen_tf.load_data("fashion_mnist_sample").test, "exports/reference/ensemble.onnx"
        >>> _ = ncen_tf.evaluate(file, data, suite="quick", examples=10, out="r", save_adversarials=True)
        >>> saved = sorted(pathlib.Path("r/adversarials").iterdir())
        >>> ncen_tf.evaluate_saved(file, saved[0]).protocol.startswith("replay of FGSM")
        True
    """
    saved = read_adversarials(Path(file))
    opened = open_target(
        target,
        image_shape=saved.images.shape[1:],
        interface=interface,
        combine=combine,
        providers=providers,
        allow_unverified=allow_unverified,
        differentiable=False,
    )
    return build_report(
        replay(opened, saved, batch_size),
        protocol=f"replay of {Path(file).name}",
        objective=saved.info.objective,
        dataset=saved.info.dataset,
        target=describe_target(opened),
        seed=0,
        recorded=opened.recorded,
        images=saved.images,
    )


def _load_suite(
    suite: str | Path | Suite, image_shape: ImageShape, eps: float | str | None, norm: Norm | None
) -> Suite:
    """Load a suite unless it is one, and log the bounds that were not chosen."""
    if isinstance(suite, Suite):
        if eps is not None:
            raise InputError("`eps` is stated by the attacks of a `suite` that is not given by name.")
        return suite
    loaded = load_suite(suite, image_shape, eps=eps, norm=norm)
    if eps is None and suite in SUITES:
        for line in describe_bounds(loaded, image_shape):
            logger.info("%s", line)
    return loaded
