"""TEMPORARY stand-in for the summary of helper train."""
from typing import Any
from ncen_tf.base.settings import Settings
from ncen_tf.train.config import TrainConfig

class RunSummary(Settings):
    config: TrainConfig
    clean_accuracy: float
    test: dict[str, float | tuple[float, ...]]
    train: dict[str, float]
    parameters: int
    median_seconds_per_step: float
    dataset_source: str
    train_examples: int
    test_examples: int
    replicas: int
    environment: dict[str, Any]
