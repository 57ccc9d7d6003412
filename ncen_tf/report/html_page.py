"""A report as one HTML file that needs nothing else."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.results import AttackResult, SuiteResult
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.report import table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
"""


def write_html_page(
    file: Path,
    report: dict[str, Any],
    result: SuiteResult,
    images: npt.NDArray[np.float32],
    class_names: Sequence[str],
) -> None:
    """Write table, accuracy-eps curves and examples of clean and adversarial images, at once.

    Args:
        file: to write.
        report: of ``result``.
        result: what the suite measured.
        images: the clean images, float32 [N, H, W, C] in [0, 1].
        class_names: name of each class.

    Raises:
        InputError: Matplotlib is not installed.
    """
    try:
        from ncen_tf.report import figures
    except ImportError as error:
        raise InputError(f"An HTML report needs Matplotlib ({error}): pip install matplotlib.") from error

    title = f"Attack report: {report['dataset']}"
    body = [f"<h1>{_escape(title)}</h1>", *(f"<p>{_escape(line)}</p>" for line in table.describe(report))]
    body += _table(table.columns(report), table.rows(report))
    body += [f"<p><small>{_escape(note)}</small></p>" for note in table.notes(report)]
    body += [f"<p>{_escape(line)}</p>" for line in table.verdict(report) if line]
    for norm in dict.fromkeys(row["norm"] for row in report["attacks"]):
        if report["cumulative"]:
            steps = figures.standing_steps(report, norm)
            body += [f"<h2>What still stands, {norm}</h2>", _image(steps, f"accuracy by attack, {norm}")]
            continue
        curve = figures.accuracy_curve(report, norm)
        body += [f"<h2>Robust accuracy against eps, {norm}</h2>", _image(curve, f"accuracy curve, {norm}")]
    for number, attack in enumerate(result.attacks):
        if not len(attack.shown):
            continue
        name = f"{attack.settings['attack']}, {attack.settings['norm']} eps {attack.settings['eps']:g}"
        shown = np.flatnonzero(attack.attacked)[: len(attack.shown)]
        grid = figures.example_grid(
            images[shown], attack.shown, _captions(result, attack, shown, class_names)
        )
        opened = " open" if number == 0 else ""
        body += [f"<details{opened}><summary>Examples: {_escape(name)}</summary>"]
        body += [_image(grid, f"examples, {name}"), "</details>"]
    body += ["<h2>Environment</h2>", *_table(("", ""), _environment(report))]
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_escape(title)}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )
    with replacing(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _captions(
    result: SuiteResult, attack: AttackResult, shown: npt.NDArray[np.intp], class_names: Sequence[str]
) -> list[tuple[str, str, str]]:
    predictions = (result.labels, result.clean_predictions, attack.predictions)
    # A model of another origin may know more classes than the dataset.
    known = dict(enumerate(class_names))
    names = [[known.get(label, f"class {label}") for label in labels[shown]] for labels in predictions]
    return list(zip(*names, strict=True))


def _environment(report: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = [("seconds", f"{report['seconds']:.1f}"), ("sha256 of the target", report["target"]["sha256"])]
    return seconds + [(name, str(value)) for name, value in report["environment"].items()]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["".join(f"<th>{_escape(cell)}</th>" for cell in columns)] if any(columns) else []
    lines += ["".join(f"<td>{_escape(cell)}</td>" for cell in row) for row in rows]
    return ["<table>", *(f"<tr>{line}</tr>" for line in lines), "</table>"]


def _image(png: bytes, alternative: str) -> str:
    content = base64.b64encode(png).decode()
    return f'<img alt="{_escape(alternative)}" src="data:image/png;base64,{content}">'


def _escape(text: str) -> str:
    return html.escape(text)
