"""How members' input gradients relate over the epochs of training runs, as a plot and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.train.run_directory import EpochRecord, RunDirectory

Histories = Mapping[str, Sequence[EpochRecord]]
"""The epochs of runs, by the name of the run."""

PANELS = {
    "clean_accuracy": "clean accuracy",
    "pairwise_cosine": "mean pairwise cosine",
    "cosine_to_mean": "c_i, cosine to the mean gradient (Eq. 1)",
    "norm_spread": "root mean square of d_i (Eq. 7)",
    "norm_deviation": "d_i, deviation of |g_i| from the members' mean",
    "gradient_norm": "|g_i|",
}
"""Keys of an evaluation on the test set, and what they are."""


def diagnose_runs(paths: Sequence[Path | str], plot: Path | str) -> str:
    """Plot how members' gradients relate over the epochs of runs, and tabulate the last epochs.

    Args:
        paths: Run directories, of finished runs or not.
        plot: PNG file to write.

    Returns:
        The table.

    Raises:
        InputError: A folder holds no run, or a run has no finished epoch yet.

    Examples:
        >>> import ncen_tf
        >>> print(ncen_tf.diagnose_runs(["runs/a", "runs/b"], "compared.png"))  # doctest: +SKIP
    """
    histories = {}
    for path in paths:
        run = RunDirectory(Path(path))
        histories[str(path)] = run.read_history(run.read_config().epochs)
    write_diagnostics(Path(plot), histories)
    return diagnostics_table(histories)


def write_diagnostics(file: Path, histories: Histories) -> None:
    """Draw a panel for each of :data:`PANELS` over the epochs as a PNG file.

    Quantities of members have a line for each member of a single run; of several runs, the mean and the range
    over the members.

    Raises:
        InputError: A run has no finished epoch.
    """
    for name, history in histories.items():
        if not history:
            raise InputError(f"{name} has no finished epoch to show yet.")
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for color, (name, history) in enumerate(histories.items()):
            epochs = [record.epoch for record in history]
            values = np.array([getattr(record.test, key) for record in history])
            _draw(axes, epochs, values, f"C{color}", name, alone=len(histories) == 1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(fontsize=8)
    if len(histories) == 1:
        figure.axes[2].legend(fontsize=8)
    title = "Measured on test images, BatchNorm in inference mode, gradients of CE on logits"
    figure.suptitle(title, fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axes: Axes, epochs: list[int], values: np.ndarray, color: str, name: str, *, alone: bool) -> None:
    if values.ndim == 1:
        axes.plot(epochs, values, color=color, marker="o", ms=3, label=name)
    elif alone:
        for member, line in enumerate(values.T):
            axes.plot(epochs, line, color=f"C{member}", marker="o", ms=3, label=f"member {member}")
    else:
        axes.plot(epochs, values.mean(1), color=color, marker="o", ms=3)
        axes.fill_between(epochs, values.min(1), values.max(1), color=color, alpha=0.15)


def diagnostics_table(histories: Histories) -> str:
    """Format the last epoch of each run as aligned text; quantities of members as a list."""
    lines = []
    for name, history in histories.items():
        lines.append(f"{name}, epoch {history[-1].epoch}")
        for key, title in PANELS.items():
            value = getattr(history[-1].test, key)
            shown = ", ".join(f"{one:.4f}" for one in (value if isinstance(value, tuple) else [value]))
            lines.append(f"  {title:<50} {shown}")
    return "\n".join(lines)
