"""Opens whatever a user names as a target."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import import_function, require_target
from ncen_tf.export.manifest import MANIFEST, ONNX_FILE, SAVED_MODEL, Manifest, describe_files
from ncen_tf.targets.combination import Combine, CombinedTarget
from ncen_tf.targets.interface import ModelInterface, Quantization
from ncen_tf.targets.onnx_target import OnnxTarget
from ncen_tf.targets.target import FunctionTarget, RecordedAccuracy, Target


def open_target(
    model: str | Path | Target | Callable[..., Any] | Sequence[Any],
    *,
    image_shape: tuple[int, int, int] | None = None,
    interface: ModelInterface | None = None,
    combine: Combine = "softmax",
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
    differentiable: bool = True,
    batch_statistics: bool = False,
    quantization: Quantization | None = None,
) -> Target:
    """Open a classifier for attacks.

    Of an export's folder, ``ensemble.onnx`` is opened. A file that a manifest beside it lists must have the
    hash that the manifest records.

    Args:
        model: Path of a run directory, a ``.keras`` file, a SavedModel, an ``.onnx`` file or an export's
            folder; a Keras model images [N, H, W, C] in [0, 1] -> logits or probabilities; or an array
            function of the same kind, also as ``module:function``, which can only be queried. Several of
            them, as a list, are attacked as one ensemble.
        image_shape: (height, width, channels), needed for functions and for models of images of any size.
        interface: How the model takes images and returns scores, where it cannot be found by itself.
        combine: What an ensemble of several models averages: ``softmax`` or ``logits``.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: Open files whose hash differs from the manifest's.
        differentiable: False where only logits are needed, so that models without a gradient (such as
            quantised ONNX models) can be opened.
        batch_statistics: Normalise with the statistics of each batch. Only for Keras models: exported
            files have their moving statistics folded in.
        quantization: ``straight_through`` takes the gradient of ONNX models that quantise their activations
            as if they did not round. It is a direction, not a derivative.

    Returns:
        The target; ``recorded`` is the clean accuracy that its export's manifest records of this file.

    Raises:
        InputError: There is nothing that can be opened, a file is not the exported one, or a setting does
            not fit what is opened.

    Examples:
        >>> import numpy as np
        >>> import ncen_tf
        >>> def classify(images):  # logits [N, 2]: is the image dark or bright?
        ...     brightness = images.mean(axis=(1, 2, 3))
        ...     return np.stack([0.5 - brightness, brightness - 0.5], axis=1)
        >>> target = ncen_tf.open_target(classify, image_shape=(28, 28, 1), differentiable=False)
        >>> target.logits(np.ones((1, 28, 28, 1), np.float32))
        array([[[-0.5,  0.5]]], dtype=float32)
    """
    if isinstance(model, Target):
        return model
    if isinstance(model, Sequence) and not isinstance(model, str):
        settings: dict[str, Any] = {
            "image_shape": image_shape,
            "interface": interface,
            "providers": providers,
            "allow_unverified": allow_unverified,
            "differentiable": differentiable,
            "batch_statistics": batch_statistics,
            "quantization": quantization,
        }
        return CombinedTarget([open_target(each, **settings) for each in model], combine)
    path, name = (Path(model) if isinstance(model, (str, Path)) else None), ""
    if path is not None:
        require_target(path)
        if not path.exists():
            path, name, model = None, str(path), import_function(str(path))
    if path is not None and path.is_dir() and (path / MANIFEST).is_file():
        path = path / (ONNX_FILE if (path / ONNX_FILE).is_file() else SAVED_MODEL)
    is_onnx = path is not None and path.suffix == ".onnx"
    is_saved_model = path is not None and (path / "saved_model.pb").is_file()
    if batch_statistics and (is_onnx or is_saved_model):
        raise InputError(
            f"{path} cannot be measured with batch statistics, which exported files no longer compute: "
            "set `target` to the run directory or its ensemble.keras."
        )
    if quantization is not None and not is_onnx:
        raise InputError("`quantization` is for ONNX files.")
    if path is None and not (callable(model) and "keras" in sys.modules and _is_keras(model)):
        if image_shape is None or not callable(model):
            raise InputError("`target` is a path, a Keras model, or a function with its `image_shape`.")
        if differentiable:
            raise InputError(
                "A function has no gradient: attack it without gradients, with `suite`=blackbox."
            )
        if interface not in (None, ModelInterface()):
            raise InputError("A function takes images [N, H, W, C] in [0, 1]: it can have no `interface`.")
        return FunctionTarget(model, image_shape, name or getattr(model, "__name__", "function"))
    manifest = None if allow_unverified or path is None else _verified_manifest(path)
    target: Target
    if is_onnx and path is not None:
        target = OnnxTarget(path, interface, providers, differentiable, image_shape, quantization)
    else:
        target = _open_with_tensorflow(
            model if path is None else path, interface, image_shape, differentiable, batch_statistics
        )
    if manifest is not None and path is not None:
        target.class_names = manifest.class_names
        target.recorded = _recorded_accuracy(manifest, path.name)
    return target


def _open_with_tensorflow(
    model: Any,
    interface: ModelInterface | None,
    image_shape: tuple[int, int, int] | None,
    differentiable: bool,
    batch_statistics: bool,
) -> Target:
    """Open a Keras model, or the path of a run, a ``.keras`` file or a SavedModel."""
    # TensorFlow takes seconds to import, and ONNX files do without it.
    from ncen_tf.targets import saved_model_target, tensorflow_targets

    how: dict[str, Any] = {"batch_statistics": batch_statistics, "differentiable": differentiable}
    if not isinstance(model, Path):
        return tensorflow_targets.KerasTarget(model, image_shape=image_shape, interface=interface, **how)
    if (model / "saved_model.pb").is_file():
        return saved_model_target.open_saved_model(model, interface, image_shape, differentiable)
    if model.is_dir():
        if interface not in (None, ModelInterface()):
            raise InputError(f"{model} is a run of this package, which takes images in [0, 1] as they are.")
        return tensorflow_targets.open_run(model, **how)
    if model.suffix == ".keras":
        return tensorflow_targets.open_keras_file(model, interface=interface, image_shape=image_shape, **how)
    raise InputError(f"{model} is not a target: a file ends in .keras or .onnx.")


def _is_keras(model: object) -> bool:
    return isinstance(model, sys.modules["keras"].Model)


def _verified_manifest(path: Path) -> Manifest | None:
    """Read the manifest in the nearest folder above, if any, and check that it lists what is opened."""
    for folder in path.absolute().parents[:2]:
        if not (folder / MANIFEST).is_file():
            continue
        manifest = Manifest.read(folder)
        found = describe_files(path) if path.is_dir() else describe_files(path.parent)
        base = (path if path.is_dir() else path.parent).absolute().relative_to(folder)
        for name, entry in found.items():
            listed = manifest.files.get((base / name).as_posix())
            if (path.is_dir() or name == path.name) and listed != entry:
                raise InputError(
                    f"{path} is not the file that {folder / MANIFEST} lists ({name}): its sha256 differs. "
                    "Set `allow_unverified` to attack it all the same."
                )
        return manifest
    return None


def _recorded_accuracy(manifest: Manifest, name: str) -> RecordedAccuracy | None:
    """Return what a manifest records of a file of the whole ensemble; of a member it records nothing."""
    accuracy, reduced = manifest.accuracy, manifest.reduced_precision.get(name)
    if name in (ONNX_FILE, SAVED_MODEL):
        return RecordedAccuracy(
            value=accuracy.clean_accuracy,
            examples=accuracy.test_examples,
            predictions_sha256=accuracy.predictions_sha256,
        )
    if reduced is not None:
        return RecordedAccuracy(value=reduced.clean_accuracy, examples=accuracy.test_examples)
    return None
