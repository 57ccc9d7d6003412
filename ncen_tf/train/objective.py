"""From a run's settings to what it minimises."""

from typing import Any, cast

from ncen_tf.ensembles.adversarial import AdversarialTraining
from ncen_tf.ensembles.regularizers import ADP, GAL, GPMR, NCE, Regularizer
from ncen_tf.train.config import TrainingConfig


def make_regularizer(config: TrainingConfig) -> Regularizer | None:
    """The regularizer that a run's settings ask for; ``None`` for plain cross-entropy."""
    match config.regularizer:
        case "gal":
            return GAL(config.gal_coefficient)
        case "gpmr":
            return GPMR(config.lambda_div, config.lambda_eq)
        case "adp":
            return ADP(config.adp_alpha, config.adp_beta)
        case "nce":
            return NCE(config.lambda_cos, config.lambda_norm, cast(Any, config.nce_form))
    return None


def make_adversarial_training(config: TrainingConfig) -> AdversarialTraining | None:
    """The adversary that a run's settings ask for; ``None`` for training on the images as they are."""
    if config.adversarial_training == "none":
        return None
    return AdversarialTraining(
        cast(Any, config.adversarial_training),
        config.at_eps,
        config.at_steps,
        config.at_step_size,
        config.at_random_start,
        cast(Any, config.at_loss),
        config.at_fraction,
        config.trades_beta,
    )
