"""Robust accuracy against the perturbation bound, as an inline SVG whose colours the page's style sets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import jinja2
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from ncen_tf.report.measured import Norm, Proportion
    from ncen_tf.report.results import Report

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

Point = tuple[float, "Proportion"]


class _Series(NamedTuple):
    name: str
    line: str
    band: str
    marks: list[tuple[str, ...]]


def accuracy_plot(report: Report, norm: Norm) -> str:
    """Draw the curve of a norm, if the report has one, and a point with its interval for each bound.

    The points are those of each attack, or, where attacks follow one another, of the worst case.
    """
    points: dict[str, list[Point]] = {}
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

    series = []
    for curve in curves:  # A staircase: accuracy stays the same up to the next distance.
        steps = [((eps, before), (eps, after)) for (_, before), (eps, after) in itertools.pairwise(curve)]
        stairs = [curve[0], *itertools.chain.from_iterable(steps)]
        line = " ".join(f"{across(eps)},{up(share.value)}" for eps, share in stairs)
        high = [f"{across(eps)},{up(share.interval[1])}" for eps, share in stairs]
        low = [f"{across(eps)},{up(share.interval[0])}" for eps, share in stairs]
        series.append(_Series("minimum-norm attacks, every eps", line, " ".join([*high, *low[::-1]]), []))
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
        series.append(_Series(name, "" if curves else line, "", marks))
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PLOT)
    return template.render(
        left=_LEFT,
        right=_LEFT + _WIDTH,
        bottom=_TOP + _HEIGHT,
        levels=[(_TOP + _HEIGHT * (100 - level) // 100, f"{level} %") for level in range(0, 101, 25)],
        ticks=[(across(x), f"{x:.3g}") for x in MaxNLocator(5).tick_values(0, top) if 0 <= x <= top],
        series=series,
    )
