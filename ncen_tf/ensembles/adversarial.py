"""Settings of adversarial training."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import LARGEST, settings


@settings
class AdversarialTraining:
    """Train on adversarial images (``pgd``), or near the predictions on clean images (``trades``)."""

    form: Literal["pgd", "trades"] = "pgd"
    eps: float = Field(
        default=0.1,
        gt=0,
        le=LARGEST,
        description="Linf bound of the training attack, for images in [0, 1]",
        json_schema_extra={"flag": "at_eps"},
    )
    steps: int = Field(
        default=10,
        ge=1,
        description="Number of gradient steps of the training attack",
        json_schema_extra={"flag": "at_steps"},
    )
    step_size: float | None = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="Size of each step (default: 1.25 eps for one step, 2.5 eps / steps for more)",
        json_schema_extra={"flag": "at_step_size"},
    )
    random_start: bool = Field(
        default=True,
        description="Start of the attack at a random point within the bound",
        json_schema_extra={"flag": "at_random_start"},
    )
    loss: Literal["ensemble", "members"] = Field(
        default="ensemble",
        description="One adversarial image for the whole ensemble, or one for each member",
        json_schema_extra={"flag": "at_loss"},
    )
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Fraction of each batch that is attacked",
        json_schema_extra={"flag": "at_fraction"},
    )
    beta: float = Field(
        default=6.0,
        gt=0,
        le=LARGEST,
        description="Weight of the divergence in TRADES",
        json_schema_extra={"flag": "trades_beta"},
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.form == "trades" and not self.random_start:
            raise InputError("TRADES has no gradient at the clean image: it needs `random_start`.")
        return self
