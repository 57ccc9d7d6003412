"""Members as targets of their own: of a run, of an export, or of several files."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import MANIFEST
from ncen_tf.targets.keras_target import KerasTarget
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target


class MemberTarget:
    """One member of a target that runs its members together.

    Args:
        target: the ensemble.
        index: of the member, in [0, target.members).
    """

    members = 1

    def __init__(self, target: Target, index: int) -> None:
        self._target, self._index = target, index
        self.description = f"member {index} of {target.description}"
        self.sha256, self.providers = target.sha256, target.providers
        self.image_shape, self.classes = target.image_shape, target.classes
        self.gives_logits = target.gives_logits

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._target.member_logits(images)[:, self._index : self._index + 1]


def open_members(
    paths: Sequence[Path],
    *,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
) -> list[Target]:
    """Every member of everything named, each as a target with one member.

    Of an export with member files those are taken, for ``ensemble.onnx`` computes all members for the
    sake of one.

    Args:
        paths: run directories, ``.keras`` files, SavedModels, ``.onnx`` files or exports.
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: open files whose hash differs from their manifest's.

    Raises:
        InputError: what :func:`ncen_tf.targets.opening.open_target` refuses, fewer than two members, or
            members that differ in image shape or classes.
    """
    files = [file for path in paths for file in _member_files(path) or [path]]
    opened = [open_target(f, providers=providers, allow_unverified=allow_unverified).target for f in files]
    members = [member for target in opened for member in split_members(target)]
    if len(members) < 2:
        raise InputError(
            f"{members[0].description} is a single member, and transfer needs two: name several models with "
            "--targets=ONE,OTHER."
        )
    first = members[0]
    for member in members[1:]:
        if (tuple(member.image_shape), member.classes) != (tuple(first.image_shape), first.classes):
            raise InputError(
                "Members must take images of one shape and know the same number of classes: "
                f"{_interface(first)}; {_interface(member)}."
            )
    return members


def split_members(target: Target) -> list[Target]:
    """The members of a target as targets, without the others' computation where that can be avoided."""
    if isinstance(target, KerasTarget):
        return [
            KerasTarget(member, f"member {index} of {target.description}", target.sha256)
            for index, member in enumerate(target.keras_model.members)
        ]
    if target.members == 1:
        return [target]
    return [MemberTarget(target, index) for index in range(target.members)]


def _member_files(path: Path) -> list[Path]:
    if not (path / MANIFEST).is_file():
        return []
    return sorted((path / "members").glob("member_*.onnx"), key=lambda file: (len(file.name), file.name))


def _interface(member: Target) -> str:
    return f"{member.description} takes {tuple(member.image_shape)} and knows {member.classes} classes"
