"""What a suite of attacks measured, as typed models that read and write their JSON."""

from typing import Any, Literal

from ncen_tf.base.settings import Settings

Norm = Literal["Linf", "L2"]


class Proportion(Settings):
    """A share of examples with its 95 % Wilson interval."""

    value: float | None
    """``count / total``, in [0, 1]; ``None`` of no examples."""
    count: int
    total: int
    interval: tuple[float, float]


class AttackRow(Settings):
    """One attack of a suite."""

    attack: str
    norm: Norm
    eps: float
    settings: dict[str, Any]
    """Further settings of the attack."""
    robust_accuracy: Proportion
    """Over all examples. In a cumulative suite, of this attack and all before it at this norm and eps."""
    aae: Proportion
    """The paper's measure: the same among the examples that are right when clean."""
    mean_l2_broken: float | None
    """Mean L2 size of the changes that broke an example; images are in [0, 1]."""
    mean_linf_broken: float | None
    attacked: int
    """Examples that the attack was run on."""
    broken: int
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


class GradientCheck(Settings):
    """One check for masked gradients."""

    name: str
    passed: bool
    finding: str


class MaskedGradients(Settings):
    """The verdict on a target's gradients."""

    clean: bool
    examples: int
    eps: float | None
    checks: tuple[GradientCheck, ...]


class TargetInfo(Settings):
    """The classifier that was attacked."""

    description: str
    sha256: str
    members: int
    gives_logits: bool
    providers: tuple[str, ...]


class RecordedAccuracy(Settings):
    """The clean accuracy that an export's manifest or a run's summary records."""

    value: float
    examples: int
    """Number of test images it was measured on."""
    predictions_sha256: str | None = None


class Report(Settings):
    """What a suite measured on one target."""

    format: Literal[3] = 3
    protocol: str
    """Name of the suite."""
    objective: str
    dataset: str
    examples: int
    cumulative: bool
    seed: int
    target: TargetInfo
    clean_accuracy: Proportion
    attacks: tuple[AttackRow, ...]
    worst_case: tuple[WorstCase, ...]
    masked_gradients: MaskedGradients | None = None
    recorded: RecordedAccuracy | None = None
    seconds: float
    environment: dict[str, Any]
