"""A folder that cannot be written, in one sentence."""

from pathlib import Path

import tensorflow as tf

from ncen_tf.base.errors import InputError


def write_failure(path: Path, error: Exception) -> InputError:
    """What to raise when a run cannot go on because ``path`` cannot be written."""
    return InputError(
        f"{path} cannot be written ({_reason(error)}); earlier checkpoints are intact: once "
        "the folder can be written, the same command resumes."
    )


def _reason(error: Exception) -> str:
    """What the operating system said; TensorFlow wraps it in names of operations and files."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return " ".join(text.rpartition("; ")[2].partition("[Op:")[0].partition("\n")[0].split())[:200]
