"""One epoch's figures, for the terminal and for TensorBoard."""

from typing import Any

import tensorflow as tf

from ncen_tf.training.nc_ensemble import NCEnsemble


def running_means(ensemble: NCEnsemble) -> dict[str, float]:
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


def write_events(writer: tf.summary.SummaryWriter, line: dict[str, Any]) -> None:
    """A line of ``metrics.jsonl`` as TensorBoard scalars."""
    with writer.as_default(step=line["epoch"]):
        tf.summary.scalar("learning_rate", line["learning_rate"])
        for part in ("train", "test"):
            for name, value in line[part].items():
                if isinstance(value, list):
                    for member, one in enumerate(value):
                        tf.summary.scalar(f"{part}/{name}/member_{member}", one)
                else:
                    tf.summary.scalar(f"{part}/{name}", value)
    writer.flush()
