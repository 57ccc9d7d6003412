"""Settings of the regularizers."""

from typing import Literal

from pydantic import Field

from ncen_tf.base.settings import LARGEST, settings


@settings
class NCE:
    """Negative-correlation penalty (Luo et al., Eq. 10)."""

    lambda_cos: float = Field(default=0.02, ge=-LARGEST, le=LARGEST, description="Weight of L_cos")
    lambda_norm: float = Field(default=0.02, ge=-LARGEST, le=LARGEST, description="Weight of L_norm")
    form: Literal["paper", "released"] = Field(
        default="paper",
        description="Formulas of the paper, or those of the authors' code",
        json_schema_extra={"flag": "nce_form"},
    )
    name: Literal["nce"] = "nce"


@settings
class GAL:
    """Gradient alignment loss (Kariyappa and Qureshi)."""

    coefficient: float = Field(
        default=0.5,
        ge=-LARGEST,
        le=LARGEST,
        description="Weight of the coherence",
        json_schema_extra={"flag": "gal_coefficient"},
    )
    name: Literal["gal"] = "gal"


@settings
class GPMR:
    """Gradient phase and magnitude regularization (Dabouei et al.)."""

    lambda_div: float = Field(default=0.1, ge=-LARGEST, le=LARGEST, description="Weight of L_div")
    lambda_eq: float = Field(default=10.0, ge=-LARGEST, le=LARGEST, description="Weight of L_eq")
    name: Literal["gpmr"] = "gpmr"


@settings
class ADP:
    """Adaptive diversity promoting (Pang et al.)."""

    alpha: float = Field(
        default=2.0,
        ge=-LARGEST,
        le=LARGEST,
        description="Weight of the entropy",
        json_schema_extra={"flag": "adp_alpha"},
    )
    beta: float = Field(
        default=0.5,
        ge=-LARGEST,
        le=LARGEST,
        description="Weight of the diversity",
        json_schema_extra={"flag": "adp_beta"},
    )
    name: Literal["adp"] = "adp"
