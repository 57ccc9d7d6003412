"""Load ensembles from ``.keras`` files and run directories."""

from pathlib import Path

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.training import open_run
from ncen_tf.untrusted.keras_file import load_keras_model, memory_limit
from ncen_tf.untrusted.memory import try_model


def load_ensemble(path: Path | str) -> Ensemble:
    """Load an ensemble from a ``.keras`` file or a run directory.

    Files from other people can be loaded: no code in them runs, and a model takes no more memory than its
    file justifies. Layers that are not part of Keras must be registered before.

    Args:
        path: A ``.keras`` file that ``Ensemble.save`` wrote, or the directory of a training run.

    Returns:
        The ensemble, in float32 where it comes from a run; compile it to train on.

    Raises:
        InputError: There is no ensemble, or the file is damaged or not accepted; the reason is named.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.build_ensemble(["resnet8"] * 2, (28, 28, 1), 10).save("ensemble.keras")
        >>> [member.name for member in ncen_tf.load_ensemble("ensemble.keras").members]
        ['member_0_resnet8', 'member_1_resnet8']
    """
    path = Path(path)
    if path.is_dir():
        return open_run(path).ensemble
    model = load_keras_model(path)
    if not isinstance(model, Ensemble):
        raise InputError(f"{path} has a {type(model).__name__} in it, not an ensemble of ncen_tf.")
    image_shape = [size or 32 for size in model.members[0].input_shape[1:]]
    try_model(path, image_shape, model.member_logits, memory_limit(path))
    return model
