"""Every attack, by the name that suites, gates and reports use."""

from ncen_tf.attack.art_attacks import Boundary, HopSkipJump, Zoo
from ncen_tf.attack.attack import Attack
from ncen_tf.attack.auto_pgd_attacks import AutoPgdCrossEntropy, AutoPgdLogitRatio, AutoPgdTargeted
from ncen_tf.attack.basic_iterative import BasicIterative
from ncen_tf.attack.diverse_input import DiverseInput
from ncen_tf.attack.fast_gradient import FastGradient
from ncen_tf.attack.foolbox_attacks import CarliniWagner, DeepFool
from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attack.restarted_pgd import RestartedPgd
from ncen_tf.attack.skip_gradient import SkipGradient
from ncen_tf.attack.square import Square
from ncen_tf.attack.surrogate_transfer import MeanLogitTransfer, MemberTransfer

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        FastGradient,
        MomentumIterative,
        ProjectedGradientDescent,
        BasicIterative,
        DiverseInput,
        SkipGradient,
        RestartedPgd,
        AutoPgdCrossEntropy,
        AutoPgdLogitRatio,
        AutoPgdTargeted,
        MeanLogitTransfer,
        MemberTransfer,
        Square,
        DeepFool,
        CarliniWagner,
        Zoo,
        Boundary,
        HopSkipJump,
    )
}
