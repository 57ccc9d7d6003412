"""What every measurement states: shares with their intervals, and the classifier that was attacked."""

from typing import Literal

from scipy.stats import binomtest

from ncen_tf.base.settings import Settings
from ncen_tf.targets.interface import Signature as Signature

Norm = Literal["Linf", "L2", "L1", "L0"]
CONFIDENCE = 0.95


class Proportion(Settings):
    """A share of examples with its 95 % Wilson interval."""

    value: float | None
    """``count / total``, in [0, 1]; ``None`` of no examples."""
    count: int
    total: int
    interval: tuple[float, float]


class TargetInfo(Settings):
    """The classifier that was attacked."""

    description: str
    sha256: str
    members: int
    gives_logits: bool
    providers: tuple[str, ...]
    """Execution providers that onnxruntime reports; empty elsewhere."""
    signatures: tuple[Signature, ...] = ()
    """How images enter each of its models and what comes out, as found or told; empty for functions."""


def proportion(count: int, total: int) -> Proportion:
    """Make a share of its counts, with its 95 % Wilson score interval (Wilson, 1927)."""
    if not total:
        return Proportion(value=None, count=0, total=0, interval=(0.0, 1.0))
    low, high = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(value=count / total, count=count, total=total, interval=(float(low), float(high)))
