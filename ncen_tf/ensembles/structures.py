"""Names of ensembles and members: the paper's Ensemble1-4 and explicit lists."""

import re

from ncen_tf.base.errors import InputError

UNIFORM_DEPTH = {"Ensemble1": 20, "Ensemble2": 26, "Ensemble3": 32}
STRUCTURES = (*UNIFORM_DEPTH, "Ensemble4")


def structure_architecture(structure: str, members: int) -> tuple[str, ...]:
    """Members of a structure of the paper (section IV-A).

    Ensemble1-3 are ``members`` times ResNet20, 26 or 32; Ensemble4 mixes the three depths.

    Args:
        structure: ``Ensemble1`` .. ``Ensemble4``.
        members: 3, 4 or 5.

    Returns:
        Member names, shallow first, e.g. ``("resnet20", "resnet26", "resnet32")``.

    Raises:
        InputError: unknown structure or number of members.
    """
    if structure not in STRUCTURES:
        raise InputError(f"--structure is one of {', '.join(STRUCTURES)}; got {structure!r}.")
    if members not in (3, 4, 5):
        raise InputError(
            f"--members is 3, 4 or 5; got {members}. Other sizes: list them with --architecture."
        )
    if structure in UNIFORM_DEPTH:
        return (f"resnet{UNIFORM_DEPTH[structure]}",) * members
    middle = (members - 1) // 2
    return ("resnet20",) * (members - middle - 1) + ("resnet26",) * middle + ("resnet32",)


def parse_architecture(names: list[str]) -> tuple[str, ...]:
    """Check an explicit list of member names such as ``["resnet20", "resnet8"]``.

    Raises:
        InputError: fewer than two members, or a name that is not ``resnet<6n+2>``.
    """
    if len(names) < 2:
        raise InputError(f"An ensemble has at least two members; --architecture lists {len(names)}.")
    for name in names:
        depth = member_depth(name)
        if depth < 8 or (depth - 2) % 6:
            raise InputError(
                f"--architecture: {name!r} is not a member; use resnet8, resnet14, resnet20, ..."
            )
    return tuple(names)


def member_depth(name: str) -> int:
    """Depth in a member's name, or 0 if it is not of the form ``resnet<digits>``."""
    match = re.fullmatch(r"resnet(\d{1,4})", name)
    return int(match.group(1)) if match else 0
