"""A report as one HTML file that needs nothing else: table, plots and examples."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ncen_tf.report import table

if TYPE_CHECKING:
    from ncen_tf.report.results import Proportion, Report, ShownImages

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for line in description %}<p>{{ line }}</p>
{% endfor %}
<table>
<tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% for note in notes %}<p><small>{{ note }}</small></p>
{% endfor %}
{% for line in verdict %}<p>{{ line }}</p>
{% endfor %}
{% for heading, image in curves %}<h2>{{ heading }}</h2>
<img alt="{{ heading }}" src="data:image/png;base64,{{ image }}">
{% endfor %}
{% for name, image in examples %}
<details{% if loop.first %} open{% endif %}><summary>Examples: {{ name }}</summary>
<img alt="Examples: {{ name }}" src="data:image/png;base64,{{ image }}">
</details>
{% endfor %}
<h2>Environment</h2>
<table>
{% for name, value in environment %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
</body>
</html>
"""


def render_page(report: Report) -> str:
    """Render the table, the accuracy curves, and the clean and adversarial images that the report keeps."""
    norms = list(dict.fromkeys(row.norm for row in report.attacks))
    draw = _accuracy_steps if report.cumulative else _accuracy_curve
    heading = "Accuracy after each attack" if report.cumulative else "Robust accuracy against eps"
    examples = [
        (f"{row.attack}, {row.norm} eps {row.eps:g}", _png(_example_grid(shown)))
        for row, shown in zip(report.attacks, report._images, strict=bool(report._images))
        if len(shown.adversarial)
    ]
    environment = {"seconds": f"{report.seconds:.1f}", "sha256 of the target": report.target.sha256}
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(
        title=f"Attack report: {report.dataset}",
        description=table.describe(report),
        columns=table.columns(report),
        rows=table.rows(report),
        notes=table.notes(report),
        verdict=table.verdict_lines(report),
        curves=[(f"{heading}, {norm}", _png(draw(report, norm))) for norm in norms],
        examples=examples,
        environment=(environment | report.environment).items(),
    )


def _accuracy_curve(report: Report, norm: str) -> Figure:
    """Robust accuracy against eps, a line for each attack of a norm, with 95 % intervals."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    attacks = [row for row in report.attacks if row.norm == norm]
    for name in dict.fromkeys(row.attack for row in attacks):
        rows = sorted((row for row in attacks if row.attack == name), key=lambda row: row.eps)
        values, errors = _with_errors([report.clean_accuracy, *(row.robust_accuracy for row in rows)])
        radii = [0.0, *(row.eps for row in rows)]
        axes.errorbar(radii, values, yerr=errors, label=name, marker="o", ms=4, capsize=2)
    axes.set(xlabel=f"eps ({norm}, images in [0, 1])", ylabel="robust accuracy", ylim=(0, 1), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"protocol {report.protocol}, objective {report.objective}", fontsize=10)
    return figure


def _accuracy_steps(report: Report, norm: str) -> Figure:
    """Robust accuracy after each attack of a cumulative suite, in their order, with 95 % intervals."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    attacks = [row for row in report.attacks if row.norm == norm]
    for eps in dict.fromkeys(row.eps for row in attacks):
        rows = [row for row in attacks if row.eps == eps]
        values, errors = _with_errors([report.clean_accuracy, *(row.robust_accuracy for row in rows)])
        names = ["clean", *(row.attack for row in rows)]
        axes.errorbar(names, values, yerr=errors, label=f"eps {eps:.4g}", marker="o", ms=4, capsize=2)
    axes.set(ylabel=f"robust accuracy ({norm})", ylim=(0, 1))
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"protocol {report.protocol}: accuracy after each attack", fontsize=10)
    return figure


def _example_grid(shown: ShownImages) -> Figure:
    """Clean image, adversarial image and their difference, a column for each example."""
    count = len(shown.clean)
    figure = Figure(figsize=(1.5 * count + 0.3, 5.4), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    # The same scale for all, so that differences can be compared; grey is no change.
    largest = max(float(np.abs(shown.adversarial - shown.clean).max()), 1e-8)
    differences = 0.5 + (shown.adversarial - shown.clean) / (2 * largest)
    stacks = shown.clean, shown.adversarial, differences
    for column, (true, clean, attacked) in enumerate(shown.classes):
        titles = f"true: {true}\npredicted: {clean}", f"predicted: {attacked}", f"difference, ±{largest:.2g}"
        for row, (stack, title) in enumerate(zip(stacks, titles, strict=True)):
            image = stack[column, :, :, 0] if stack.shape[-1] == 1 else stack[column]
            axes[row, column].imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            wrong = {0: clean, 1: attacked}.get(row, true) != true
            axes[row, column].set_title(title, fontsize=7, color="firebrick" if wrong else "black")
            axes[row, column].axis("off")
    return figure


def _with_errors(measured: Sequence[Proportion]) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Values of proportions and, [2, n], how far their intervals reach below and above."""
    values = [proportion.value or 0.0 for proportion in measured]
    intervals = [proportion.interval for proportion in measured]
    # At 0 and 1 the value itself may lie a rounding error outside its interval.
    errors = [[max(0, v - lo), max(0, hi - v)] for v, (lo, hi) in zip(values, intervals, strict=True)]
    return values, np.transpose(errors)


def _png(figure: Figure) -> str:
    """A figure as base64 text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
