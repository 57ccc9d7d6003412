"""From a run's settings to what it minimises."""

from typing import cast

from ncen_tf.ensembles.adp import ADP
from ncen_tf.ensembles.gal import GAL
from ncen_tf.ensembles.gpmr import GPMR
from ncen_tf.ensembles.nce import NCE
from ncen_tf.ensembles.regularizer import Regularizer
from ncen_tf.train.adversarial_training import AdversarialTraining, Form
from ncen_tf.train.adversary import Adversary, AdversaryLoss
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
            return NCE(config.lambda_cos, config.lambda_norm, config.nce_form)
    return None


def make_adversarial_training(config: TrainingConfig) -> AdversarialTraining | None:
    """The adversary that a run's settings ask for; ``None`` for training on the images as they are."""
    if config.adversarial_training == "none":
        return None
    adversary = Adversary(
        config.at_eps,
        config.at_steps,
        config.at_step_size,
        config.at_random_start,
        cast(AdversaryLoss, config.at_loss),
    )
    return AdversarialTraining(
        adversary, cast(Form, config.adversarial_training), config.at_fraction, config.trades_beta
    )
