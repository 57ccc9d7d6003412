"""TEMPORARY copy until helper train lands."""

from typing import Any
from ncen_tf.base.settings import Settings


class TestMetrics(Settings):
    """Measurements on the test images after an epoch: means over the images, BatchNorm in inference mode."""

    __test__ = False  # no test class of pytest

    clean_accuracy: float
    """Accuracy of the ensemble on clean images, in [0, 1]; called ACE in the paper."""
    member_accuracy: tuple[float, ...]
    ce: float
    """Cross-entropy on logits, mean over the members."""
    l_cos: float
    """Luo et al., Eq. 2, mean over the members, whatever the ensemble was trained with."""
    l_norm: float
    """Luo et al., Eq. 6, mean over the members."""
    pairwise_cosine: float
    """Mean cosine between the input gradients of two members."""
    cosine_to_mean: tuple[float, ...]
    """c_i of each member (Eq. 1)."""
    norm_deviation: tuple[float, ...]
    """d_i of each member (Eq. 7); they sum to 0."""
    norm_spread: float
    """Root mean square of d_i over members and images."""
    gradient_norm: tuple[float, ...]
    """|g_i| of each member: L2 norm of the gradient of its cross-entropy with respect to the image."""
    training_attack_accuracy: float | None = None
    """After adversarial training: accuracy under the training attack on the first 500 images."""
    pgd_accuracy: float | None = None
    """After adversarial training: accuracy under PGD with more steps on the same images."""


class EpochRecord(Settings):
    """A line of ``metrics.jsonl``."""

    epoch: int
    """Number of the epoch, from 1."""
    learning_rate: float
    """Learning rate of the last step."""
    train: dict[str, float]
    """Means over the epoch of loss, cross-entropy, terms of the regularizer, and accuracy."""
    test: TestMetrics
    seconds_per_step: float


class DataRecord(Settings):
    """What a run was trained and measured on: ``data.json``."""

    name: str
    source: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    sha256: str
    """Digest of all images and labels."""


class RunSummary(Settings):
    """The result of a finished run: ``summary.json``, which is written last."""

    clean_accuracy: float
    member_accuracy: tuple[float, ...]
    test: TestMetrics
    train: dict[str, float]
    """Means over the last epoch, as in :class:`EpochRecord`."""
    epochs: int
    parameters: int
    """Number of trainable parameters, over all members."""
    median_seconds_per_step: float
    replicas: int
    data: DataRecord
    environment: dict[str, Any]
