"""Settings of adversarial training.

The attack is in ``adversary.py``; this module does not import TensorFlow.
"""

import dataclasses
from typing import Any, Literal, Self

import pydantic
from pydantic import Field

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import LARGEST, field, settings


@settings
class AdversarialTraining:
    """Training on images that a projected gradient attack makes in each step.

    ``pgd`` puts the adversarial images in place of the clean ones, for cross-entropy and regularizer alike
    (Madry et al., 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks"; with one step,
    Wong et al., 2020, "Fast is better than free"). ``trades`` trains on the clean images and adds ``beta``
    times the members' mean KL divergence from their prediction for the clean image to that for the
    adversarial image (Zhang et al., 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy", Eq. 5). The attack maximises the cross-entropy for ``pgd``, the divergence for ``trades``.

    Args:
        form: ``pgd`` or ``trades``.
        eps: Linf perturbation bound, for images in [0, 1].
        steps: Number of gradient steps.
        step_size: Size of a step; by default 1.25 eps for a single step, 2.5 eps / steps for more.
        random_start: Whether to start at a random point within ``eps``; ``trades`` needs it, because the
            divergence has no gradient at the clean image.
        loss: ``ensemble`` makes one image for all members, from the loss of their mean prediction;
            ``members`` makes one image for each member, from its own loss.
        fraction: Share of each batch, its first images, that is attacked.
        beta: Weight of the divergence, for ``trades``.

    Raises:
        InputError: A value is out of range, or ``trades`` is to start at the clean image.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.AdversarialTraining("trades", eps=8 / 255, steps=5).beta
        6.0
    """

    form: Literal["pgd", "trades"] = Field(default="pgd", description="Form of adversarial training")
    eps: float = field("at_eps", 0.1, "Linf bound of the training attack, for images in [0, 1]", gt=0, le=1)
    steps: int = field("at_steps", 10, "Number of gradient steps of the training attack", ge=1)
    step_size: float | None = field(
        "at_step_size",
        None,
        "Size of each step (default: 1.25 eps for one step, 2.5 eps / steps for more)",
        gt=0,
        le=LARGEST,
    )
    random_start: bool = field("at_random_start", True, "Start of the attack at a random point within eps")
    loss: Literal["ensemble", "members"] = field(
        "at_loss", "ensemble", "One adversarial image for the whole ensemble, or one for each member"
    )
    fraction: float = field("at_fraction", 1.0, "Fraction of each batch that is attacked", gt=0, le=1)
    beta: float = field("trades_beta", 6.0, "Weight of the divergence in TRADES", gt=0, le=LARGEST)

    @pydantic.model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.form == "trades" and not self.random_start:
            raise InputError(
                "`form` trades needs `random_start`: the divergence has no gradient at the clean image."
            )
        return self

    @property
    def resolved_step_size(self) -> float:
        """``step_size``, or the default of this ``eps`` and ``steps``."""
        if self.step_size is not None:
            return self.step_size
        return 1.25 * self.eps if self.steps == 1 else 2.5 * self.eps / self.steps

    def get_config(self) -> dict[str, Any]:
        """Return the fields, for saving with a Keras model."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the object from what ``get_config`` returned."""
        return cls(**config)
