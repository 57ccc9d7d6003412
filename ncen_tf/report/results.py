"""What a suite of attacks measured, as typed models that read and write their JSON."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import PrivateAttr

from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings
from ncen_tf.report import table
from ncen_tf.report.curve import RobustnessCurve
from ncen_tf.report.gate import Gate, GateResult
from ncen_tf.report.measured import Norm as Norm, Proportion as Proportion, TargetInfo as TargetInfo
from ncen_tf.targets.target import RecordedAccuracy as RecordedAccuracy, Target


class AttackRow(Settings):
    """One attack of a suite."""

    attack: str
    norm: Norm
    eps: float
    """Perturbation bound in the norm; images are in [0, 1]."""
    settings: dict[str, Any]
    """Further settings of the attack."""
    robust_accuracy: Proportion
    """Over all examples. In a cumulative suite, of this attack and all before it at this norm and eps."""
    aae: Proportion
    """The paper's measure: the same among the examples whose clean image is classified correctly."""
    mean_l2_broken: float | None
    """Mean L2 size of the changes that broke an example; ``None`` if none did."""
    mean_linf_broken: float | None
    """Mean Linf size of the changes that broke an example; ``None`` if none did."""
    attacked: int
    """Examples that the attack was run on."""
    broken: int
    """Examples that are classified correctly when clean and wrongly under this attack."""
    queries: int
    """Forward passes, one an image."""
    gradients: int
    """Backward passes, one an image."""
    queries_per_image: float
    gradients_per_image: float
    seconds: float


class WorstCase(Settings):
    """The per-example worst case over all attacks at one norm and eps."""

    attacks: tuple[str, ...]
    norm: Norm
    eps: float
    robust_accuracy: Proportion
    aae: Proportion


class ClassAccuracy(Settings):
    """One class of the attacked images."""

    label: int
    name: str
    clean_accuracy: Proportion
    robust_accuracy: Proportion
    """Per-example worst case over every attack of the report, at all its norms and eps."""


class GradientCheck(Settings):
    """One check for masked gradients; ``docs/masked_gradients.md`` explains each name."""

    name: str
    passed: bool
    finding: str
    """What was measured, for people."""


class MaskedGradients(Settings):
    """The verdict on a target's gradients."""

    clean: bool
    """Whether every check passed."""
    examples: int
    """Examples that the target's gradients were examined on."""
    eps: float | None
    """Linf radius of the examination; ``None`` if only the suite's own results were judged."""
    checks: tuple[GradientCheck, ...]


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack on all or some of N images."""

    settings: dict[str, Any]
    attacked: npt.NDArray[np.bool_]
    """[N]; what was not attacked counts as its clean image."""
    predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each adversarial image."""
    l2: npt.NDArray[np.float32]
    """[N], Euclidean size of each change; images are in [0, 1]."""
    linf: npt.NDArray[np.float32]
    """[N], largest change of a pixel."""
    shown: npt.NDArray[np.float32]
    """[at most 8, H, W, C], adversarial images: of the broken ones, those of the lowest clean margins."""
    queries_per_image: float
    """Forward passes for each image that was attacked."""
    gradients_per_image: float
    seconds: float
    margins: npt.NDArray[np.float32]
    """[N], log-probability of the true class less that of the best other one, for each adversarial image."""
    shown_index: npt.NDArray[np.intp]
    """Positions of the shown images among the N, in ascending order."""

    @property
    def queries(self) -> int:
        """Forward passes for all images that were attacked."""
        return round(self.queries_per_image * int(self.attacked.sum()))

    @property
    def gradients(self) -> int:
        """Backward passes for all images that were attacked."""
        return round(self.gradients_per_image * int(self.attacked.sum()))

    def among(
        self,
        attacked: npt.NDArray[np.bool_],
        clean: npt.NDArray[np.int32],
        clean_margins: npt.NDArray[np.float32],
    ) -> "AttackResult":
        """Make room for images that were not attacked.

        Args:
            attacked: bool [N], which of all the images these are.
            clean: int [N], the ensemble's class for each clean image.
            clean_margins: [N], the margin of each clean image.
        """
        predictions, margins = clean.copy(), clean_margins.copy()
        l2, linf = np.zeros((2, len(clean)), np.float32)
        predictions[attacked], l2[attacked], linf[attacked] = self.predictions, self.l2, self.linf
        margins[attacked] = self.margins
        return dataclasses.replace(
            self,
            attacked=attacked,
            predictions=predictions,
            l2=l2,
            linf=linf,
            margins=margins,
            shown_index=np.flatnonzero(attacked)[self.shown_index],
        )


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """What the attacks of a suite did to each of N images, beside the predictions on the clean ones."""

    labels: npt.NDArray[np.int32]
    """[N], the true classes."""
    clean_predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each clean image."""
    margins: npt.NDArray[np.float32]
    """[N], log-probability of the true class minus that of the likeliest other one, on the clean image."""
    attacks: list[AttackResult]
    class_names: tuple[str, ...] = ()
    resumed: int = 0
    """Number of attacks that an earlier run had finished."""

    def broken_by(self, attack: AttackResult) -> npt.NDArray[np.bool_]:
        """Tell which images [N] are classified correctly when clean and wrongly under an attack."""
        return (self.clean_predictions == self.labels) & (attack.predictions != self.labels)

    def names_of(self, classes: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
        """Return the name of each class, ``class 12`` where a model of another origin knows more classes."""
        known = dict(enumerate(self.class_names))
        return np.array([known.get(int(number), f"class {number}") for number in classes], object)


@dataclasses.dataclass(frozen=True)
class ShownImages:
    """A few images of one attack, for the page of a report."""

    clean: npt.NDArray[np.float32]
    """[n, H, W, C] in [0, 1]."""
    adversarial: npt.NDArray[np.float32]
    """The same after the attack."""
    classes: list[tuple[str, str, str]]
    """Names of each image's true class, and of the classes predicted before and after the attack."""


class Report(Settings):
    """What a suite of attacks measured on one classifier.

    ``print(report)`` shows it as a table. ``docs/report.md`` describes every field of its JSON file.

    Examples:
        >>> import ncen_tf
        >>> report = ncen_tf.Report.read("exports/reference.strict.json")
        >>> report.clean_accuracy.value, report.worst_case[0].robust_accuracy.value
        (0.874, 0.76)
        >>> print(report.check(ncen_tf.Gate(clean_accuracy=0.9)))
        gate missed: clean accuracy: 0.8740, at least 0.9000 is required
    """

    format: Literal[3] = 3
    protocol: str
    """Name of the suite."""
    objective: str
    """Loss that gradient attacks maximise."""
    dataset: str
    examples: int
    """Number of images that were attacked."""
    cumulative: bool
    """Whether each attack was run only on the examples that the attacks before it left correct."""
    seed: int
    target: TargetInfo
    clean_accuracy: Proportion
    attacks: tuple[AttackRow, ...]
    worst_case: tuple[WorstCase, ...]
    classes: tuple[ClassAccuracy, ...] = ()
    """One entry for each class with an image; empty in reports of earlier versions."""
    curves: tuple[RobustnessCurve, ...] = ()
    """Robust accuracy against eps, one curve for each norm that was asked for."""
    masked_gradients: MaskedGradients | None = None
    """``None`` if the gradients were not examined."""
    recorded: RecordedAccuracy | None = None
    """``None`` if no clean accuracy is recorded with the target."""
    seconds: float
    """Time of all attacks."""
    environment: dict[str, Any]
    _images: tuple[ShownImages, ...] = PrivateAttr(())
    """For each attack, images for the page; empty in a report that was read from a file."""
    _result: SuiteResult | None = PrivateAttr(None)
    """For the table of images; ``None`` in a report that was read from a file."""

    def __str__(self) -> str:
        return table.format_report(self)

    def __eq__(self, other: object) -> bool:
        # Pydantic would compare the private images too, which a file does not hold.
        return isinstance(other, Report) and self.model_dump() == other.model_dump()

    def save(self, folder: Path | str) -> None:
        """Write the report into a folder, which is made if it is missing.

        The files are ``report.json``, ``report.html`` and, unless the report was read from a file,
        ``images.csv`` and ``images.parquet``, a row for each image.
        """
        from ncen_tf.report.page import render_page  # Matplotlib takes a second to import.

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder / "report.json")
        with replacing(folder / "report.html") as temporary:
            temporary.write_text(render_page(self), encoding="utf-8")
        if self._result is not None:
            from ncen_tf.report.metrics import per_image_table

            table_of_images = per_image_table(self._result, self.curves)
            with replacing(folder / "images.csv") as temporary:
                table_of_images.to_csv(temporary, index=False, lineterminator="\n")
            with replacing(folder / "images.parquet") as temporary:
                table_of_images.to_parquet(temporary, index=False)

    def check(self, gate: Gate | Path | str) -> GateResult:
        """Compare the report with the thresholds of a gate.

        Args:
            gate: The gate, or the TOML file that it is read from (``docs/gate.md``).

        Raises:
            InputError: The gate cannot be read, or asks for what the report does not have.
        """
        return (gate if isinstance(gate, Gate) else Gate.read(gate)).check(self)


def describe_target(target: Target) -> TargetInfo:
    """Describe a target for reports."""
    return TargetInfo(
        description=target.description,
        sha256=target.sha256,
        members=target.members,
        gives_logits=target.gives_logits,
        providers=tuple(target.providers),
        signatures=target.signatures,
    )
