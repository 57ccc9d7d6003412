"""Names of ensembles and members: the structures of the paper, and explicit lists."""

import re
from collections.abc import Sequence

from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import is_function_name

UNIFORM_DEPTH = {"Ensemble1": 20, "Ensemble2": 26, "Ensemble3": 32}
STRUCTURES = (*UNIFORM_DEPTH, "Ensemble4")


def structure_architecture(structure: str, members: int) -> tuple[str, ...]:
    """List the members of a structure of the paper (Luo et al., section IV-A).

    Ensemble1-3 are ``members`` times ResNet20, 26 or 32; Ensemble4 mixes the three depths.

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
    """Check a list of member names such as ``["resnet20", "mobilenet_v2", "mynet:build"]``.

    Returns:
        The names, those of Keras applications as Keras writes them (``MobileNetV2``).

    Raises:
        InputError: There are fewer than two members, or a name is not ``resnet<6n+2>``, a Keras application,
            or of the form ``module:function``.
    """
    if len(names) < 2:
        raise InputError(f"`members` must be at least two names, got {len(names)}.")
    return tuple(_parse_member(name) for name in names)


def _parse_member(name: str) -> str:
    depth = member_depth(name)
    if is_function_name(name) or (depth >= 8 and (depth - 2) % 6 == 0):
        return name
    if not depth:
        from keras import applications  # TensorFlow takes seconds to import.

        known = {each.lower(): each for each in vars(applications) if each[0].isupper()}
        if found := known.get(name.replace("_", "").lower()):
            return found
    raise InputError(
        "`members` must be names such as resnet8, resnet14, resnet20, a Keras application such as "
        f"mobilenet_v2, or module:function, got {name!r}."
    )


def member_depth(name: str) -> int:
    """Return the depth in a member's name, or 0 if the name is not ``resnet<digits>``."""
    match = re.fullmatch(r"resnet(\d{1,4})", name)
    return int(match.group(1)) if match else 0
