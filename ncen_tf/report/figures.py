"""Plots of a report, as PNG; a bare Figure draws with Agg, without a display."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

Images = npt.NDArray[np.float32]


def accuracy_curve(report: dict[str, Any], norm: str) -> bytes:
    """Robust accuracy against eps, a line for each attack of a norm, with 95 % intervals. PNG."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    attacks = [row for row in report["attacks"] if row["norm"] == norm]
    for name in dict.fromkeys(row["attack"] for row in attacks):
        rows = sorted((row for row in attacks if row["attack"] == name), key=lambda row: row["eps"])
        measured = [report["ace"], *(row["robust_accuracy"] for row in rows)]
        radii = [0.0, *(row["eps"] for row in rows)]
        values, errors = _with_errors(measured)
        axes.errorbar(radii, values, yerr=errors, label=name, marker="o", ms=4, capsize=2)
    axes.set(xlabel=f"eps ({norm}, images in [0, 1])", ylabel="robust accuracy", ylim=(0, 1), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"protocol {report['protocol']}, objective {report['objective']}", fontsize=10)
    return png(figure)


def standing_steps(report: dict[str, Any], norm: str) -> bytes:
    """Robust accuracy after each attack of a cumulative suite, in their order, with 95 % intervals. PNG."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    attacks = [row for row in report["attacks"] if row["norm"] == norm]
    for eps in dict.fromkeys(row["eps"] for row in attacks):
        rows = [row for row in attacks if row["eps"] == eps]
        measured = [report["ace"], *(row["robust_accuracy"] for row in rows)]
        names = ["clean", *(row["attack"] for row in rows)]
        values, errors = _with_errors(measured)
        axes.errorbar(names, values, yerr=errors, label=f"eps {eps:.4g}", marker="o", ms=4, capsize=2)
    axes.set(ylabel=f"robust accuracy ({norm})", ylim=(0, 1))
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"protocol {report['protocol']}: accuracy after each attack", fontsize=10)
    return png(figure)


def example_grid(images: Images, adversarials: Images, captions: list[tuple[str, str, str]]) -> bytes:
    """Clean image, adversarial image and their difference, a column for each example. PNG.

    Args:
        images: float32 [n, H, W, C] in [0, 1], C = 1 or 3.
        adversarials: the same.
        captions: for each example the true, the clean prediction's and the adversarial one's class name.
    """
    count = len(images)
    figure = Figure(figsize=(1.5 * count + 0.3, 5.4), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    # The same scale for all, so that differences can be compared; grey is no change.
    largest = max(float(np.abs(adversarials - images).max()), 1e-8)
    differences = 0.5 + (adversarials - images) / (2 * largest)
    for column, (true, clean, attacked) in enumerate(captions):
        titles = f"true: {true}\npredicted: {clean}", f"predicted: {attacked}", f"difference, ±{largest:.2g}"
        for row, (stack, title) in enumerate(zip((images, adversarials, differences), titles, strict=True)):
            shown = stack[column, :, :, 0] if stack.shape[-1] == 1 else stack[column]
            axes[row, column].imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            wrong = {0: clean, 1: attacked}.get(row, true) != true
            axes[row, column].set_title(title, fontsize=7, color="firebrick" if wrong else "black")
            axes[row, column].axis("off")
    return png(figure)


def _with_errors(measured: list[dict[str, Any]]) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Values of proportions and, [2, n], how far their intervals reach below and above."""
    values = [proportion["value"] for proportion in measured]
    intervals = [proportion["interval"] for proportion in measured]
    # At 0 and 1 the value itself may lie a rounding error outside its interval.
    errors = [[max(0, v - lo), max(0, hi - v)] for v, (lo, hi) in zip(values, intervals, strict=True)]
    return values, np.transpose(errors)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
