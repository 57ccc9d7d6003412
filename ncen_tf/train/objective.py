"""From a run's settings to what it minimises."""

from ncen_tf.ensembles import adp, gal, gpmr, nce
from ncen_tf.ensembles import regularizers as settings
from ncen_tf.ensembles.regularizer import Regularizer
from ncen_tf.train.adversarial_training import AdversarialTraining
from ncen_tf.train.adversary import Adversary
from ncen_tf.train.config import TrainConfig


def make_regularizer(config: TrainConfig) -> Regularizer | None:
    match config.regularizer:
        case settings.GAL(coefficient):
            return gal.GAL(coefficient)
        case settings.GPMR(lambda_div, lambda_eq):
            return gpmr.GPMR(lambda_div, lambda_eq)
        case settings.ADP(alpha, beta):
            return adp.ADP(alpha, beta)
        case settings.NCE(lambda_cos, lambda_norm, form):
            return nce.NCE(lambda_cos, lambda_norm, form)
    return None


def make_adversarial_training(config: TrainConfig) -> AdversarialTraining | None:
    at = config.adversarial_training
    if at is None:
        return None
    size = at.step_size or (1.25 * at.eps if at.steps == 1 else 2.5 * at.eps / at.steps)
    adversary = Adversary(at.eps, at.steps, size, at.random_start, at.loss)
    return AdversarialTraining(adversary, at.form, at.fraction, at.beta)
