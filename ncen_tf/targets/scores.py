"""What the outputs of a classifier hold: scores of classes, as logits or as probabilities."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError

Array = npt.NDArray[np.float32]
Output = Literal["logits", "probabilities"]
_NAMES = re.compile("logit|prob|score|class|pred", re.IGNORECASE)


def choose_output(
    description: str, answers: Mapping[str, npt.NDArray[Any]], wanted: str | None, usual: str
) -> str:
    """Choose the output of a classifier that holds the scores of the classes.

    Of several, that is ``usual``; or the only one of the shape of scores, where one that is the softmax of
    another does not count; or the only one among these whose name says so.

    Args:
        description: Of the classifier, for the error message.
        answers: Its outputs for two images, by name.
        wanted: Name of the output that the user asks for.
        usual: Name that is preferred.

    Raises:
        InputError: There is no output ``wanted``, or the choice is open.
    """
    if wanted is None and usual in answers:
        return usual
    if wanted is not None:
        if wanted not in answers:
            raise InputError(
                f"{description} has no output {wanted!r}: set `output_name` to one of {', '.join(answers)}."
            )
        return wanted
    if len(answers) == 1:
        return next(iter(answers))
    found: dict[str, npt.NDArray[Any]] = {}
    for name, answer in answers.items():
        if _members_and_classes(answer) and not any(is_softmax_of(answer, other) for other in found.values()):
            found = {n: other for n, other in found.items() if not is_softmax_of(other, answer)}
            found[name] = answer
    named = [name for name in found if _NAMES.search(name)]
    for names in (list(found), named):
        if len(names) == 1:
            return names[0]
    how_many = "more than one" if found else "none"
    raise InputError(
        f"{description} has several outputs, of which {how_many} looks like the scores of classes: set "
        f"`output_name` to one of {', '.join(answers)}."
    )


def is_softmax_of(probabilities: npt.NDArray[Any], logits: npt.NDArray[Any]) -> bool:
    """Return whether one output is the softmax of another over the classes, or the same."""
    shape = _members_and_classes(probabilities)
    if shape is None or shape != _members_and_classes(logits):
        return False
    p, z = (values.astype(np.float64).reshape(-1, *shape) for values in (probabilities, logits))
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    softmax = powers / powers.sum(axis=-1, keepdims=True)
    tolerance = 1e-5 if probabilities.dtype.itemsize >= 4 else 1e-2
    return np.array_equal(p, z) or np.allclose(softmax, p, rtol=1e-3, atol=tolerance / shape[1])


def read_output(
    description: str, output: npt.NDArray[np.generic], said: Output | None = None
) -> tuple[int, int, bool]:
    """Read members, classes, and whether there are logits off what a classifier gives for two images.

    One score an image is that of the second of two classes.

    Args:
        description: Of the classifier, for the error message.
        output: [2], [2, classes] or [2, members, classes], perhaps with further axes of size 1.
        said: What the user says that it holds.

    Raises:
        InputError: Another shape or type, not what ``said`` says, or one score and nothing said.
    """
    if output.dtype.kind != "f" and output.dtype.name != "bfloat16":
        raise InputError(f"{description} gives {output.dtype} values; logits and probabilities are floats.")
    if is_one_score(output):
        if said is None:
            raise InputError(
                f"{description} gives one score an image: set `output`=probabilities if that is the "
                "probability of the second class, or `output`=logits if it is its logit."
            )
        scores = output.astype(np.float64)
        if said == "probabilities" and (scores.min() < 0 or scores.max() > 1):
            raise InputError(f"{description} does not give probabilities: set `output`=logits.")
        return 1, 2, said == "logits"
    shape = _members_and_classes(output)
    if shape is None:
        raise InputError(
            f"{description} gives an array of shape {list(output.shape)} for 2 images, neither [2, classes] "
            "nor [2, members, classes]."
        )
    values = output.astype(np.float64).reshape(-1, *shape)
    sums_to_one = bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))
    if sums_to_one and said == "logits":
        raise InputError(f"{description} gives probabilities, not logits: set `output`=probabilities.")
    if not sums_to_one and said == "probabilities" and np.isfinite(values).all():
        raise InputError(f"{description} does not give probabilities: set `output`=logits.")
    return *shape, not sums_to_one


def as_logits(output: npt.NDArray[np.generic], members: int, classes: int, gives_logits: bool) -> Array:
    """Reshape an output to float32 logits [N, members, classes]; of probabilities, take the logarithm."""
    logits = output.astype(np.float32).reshape(-1, members, classes)
    # The smallest normal float keeps the logarithm finite.
    return logits if gives_logits else np.log(np.maximum(logits, np.finfo(np.float32).tiny))


def is_one_score(output: npt.NDArray[Any]) -> bool:
    """Return whether a classifier of two classes gives one number for each of two images."""
    return output.size == 2 and output.shape[:1] == (2,)


def _members_and_classes(output: npt.NDArray[Any]) -> tuple[int, int] | None:
    """Return the numbers of members and classes of an output for two images, if it can hold scores."""
    if output.ndim < 2 or len(output) != 2:
        return None
    sizes = [size for size in output.shape[1:] if size != 1]
    if len(sizes) == 1:
        return 1, sizes[0]
    return (sizes[0], sizes[1]) if output.ndim == 3 and len(sizes) == 2 else None
