"""A report as one HTML file that needs nothing else: table, plots and examples."""

from __future__ import annotations

import base64
import io
import itertools
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

from ncen_tf.report import table

if TYPE_CHECKING:
    from ncen_tf.report.measured import Norm, Proportion
    from ncen_tf.report.results import Report, ShownImages

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #8886; --bad: light-dark(firebrick, salmon);
  --bar: light-dark(steelblue, skyblue); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); }
th, td { text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plot { width: 100%; max-width: 36rem; height: auto; font-size: 11px; fill: currentColor; }
.plot line { stroke: var(--line); }
.plot polyline { fill: none; stroke-width: 1.5; }
.plot .s0 { color: var(--bar); } .plot .s1 { color: light-dark(chocolate, orange); }
.plot .s2 { color: light-dark(seagreen, lightgreen); } .plot .s3 { color: light-dark(purple, plum); }
.plot g polyline, .plot g line { stroke: currentColor; }
.wide { overflow-x: auto; }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem; }
.numbers div { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.numbers b { display: block; font-size: 1.8rem; line-height: 1.2; }
.bars { display: grid; grid-template-columns: minmax(0, auto) minmax(5rem, 1fr) auto; gap: .25rem .75rem;
  align-items: center; }
.bars .track { background: var(--line); height: .9rem; position: relative; }
.bars .track i { background: var(--bar); display: block; height: 100%; position: absolute; }
.bars .track i:first-child { opacity: .35; }
.examples { display: flex; flex-wrap: wrap; gap: .75rem; }
.examples figure { margin: 0; width: 96px; font-size: .75rem; }
.examples img { width: 96px; image-rendering: pixelated; display: block; }
.examples figcaption { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.bars span:nth-child(3n) { font-size: .8rem; text-align: right; white-space: nowrap; }
p, li, summary { overflow-wrap: anywhere; }
details { margin-top: 1rem; }
.wrong { color: var(--bad); }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<div class="numbers">
{% for name, value, interval in numbers %}<div>{{ name }}<b>{{ value }}</b><small>{{ interval }}</small></div>
{% endfor %}
</div>
{% for line in verdict %}<p{% if suspected %} class="wrong"{% endif %}>{{ line }}</p>
{% endfor %}
<p>{% for line in description %}{{ line }}<br>
{% endfor %}</p>
{% for norm, plot in plots %}<h2>Robust accuracy against eps, {{ norm }}</h2>
{{ plot | safe }}
{% endfor %}
{% if plots %}<p><small>Bands and vertical lines: 95 % intervals. eps is the size of the
largest change; images are in [0, 1].</small></p>
{% endif %}
{% if classes %}<h2>Accuracy of each class</h2>
<p>Full colour: correct clean and under every attack of this report. Pale: correct when clean.</p>
<div class="bars">
{% for each, clean, robust in classes %}
<span>{{ each.name }}</span>
<span class="track"><i style="width: {{ 100 * each.clean_accuracy.value }}%"></i>
<i style="width: {{ 100 * each.robust_accuracy.value }}%"></i></span>
<span>{{ robust }}, clean {{ clean }}</span>
{% endfor %}
</div>
{% endif %}
{% for name, broken, ordered, scale, images in examples %}
<details{% if broken == most %} open{% endif %}><summary>Most easily broken images: {{ name }}</summary>
<p>{% if images|length < broken %}Of the {{ broken }} images that the attack broke, those of the lowest clean
margins{% else %}All that the attack broke{% endif %}{% if ordered %}, by distance{% endif %}.
Each column: the clean image, the adversarial image, and their difference (grey: no change; black, white:
{{ "%.2g" % scale }}).</p>
<div class="examples">
{% for image in images %}
<figure>
<figcaption>true: {{ image.true }}</figcaption>
{% for stage, picture, predicted in image.stages %}
<img alt="{{ stage }}" title="{{ stage }}" src="data:image/png;base64,{{ picture }}">
<figcaption{% if predicted != image.true %} class="wrong"{% endif %}>{{ predicted }}</figcaption>
{% endfor %}
<img alt="difference" title="difference" src="data:image/png;base64,{{ image.difference }}">
</figure>
{% endfor %}
</div>
</details>
{% endfor %}
<h2>What each attack found and cost</h2>
<div class="wide">
<table>
<tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
</div>
{% for note in notes %}<p><small>{{ note }}</small></p>
{% endfor %}
{% if checks %}<h2>Checks for masked gradients</h2>
<ul>
{% for check in checks %}<li{% if not check.passed %} class="wrong"{% endif %}>
{{ "passed" if check.passed else "FAILED" }}: {{ check.name }}, {{ check.finding }}</li>
{% endfor %}
</ul>
{% endif %}
<h2>Environment</h2>
<div class="wide">
<table>
{% for name, value in environment %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
</div>
</body>
</html>
"""

# An inline SVG, whose colours the style of the page sets.
_LEFT, _TOP, _WIDTH, _HEIGHT = 40, 10, 370, 200
_PLOT = """\
<svg class="plot" viewBox="0 0 430 {{ bottom + 40 + 16 * series|length }}" role="img"
 aria-label="robust accuracy against eps">
{% for y, label in levels %}<line x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}"/>
<text x="{{ left - 4 }}" y="{{ y + 4 }}" text-anchor="end">{{ label }}</text>
{% endfor %}
{% for x, label in ticks %}<line x1="{{ x }}" x2="{{ x }}" y1="{{ bottom }}" y2="{{ bottom + 4 }}"/>
<text x="{{ x }}" y="{{ bottom + 16 }}" text-anchor="middle">{{ label }}</text>
{% endfor %}
<text x="{{ right }}" y="{{ bottom + 32 }}" text-anchor="end">eps</text>
{% for each in series %}<g class="s{{ loop.index0 % 4 }}" fill="currentColor">
{% if each.band %}<polygon points="{{ each.band }}" opacity=".2"/>
{% endif %}
<polyline points="{{ each.line }}"/>
{% for x, y, low, high, title in each.marks %}<line x1="{{ x }}" x2="{{ x }}" y1="{{ low }}" y2="{{ high }}"/>
<circle cx="{{ x }}" cy="{{ y }}" r="3"><title>{{ title }}</title></circle>
{% endfor %}
<circle cx="{{ left + 4 }}" cy="{{ bottom + 36 + 16 * loop.index0 }}" r="4"/>
</g>
<text x="{{ left + 14 }}" y="{{ bottom + 40 + 16 * loop.index0 }}">{{ each.name }}</text>
{% endfor %}
</svg>"""


def render_page(report: Report) -> str:
    """Render worst case and verdict first, then plots, classes, images, costs, checks and environment."""
    norms = dict.fromkeys([*(each.norm for each in report.curves), *(row.norm for row in report.attacks)])
    with_curve = {curve.norm for curve in report.curves}
    examples = [
        (f"{row.attack}, {row.norm} eps {row.eps:g}", row.broken, row.norm in with_curve, *_examples(shown))
        for row, shown in zip(report.attacks, report._images, strict=bool(report._images))
        if len(shown.adversarial)
    ]
    environment = {"seconds": f"{report.seconds:.1f}", "sha256 of the target": report.target.sha256}
    numbers = [("clean accuracy", report.clean_accuracy)] + [
        (f"worst case, {case.norm} eps {case.eps:.4g}", case.robust_accuracy) for case in report.worst_case
    ]
    checks = () if report.masked_gradients is None else report.masked_gradients.checks
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(
        title=f"Attack report: {report.dataset}",
        description=table.describe(report),
        columns=table.columns(report),
        rows=table.rows(report),
        notes=table.notes(report),
        numbers=[(name, table.percent(share), table.interval(share)) for name, share in numbers],
        verdict=table.verdict_lines(report),
        suspected=not all(check.passed for check in checks),
        classes=[
            (each, table.percent(each.clean_accuracy), table.percent(each.robust_accuracy))
            for each in report.classes
        ],
        checks=checks,
        plots=[(norm, accuracy_plot(report, norm)) for norm in norms],
        examples=examples,
        most=max((broken for _, broken, *_ in examples), default=0),
        environment=(environment | report.environment).items(),
    )


def accuracy_plot(report: Report, norm: Norm) -> str:
    """Draw the curve of a norm, if the report has one, and a point with its interval for each bound.

    The points are those of each attack, or, where attacks follow one another, of the worst case.
    """
    points: dict[str, list[tuple[float, Proportion]]] = {}
    measured = [(row.attack, row) for row in report.attacks]
    for name, row in [("worst case", each) for each in report.worst_case] if report.cumulative else measured:
        if row.norm == norm:
            points.setdefault(name, [(0.0, report.clean_accuracy)]).append((row.eps, row.robust_accuracy))
    bounds = {eps for line in points.values() for eps, _ in line}  # The curve's own may be a selection.
    curves = [
        [(eps, curve.robust_accuracy(eps)) for eps in sorted(bounds | {point.eps for point in curve.points})]
        for curve in report.curves
        if curve.norm == norm
    ]
    top = max([eps for line in (*points.values(), *curves) for eps, _ in line], default=0.0) or 1.0

    def across(eps: float) -> str:
        return f"{_LEFT + _WIDTH * eps / top:.1f}"

    def up(share: float | None) -> str:
        return f"{_TOP + _HEIGHT * (1 - (share or 0)):.1f}"

    series: list[dict[str, Any]] = []
    for curve in curves:  # A staircase: accuracy stays the same up to the next distance.
        steps = [((eps, before), (eps, after)) for (_, before), (eps, after) in itertools.pairwise(curve)]
        stairs = [curve[0], *itertools.chain.from_iterable(steps)]
        line = " ".join(f"{across(eps)},{up(share.value)}" for eps, share in stairs)
        high = [f"{across(eps)},{up(share.interval[1])}" for eps, share in stairs]
        low = [f"{across(eps)},{up(share.interval[0])}" for eps, share in stairs]
        band = " ".join([*high, *low[::-1]])
        series.append({"name": "minimum-norm attacks, every eps", "line": line, "band": band})
    for name, found in points.items():
        found = sorted(found, key=lambda point: point[0])
        line = " ".join(f"{across(eps)},{up(share.value)}" for eps, share in found)
        marks = [
            (
                across(eps),
                up(p.value),
                *map(up, p.interval),
                f"{name}, eps {eps:.4g}: {100 * (p.value or 0):.2f} %",
            )
            for eps, p in found
        ]
        series.append({"name": name, "line": "" if curves else line, "marks": marks})
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PLOT)
    return template.render(
        left=_LEFT,
        right=_LEFT + _WIDTH,
        bottom=_TOP + _HEIGHT,
        levels=[(_TOP + _HEIGHT * (100 - level) // 100, f"{level} %") for level in range(0, 101, 25)],
        ticks=[(across(x), f"{x:.3g}") for x in MaxNLocator(5).tick_values(0, top) if 0 <= x <= top],
        series=series,
    )


def _examples(shown: ShownImages) -> tuple[float, list[dict[str, Any]]]:
    """Return the largest change of a pixel, and for each example its class, images and predictions."""
    largest = max(float(np.abs(shown.adversarial - shown.clean).max()), 1e-8)
    # The same scale for all, so that differences can be compared.
    differences = 0.5 + (shown.adversarial - shown.clean) / (2 * largest)
    return largest, [
        {
            "true": true,
            "stages": [("clean", _picture(before), predicted), ("adversarial", _picture(after), fooled)],
            "difference": _picture(difference),
        }
        for (true, predicted, fooled), before, after, difference in zip(
            shown.classes, shown.clean, shown.adversarial, differences, strict=True
        )
    ]


def _picture(image: npt.NDArray[np.float32]) -> str:
    """Encode an image [H, W, C] in [0, 1] as base64 text of a PNG file."""
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    imsave(buffer, np.clip(pixels, 0, 1), cmap="gray", vmin=0, vmax=1, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
