"""Settings of what training minimises: penalties on how members relate, and adversarial training.

The formulas are in ``penalties.py``, the attack in ``adversary.py``; this module does not import TensorFlow.
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import LARGEST, field, settings

Coefficient = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


class Saved:
    """Base of settings that are saved with a Keras model."""

    def get_config(self) -> dict[str, Any]:
        """Return the fields."""
        return dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the object from what :meth:`get_config` returned."""
        return cls(**config)


class Regularizer(Saved):
    """Base of the regularizers: an object with ``term_names`` that Keras can save.

    Derive your own from :class:`GradientRegularizer` or :class:`PredictionRegularizer`.
    """

    term_names: ClassVar[tuple[str, ...]]
    """Names of the terms, which ``fit`` reports without their coefficients."""


class GradientRegularizer(Regularizer):
    """Base of penalties on the members' input gradients, which need second derivatives.

    A class of your own has ``__call__(self, gradients) -> Penalty`` with gradients [N, k, D] (D = H*W*C), see
    :class:`ncen_tf.ensembles.penalties.Penalty`, and ``term_names``.
    """


class PredictionRegularizer(Regularizer):
    """Base of penalties on the members' predictions.

    A class of your own has ``__call__(self, logits, labels) -> Penalty`` with logits [N, k, classes] and
    integer labels [N], see :class:`ncen_tf.ensembles.penalties.Penalty`, and ``term_names``.
    """


@settings
class NCE(GradientRegularizer):
    """Negative correlation: lambda_norm * L_norm + lambda_cos * L_cos, averaged over members.

    Luo et al., "Defending Adversarial Examples by Negative Correlation Ensemble", Eq. 10. L_norm is minus the
    squared relative deviation of a member's gradient norm from the mean norm, so a positive ``lambda_norm``
    spreads the gradient norms and a negative one balances them.

    Args:
        lambda_cos: Weight of the direction term L_cos (Eq. 2).
        lambda_norm: Weight of the magnitude term L_norm (Eq. 6).
        form: ``paper`` for the formulas, ``released`` for what the authors' released code computes.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.NCE(0.06, 0.04)
        NCE(lambda_cos=0.06, lambda_norm=0.04, form='paper', name='nce')
    """

    lambda_cos: Coefficient = Field(default=0.02, description="Weight of the direction term of NCE")
    lambda_norm: Coefficient = Field(default=0.02, description="Weight of the magnitude term of NCE")
    form: Literal["paper", "released"] = field(
        "nce_form", "paper", "Formulas of the paper, or of the authors' released code"
    )
    name: Literal["nce"] = "nce"

    term_names = ("l_cos", "l_norm")


@settings
class GAL(GradientRegularizer):
    """Gradient alignment loss: coefficient * log sum_{i<j} exp(cos(g_i, g_j)).

    Kariyappa & Qureshi, 2019, "Improving Adversarial Robustness of Ensembles with Diversity Training".

    Args:
        coefficient: Weight of the term.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.GAL(0.5).coefficient
        0.5
    """

    coefficient: Coefficient = field("gal_coefficient", 0.5, "Weight of GAL")
    name: Literal["gal"] = "gal"

    term_names = ("coherence",)


@settings
class GPMR(GradientRegularizer):
    """Gradient phase and magnitude regularization: lambda_div * L_div + lambda_eq * L_eq.

    Dabouei et al., 2020, "Exploiting Joint Robustness to Adversarial Perturbations". L_eq is in the units of
    the gradients, so their scale matters.

    Args:
        lambda_div: Weight of the direction term; Luo et al. use 0.1 for FashionMNIST, 0.04 for CIFAR-10.
        lambda_eq: Weight of the magnitude term.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.GPMR(lambda_div=0.04).lambda_eq
        10.0
    """

    lambda_div: Coefficient = Field(default=0.1, description="Weight of the direction term of GPMR")
    lambda_eq: Coefficient = Field(default=10.0, description="Weight of the magnitude term of GPMR")
    name: Literal["gpmr"] = "gpmr"

    term_names = ("l_div", "l_eq")


@settings
class ADP(PredictionRegularizer):
    """Adaptive diversity promoting: -alpha * H(mean probabilities) - beta * log det(M^T M).

    Pang et al., 2019, "Improving Adversarial Robustness via Promoting Ensemble Diversity", Eq. 5. They add it
    to the sum of the members' cross-entropies; here it is added to their mean, as every regularizer is. It
    needs fewer members than classes.

    Args:
        alpha: Weight of the entropy of the mean probabilities.
        beta: Weight of the diversity of the probabilities of wrong classes.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.ADP(alpha=2.0, beta=0.5).term_names
        ('entropy', 'log_diversity')
    """

    alpha: Coefficient = field("adp_alpha", 2.0, "Weight of the entropy of ADP")
    beta: Coefficient = field("adp_beta", 0.5, "Weight of the diversity of ADP")
    name: Literal["adp"] = "adp"

    term_names = ("entropy", "log_diversity")


@settings
class NCL(PredictionRegularizer):
    """Negative correlation learning: coefficient * (F_i - Fbar) . sum_{j != i} (F_j - Fbar), averaged.

    Liu & Yao, 1999, "Ensemble learning via negative correlation", Eq. 4. F_i are a member's probabilities,
    Fbar is their mean. The deviations sum to 0, so each product is minus the squared distance of a member
    from the mean: a positive coefficient spreads the predictions.

    Args:
        coefficient: Weight of the term.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.NCL(0.5).term_names
        ('correlation',)
    """

    coefficient: Coefficient = field("ncl_coefficient", 0.5, "Weight of NCL")
    name: Literal["ncl"] = "ncl"

    term_names = ("correlation",)


@settings
class TRS(GradientRegularizer):
    """Transferability reduced smooth training: gradients that differ in direction and are short nearby.

    lambda_sim * mean_{i<j} |cos(g_i, g_j)| + lambda_smooth * mean_i max |g_i(x_i)|. The maximum is over
    images x_i within ``eps`` (Linf), estimated by ``steps`` projected sign steps of eps / 3 from the image.
    Yang et al., 2021, "TRS: Transferability Reduced Ensemble via Promoting Gradient Diversity and Model
    Smoothness". They search one x for all members; here each has its own, which gives an upper bound.

    Args:
        lambda_sim: Weight of the similarity of directions.
        lambda_smooth: Weight of the gradients' length nearby.
        eps: Linf bound of the search, for images in [0, 1].
        steps: Number of steps of the search; each costs a second derivative.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.TRS(lambda_sim=3.0, lambda_smooth=3.0, eps=8 / 255).steps
        6
    """

    lambda_sim: Coefficient = Field(default=3.0, description="Weight of the gradients' similarity in TRS")
    lambda_smooth: Coefficient = Field(default=3.0, description="Weight of the gradients' length in TRS")
    eps: float = field("trs_eps", 0.1, "Linf bound of TRS's search, for images in [0, 1]", gt=0, le=1)
    steps: int = field("trs_steps", 6, "Number of steps of TRS's search", ge=1)
    name: Literal["trs"] = "trs"

    term_names = ("similarity", "steepness")


@settings
class DVERGE(Regularizer):
    """Members trained on one another's non-robust features, in place of the images themselves.

    For each member j, images within ``eps`` (Linf) of the batch are made whose features, at a layer of the
    member drawn in each step, are as close as possible to those of another image. Member i minimises the
    sum over j != i of its cross-entropy on them, with the labels of the batch: it learns not to rely on
    what j relies on. Yang et al., 2020, "DVERGE: Diversifying Vulnerabilities for Enhanced Robust Generation
    of Ensembles", Eq. 1 and 4. With adversarial training, the cross-entropy on its images is added.

    The authors start from members that are trained already: continue a run of ``none``.

    Args:
        eps: Linf bound of the images, which are in [0, 1]; the authors take 0.07 for CIFAR-10.
        steps: Number of sign steps with momentum.
        step_size: Size of a step; by default eps / steps.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.DVERGE(eps=0.07).steps
        10
    """

    eps: float = field("dverge_eps", 0.1, "Linf bound of DVERGE's images, for images in [0, 1]", gt=0, le=1)
    steps: int = field("dverge_steps", 10, "Number of steps that DVERGE's images take", ge=1)
    step_size: float | None = field(
        "dverge_step_size", None, "Size of each of DVERGE's steps (default: eps / steps)", gt=0, le=LARGEST
    )
    name: Literal["dverge"] = "dverge"

    term_names = ()


@settings
class AdversarialTraining(Saved):
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

    @model_validator(mode="after")
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
