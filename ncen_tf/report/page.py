"""A report as one HTML file that needs nothing else: table, plots and examples."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from matplotlib.figure import Figure

from ncen_tf.report import table

if TYPE_CHECKING:
    from ncen_tf.report.results import AttackRow, Report, ShownImages

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
        curves=[(f"{heading}, {norm}", _png(_accuracy_plot(report, norm))) for norm in norms],
        examples=examples,
        environment=(environment | report.environment).items(),
    )


def _accuracy_plot(report: Report, norm: str) -> Figure:
    """Robust accuracy with 95 % intervals: after each attack of a cumulative suite, else against eps."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[AttackRow]] = {}
    for row in sorted(report.attacks, key=lambda row: 0 if report.cumulative else row.eps):
        if row.norm == norm:
            lines.setdefault(f"eps {row.eps:.4g}" if report.cumulative else row.attack, []).append(row)
    for label, rows in lines.items():
        positions = ["clean", *(r.attack for r in rows)] if report.cumulative else [0, *(r.eps for r in rows)]
        measured = [report.clean_accuracy, *(row.robust_accuracy for row in rows)]
        values = np.array([proportion.value or 0.0 for proportion in measured])
        low, high = np.transpose([proportion.interval for proportion in measured])
        # At 0 and 1 the value itself may lie a rounding error outside its interval.
        errors = np.maximum([values - low, high - values], 0)
        axes.errorbar(positions, values, yerr=errors, label=label, marker="o", ms=4, capsize=2)
    axes.set(ylabel=f"robust accuracy ({norm})", ylim=(0, 1))
    if report.cumulative:
        axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    else:
        axes.set(xlabel=f"eps ({norm}, images in [0, 1])", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"protocol {report.protocol}, objective {report.objective}", fontsize=10)
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


def _png(figure: Figure) -> str:
    """A figure as base64 text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
