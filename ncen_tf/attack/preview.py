"""What is told of images and target before the attacks start."""

import logging

import numpy as np

from ncen_tf.data.dataset import Split

logger = logging.getLogger(__name__)


def describe_sample(data: Split) -> str:
    """Say how many images and classes there are: ``200 images of 10 classes, 18 to 22 of each``."""
    counts = np.unique(data.labels, return_counts=True)[1]
    fewest, most = counts.min(), counts.max()
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{len(data):,} images of {len(counts)} classes, {each} of each"


def warn_of_missing_classes(data: Split, outputs: int) -> None:
    """Warn of data with fewer class names than the target has outputs: which class is which is a guess.

    Args:
        data: The images.
        outputs: Number of classes of the target.
    """
    known = len(data.class_names)
    if known < outputs:
        logger.warning(
            "%s has %d classes and the target %d outputs: class 0, %s, is taken for output 0, and so on. "
            "List the names of all outputs in a file, `classes` (--classes), if they are in another order.",
            data.name,
            known,
            outputs,
            data.class_names[0],
        )
