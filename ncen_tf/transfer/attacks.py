"""The attacks of transfer matrices, by the names of the program's flag."""

from collections.abc import Sequence

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.cleverhans_attacks import MomentumIterative, ProjectedGradientDescent
from ncen_tf.base.errors import InputError

ATTACKS: dict[str, type[ProjectedGradientDescent | MomentumIterative]] = {
    "pgd": ProjectedGradientDescent,
    "mi_fgsm": MomentumIterative,
}
MI_FGSM_STEP = 0.01


def build_attacks(
    names: Sequence[str], eps: float, steps: int, step_size: float | None = None
) -> tuple[Attack, ...]:
    """Attacks with one radius and one number of steps.

    Args:
        names: of :data:`ATTACKS`; a name that is given twice counts once.
        eps: radius in Linf, images in [0, 1].
        steps: gradient steps, at least 1.
        step_size: of each step; ``None`` takes the paper's, which is eps for PGD and 0.01 for MI-FGSM
            (Luo et al., section IV-B).

    Raises:
        InputError: no name, an unknown one, or a setting that the attack refuses.
    """
    unknown = [name for name in names if name not in ATTACKS]
    if unknown or not names:
        got = f"got {unknown[0]!r}" if unknown else "none was given"
        raise InputError(f"--attacks lists some of {', '.join(ATTACKS)}; {got}.")
    paper = {"pgd": eps, "mi_fgsm": MI_FGSM_STEP}
    return tuple(
        ATTACKS[name](eps=eps, steps=steps, step_size=paper[name] if step_size is None else step_size)
        for name in dict.fromkeys(names)
    )
