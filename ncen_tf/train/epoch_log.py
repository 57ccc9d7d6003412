"""One epoch's figures, for the terminal and for TensorBoard."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.write_failure import write_failure


def running_means(ensemble: Ensemble) -> dict[str, float]:
    """Means over the current epoch so far, over all replicas."""
    return {metric.name: float(metric.result()) for metric in ensemble.metrics}


def readings(means: dict[str, float], epoch: int, epochs: int, rate: float) -> dict[str, str]:
    """Running means of the current epoch, as the progress bar shows them."""
    values = {name: f"{value:.4f}" for name, value in means.items()}
    return {"epoch": f"{epoch + 1}/{epochs}"} | values | {"lr": f"{rate:g}"}


def epoch_line(line: dict[str, Any], epochs: int) -> str:
    """A line of ``metrics.jsonl`` as the terminal shows it."""
    train, test = (
        "  ".join(f"{name} {value:.4f}" for name, value in line[part].items() if isinstance(value, float))
        for part in ("train", "test")
    )
    return f"epoch {line['epoch']}/{epochs}  lr {line['learning_rate']:g}  {train}  | test {test}"


class EventLog:
    """Lines of ``metrics.jsonl`` as TensorBoard scalars.

    Args:
        folder: where TensorBoard looks for them.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._writer = tf.summary.create_file_writer(str(folder))
        except tf.errors.OpError as error:
            raise write_failure(folder, error) from error

    def write(self, line: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            InputError: the disk is full.
        """
        try:
            with self._writer.as_default(step=line["epoch"]):  # flushes in the end
                tf.summary.scalar("learning_rate", line["learning_rate"])
                for part in ("train", "test"):
                    for name, value in line[part].items():
                        if isinstance(value, list):
                            for member, one in enumerate(value):
                                tf.summary.scalar(f"{part}/{name}/member_{member}", one)
                        else:
                            tf.summary.scalar(f"{part}/{name}", value)
        except tf.errors.OpError as error:
            raise write_failure(self._folder, error) from error
