"""How members' input gradients relate over the epochs of training runs, as a plot and a table."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing

History = list[dict[str, Any]]
"""Lines of a run's ``metrics.jsonl``."""

PANELS = {
    "ace": "ACE, clean accuracy",
    "pairwise_cosine": "mean pairwise cosine",
    "cosine_to_mean": "c_i, cosine to the mean gradient (Eq. 1)",
    "norm_spread": "root mean square of d_i (Eq. 7)",
    "norm_deviation": "d_i, deviation of |g_i| from the members' mean",
    "gradient_norm": "|g_i|",
}
"""Keys of an evaluation on the test set, and what they are."""


def write_diagnostics(file: Path, histories: dict[str, History]) -> None:
    """Write :func:`draw_diagnostics` as PNG, at once."""
    figure = draw_diagnostics(histories)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def draw_diagnostics(histories: dict[str, History]) -> Figure:
    """A panel for each of :data:`PANELS` over epochs.

    Per-member quantities have a line for each member of a single run, and of several runs the mean and
    range over members.

    Args:
        histories: name of a run -> its epochs.

    Raises:
        InputError: a run without finished epochs, or one whose epochs lack these measurements.
    """
    for name, history in histories.items():
        if not history:
            raise InputError(f"{name} has no finished epoch to show yet.")
        if missing := [key for key in PANELS if key not in history[-1]["test"]]:
            raise InputError(
                f"{name} was measured by an older version: its epochs lack {', '.join(missing)}."
            )
        for key in PANELS:
            if len({np.shape(line["test"][key]) for line in history if key in line["test"]}) > 1:
                raise InputError(f"{name} has {key} for another number of members in some epochs.")
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for color, (name, history) in enumerate(histories.items()):
            measured = [line for line in history if key in line["test"]]
            epochs = [line["epoch"] for line in measured]
            values = np.array([line["test"][key] for line in measured], dtype=float)
            _draw(axes, epochs, values, f"C{color}", name, alone=len(histories) == 1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(fontsize=8)
    if len(histories) == 1:
        figure.axes[2].legend(fontsize=8)
    figure.suptitle(
        "Measured on test images, BatchNorm in inference mode, gradients of CE on logits", fontsize=10
    )
    return figure


def _draw(axes: Axes, epochs: list[int], values: np.ndarray, color: str, name: str, *, alone: bool) -> None:
    if values.ndim == 1:
        axes.plot(epochs, values, color=color, marker="o", ms=3, label=name)
    elif alone:
        for member, line in enumerate(values.T):
            axes.plot(epochs, line, color=f"C{member}", marker="o", ms=3, label=f"member {member}")
    else:
        axes.plot(epochs, values.mean(1), color=color, marker="o", ms=3)
        axes.fill_between(epochs, values.min(1), values.max(1), color=color, alpha=0.15)


def diagnostics_table(histories: dict[str, History]) -> str:
    """The last epoch of each run, as aligned text; per-member quantities as a list."""
    lines = []
    for name, history in histories.items():
        lines.append(f"{name}, epoch {history[-1]['epoch']}")
        for key, title in PANELS.items():
            value = history[-1]["test"][key]
            shown = ", ".join(f"{one:.4f}" for one in (value if isinstance(value, list) else [value]))
            lines.append(f"  {title:<50} {shown}")
    return "\n".join(lines)
