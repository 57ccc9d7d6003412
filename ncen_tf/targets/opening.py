"""Opens whatever a path holds as a target."""

import dataclasses
from pathlib import Path

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import MANIFEST, ONNX_FILE, SAVED_MODEL, Manifest, describe_files
from ncen_tf.targets.onnx_target import OnnxInterface
from ncen_tf.targets.target import Target


@dataclasses.dataclass(frozen=True)
class OpenedTarget:
    """A target and, if it is part of an export, the manifest that vouches for it."""

    path: Path
    target: Target
    manifest: Manifest | None

    @property
    def recorded_ace(self) -> float | None:
        """ACE in [0, 1] that the manifest records of this very file; of members it records none."""
        if self.manifest is None:
            return None
        if self.path.name in (ONNX_FILE, SAVED_MODEL):
            return self.manifest.accuracy.clean_accuracy
        reduced = self.manifest.reduced_precision.get(self.path.name)
        return reduced.clean_accuracy if reduced else None


def open_target(
    path: Path,
    *,
    interface: OnnxInterface | None = None,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
    differentiable: bool = True,
    batch_statistics: bool = False,
) -> OpenedTarget:
    """Open a run directory, a ``.keras`` file, a SavedModel, an ``.onnx`` file or an export.

    Of an export's folder, ``ensemble.onnx`` is taken. What a manifest beside a file lists must have the
    hash that the manifest records.

    Args:
        path: what to open.
        interface: how an ONNX model of another origin takes images.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: open files whose hash differs from the manifest's.
        differentiable: False where only answers are needed, so that ONNX models with operations that have
            no gradient (quantised ones) can be opened.
        batch_statistics: normalise with the statistics of each batch; runs and ``.keras`` files only, for
            exported files have their moving statistics folded in.

    Raises:
        InputError: nothing there, nothing that is a target, a file that is not the exported one, or an
            interface for what is no ONNX file.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: --target is a run, .keras, SavedModel, .onnx or export.")
    if path.is_dir() and (path / MANIFEST).is_file():
        path = path / (ONNX_FILE if (path / ONNX_FILE).is_file() else SAVED_MODEL)
    if batch_statistics and (path.suffix == ".onnx" or (path / "saved_model.pb").is_file()):
        raise InputError(
            f"{path} cannot be measured with batch statistics, which exported files no longer take: "
            "give the run directory or its ensemble.keras as --target."
        )
    if path.suffix != ".onnx" and interface not in (None, OnnxInterface()):
        raise InputError(
            f"{path} is no ONNX file, and --input_layout, --output, --output_name, --mean and --std are for "
            "those."
        )
    manifest = None if allow_unverified else _verified_manifest(path)
    target = _open(path, interface, providers, differentiable, batch_statistics)
    return OpenedTarget(path, target, manifest)


def _open(
    path: Path,
    interface: OnnxInterface | None,
    providers: tuple[str, ...],
    differentiable: bool,
    batch_statistics: bool,
) -> Target:
    from ncen_tf.targets.keras_target import open_keras_file, open_run
    from ncen_tf.targets.onnx_target import OnnxTarget
    from ncen_tf.targets.saved_model_target import SavedModelTarget

    if path.is_dir() and (path / "saved_model.pb").is_file():
        return SavedModelTarget(path)
    if path.is_dir():
        return open_run(path, batch_statistics)
    if path.suffix == ".keras":
        return open_keras_file(path, batch_statistics)
    if path.suffix == ".onnx":
        return OnnxTarget(path, interface, providers, differentiable)
    raise InputError(f"{path} is not a target: a file ends in .keras or .onnx.")


def _verified_manifest(path: Path) -> Manifest | None:
    """The manifest in the nearest folder above that has one, if it lists what is opened."""
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
                    "--allow_unverified attacks it all the same."
                )
        return manifest
    return None
