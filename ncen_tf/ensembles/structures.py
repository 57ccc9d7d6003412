"""Names of ensembles and members: the structures of the paper, and explicit lists."""

import re
from collections.abc import Sequence

from ncen_tf.base.errors import InputError

UNIFORM_DEPTH = {"Ensemble1": 20, "Ensemble2": 26, "Ensemble3": 32}
STRUCTURES = (*UNIFORM_DEPTH, "Ensemble4")


def structure_architecture(structure: str, members: int) -> tuple[str, ...]:
    """List the members of a structure of the paper (Luo et al., section IV-A).

    Ensemble1-3 are ``members`` times ResNet20, 26 or 32; Ensemble4 mixes the three depths.

    Args:
        structure: ``Ensemble1`` .. ``Ensemble4``.
        members: 3, 4 or 5.

    Returns:
        Member names, shallow ones first, such as ``("resnet20", "resnet26", "resnet32")``.

    Raises:
        InputError: The structure or the number of members is unknown.
    """
    if structure not in STRUCTURES:
        raise InputError(f"`structure` must be one of {', '.join(STRUCTURES)}, got {structure!r}.")
    if members not in (3, 4, 5):
        raise InputError(
            f"`members` must be 3, 4 or 5, got {members}. List the members of other sizes in `architecture`."
        )
    if structure in UNIFORM_DEPTH:
        return (f"resnet{UNIFORM_DEPTH[structure]}",) * members
    middle = (members - 1) // 2
    return ("resnet20",) * (members - middle - 1) + ("resnet26",) * middle + ("resnet32",)


def parse_architecture(names: Sequence[str]) -> tuple[str, ...]:
    """Check a list of member names such as ``["resnet20", "resnet8"]``.

    Raises:
        InputError: There are fewer than two members, or a name is not ``resnet<6n+2>``.
    """
    if len(names) < 2:
        raise InputError(f"`members` must be at least two names, got {len(names)}.")
    for name in names:
        depth = member_depth(name)
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"`members` must be names such as resnet8, resnet14, resnet20, got {name!r}.")
    return tuple(names)


def member_depth(name: str) -> int:
    """Return the depth in a member's name, or 0 if the name is not ``resnet<digits>``."""
    match = re.fullmatch(r"resnet(\d{1,4})", name)
    return int(match.group(1)) if match else 0
