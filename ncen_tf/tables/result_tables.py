"""Tables of results: methods in columns, structures in blocks, mean and deviation over seeds in cells."""

import dataclasses
import math
from typing import Any

import pandas as pd

from ncen_tf.base.errors import InputError
from ncen_tf.tables.results_frame import (
    METHOD_NAMES,
    PAPER_SCALE,
    WORST_CASE,
    Method,
    common_settings,
    describe_settings,
    lines_of,
    method_label,
    method_rank,
    methods_of,
)

PROTOCOLS = ("paper", "released", "strict")
"""Order of the protocols; others follow by name."""
GROUP_KEYS = [
    *("table", "protocol", "objective", "attacked", "examples", "cumulative", "attack_settings"),
    *("dataset", "members", "train_examples", "epochs", "machine"),
]
"""Columns whose values are never mixed in a table."""

CONTEXT = [
    *("protocol", "objective", "attacked", "examples", "dataset", "train_examples", "epochs", "members"),
    *("hardware", "attack_settings"),
]
CSV_COLUMNS = [
    *CONTEXT,
    *("structure", "method", "settings", "measure", "attack", "norm", "eps", "detail"),
    *("n", "seeds", "mean", "std", "paper", "difference"),
]
"""Columns of the CSV: what was measured, where and how, then the figures."""

_SCALE = ["dataset", "members", "train_examples", "epochs"]
_METHOD = ["regularizer", "settings"]
_ROW = ["measure", "attack", "norm", "eps", "detail"]
_TABLE_OF_MEMBERS = {3: "II", 4: "III", 5: "IV"}
_FORMATS = {"AAE": ".4f", "robust accuracy": ".4f", "gradients": ".4g", "cost": ".3f"}
_HEADINGS = {"gradients": "Gradients on clean images", "cost": "Cost of training"}
_MEANING = {
    "AAE": "AAE: accuracy under attack among the examples that are classified correctly without it "
    "(Luo et al.). ACE: clean accuracy.",
    "robust accuracy": "Robust accuracy: examples that are classified correctly without attack and under "
    "attack, of all examples.",
    "gradients": "Measured by the training program on clean test images, in inference mode. mean, range: "
    "over the members; the range is the largest minus the smallest value.",
    "cost": "Median seconds of one optimizer step on a batch; other work on the machine adds to it.",
}


@dataclasses.dataclass(frozen=True)
class ResultTable:
    """A table, ready to be written in any format."""

    title: str
    caption: str
    header: list[str]
    blocks: list[list[list[str]]]
    """Rows of text, grouped by structure."""
    row_heads: int
    """Number of columns that name a row; the others are numbers."""
    cells: tuple[dict[str, Any], ...] = ()
    """For each cell, its numbers in full precision, and what they are about: see :data:`CSV_COLUMNS`."""


def result_tables(results: pd.DataFrame, protocol: str = "all") -> dict[str, list[ResultTable]]:
    """Arrange results as Tables II-IV of the paper (Luo et al.) do.

    Results that were measured under different conditions (:data:`GROUP_KEYS`) never share a table. Runs that
    differ in nothing but the seed are averaged.

    Args:
        results: What ``read_results`` returns.
        protocol: Name of a protocol, or ``all``, which adds a comparison of the protocols, the gradients on
            clean images, and the cost of training.

    Returns:
        Tables by heading.

    Raises:
        InputError: Nothing was measured under the protocol.
    """
    known = sorted(set(results["protocol"]) - {""}, key=_protocol_rank)
    if protocol not in ("all", *known):
        measured = f"they have {', '.join(known)}" if known else "they have no reports of attacks"
        raise InputError(f"No record has the protocol {protocol!r}: {measured}.")
    cells = dict(list(_average(results).groupby(GROUP_KEYS, sort=False)))
    groups = sorted(results.groupby(GROUP_KEYS, sort=False), key=lambda item: _table_rank(item[1].iloc[0]))
    sections: dict[str, list[ResultTable]] = {}
    if protocol == "all" and (comparisons := _protocol_comparisons(results)):
        sections["Protocols side by side"] = comparisons
    for key, group in groups:
        first = group.iloc[0]
        if protocol in ("all", first["protocol"]):
            heading = _HEADINGS.get(first["table"], f"Protocol {first['protocol']}")
            sections.setdefault(heading, []).append(_table(group, cells[key]))
    return sections


def _average(results: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: a line for each cell of all tables, in the order in which their rows appear."""
    seeds = results["seed"].map(lambda seed: f"{seed} ").where(results["value"].notna(), "")
    keys = [*GROUP_KEYS, "structure", *_METHOD, *_ROW]
    cells = results.assign(seeds=seeds.astype(object)).groupby(keys, sort=False, dropna=False)
    return cells.agg(
        n=("value", "count"),
        seeds=("seeds", "sum"),
        mean=("value", "mean"),
        std=("value", "std"),
        paper=("paper", "first"),
    ).reset_index()


def _protocol_rank(protocol: str) -> tuple[int, str]:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS), protocol


def _table_rank(first: "pd.Series[Any]") -> tuple[Any, ...]:
    """Sort tables: accuracies by protocol first, then by dataset in the paper's order, members and scale."""
    kind = max(list(_FORMATS).index(first["table"]), 1)
    others = ["objective", "attacked", "examples", "cumulative", "machine", "attack_settings", "table"]
    return kind, _protocol_rank(first["protocol"]), _scale_rank(first), *first[others]


def _scale_rank(first: "pd.Series[Any]") -> tuple[Any, ...]:
    datasets = list(PAPER_SCALE)
    rank = datasets.index(first["dataset"]) if first["dataset"] in datasets else len(datasets)
    return rank, *first[_SCALE]


def _table(group: pd.DataFrame, averages: pd.DataFrame) -> ResultTable:
    """Make the table of runs that were measured under the same conditions, of their lines and averages."""
    first = group.iloc[0]
    methods = methods_of(group)
    common = common_settings(methods)
    labels = [method_label(method, common) for method in methods]
    runs: dict[tuple[str, Method], set[int]] = {}
    for line in lines_of(group):
        runs.setdefault((line.structure, (line.regularizer, line.settings)), set()).add(line.seed)
    # By text, for an eps of NaN is not equal to itself.
    cells = {(c.structure, (c.regularizer, c.settings), str(_row(c))): c for c in lines_of(averages)}
    rows = list({str(_row(cell)): cell for cell in cells.values()}.items())
    compared = [
        any(not math.isnan(c.paper) for (_, m, _), c in cells.items() if m == method) for method in methods
    ]
    with_eps = first["table"] in ("AAE", "robust accuracy")
    header = ["structure", *(["attack", "eps"] if with_eps else ["measure"])]
    for label, with_paper in zip(labels, compared, strict=True):
        header += [label, "paper", "diff."] if with_paper else [label]
    blocks = []
    for structure in sorted({structure for structure, _ in runs}):
        block: list[list[str]] = []
        for key, row in rows:
            line = ["" if block else structure, *_row_head(row)[: 1 + with_eps]]
            for method, with_paper in zip(methods, compared, strict=True):
                cell: Any = cells.get((structure, method, key))
                seeds = len(runs.get((structure, method), ()))
                number_format = _FORMATS[first["table"]]
                line.append(_text(cell.n, cell.mean, cell.std, seeds, number_format) if cell else "")
                if with_paper:
                    has_paper = cell is not None and not math.isnan(cell.paper)
                    line += [f"{cell.paper:.4f}", f"{cell.mean - cell.paper:+.4f}"] if has_paper else ["", ""]
            block.append(line)
        blocks.append(block)
    hardware = _hardware(group)
    caption = [*_conditions(first), _seeds_sentence(runs, dict(zip(methods, labels, strict=True)))]
    if common:
        caption.append(f"All trained with {describe_settings(common)}.")
    caption.append(f"Hardware: {hardware}.")
    if any(compared):
        caption.append(_comparison_sentence(first))
    context = {name: first[name] for name in CONTEXT} | {"hardware": hardware}
    numbers = tuple(
        context
        | {name: getattr(cell, name) for name in ("structure", *_ROW, "n", "mean", "std", "paper")}
        | {"method": METHOD_NAMES[cell.regularizer], "settings": describe_settings(cell.settings)}
        | {"seeds": cell.seeds.strip(), "difference": cell.mean - cell.paper}
        for cell in cells.values()
    )
    return ResultTable(_title(first), " ".join(caption), header, blocks, 2 + with_eps, numbers)


def _row(cell: Any) -> tuple[Any, ...]:
    return tuple(getattr(cell, name) for name in _ROW)


def _text(n: int, mean: float, std: float, runs: int, number_format: str = ".4f") -> str:
    """Write ``0.7694 ± 0.0012``, with ``(n = ...)`` if a seed is missing, or ``n/a`` if all are."""
    if n == 0:
        return "n/a"
    deviation = f" ± {std:{number_format}}" if not math.isnan(std) else ""
    return f"{mean:{number_format}}{deviation}" + (f" (n = {n})" if n < runs else "")


def _row_head(row: Any) -> tuple[str, str]:
    """Name a row, and give its bound."""
    name = row.attack or row.measure
    eps = "" if math.isnan(row.eps) else f"{row.eps:.4g}"
    return (
        f"{name} ({row.detail})" if row.detail else name,
        eps if row.norm in ("Linf", "") else f"{eps} ({row.norm})",
    )


def _title(first: "pd.Series[Any]") -> str:
    table = first["table"]
    name = {
        "gradients": "Gradients and accuracy on clean images",
        "cost": f"Cost of training on {first['machine']}",
    }.get(table, f"{table[0].upper()}{table[1:]}, protocol {first['protocol']}")
    return f"{name}, {first['dataset']}, k = {first['members']}"


def _conditions(first: "pd.Series[Any]") -> list[str]:
    """Say what a table shows, and under which conditions it was measured."""
    sentences = [_MEANING[first["table"]]]
    if first["protocol"]:
        images = f"{first['examples']:,} test images of {first['attacked']} attacked"
        sentences.append(f"Protocol {first['protocol']}, objective {first['objective']}; {images}.")
        sentences.append(f"Attacks: {first['attacks']}.")
    if first["cumulative"]:
        sentences.append(
            "Each row counts the examples that are still classified correctly after its attack and those "
            "above it, at the same norm and eps."
        )
    if first["table"] == "gradients":
        sentences.append(f"{first['examples']:,} test images.")
    return [*sentences, _training_sentence(first)]


def _training_sentence(first: "pd.Series[Any]") -> str:
    return (
        f"Trained on {first['train_examples']:,} images of {first['dataset']} for {first['epochs']} epochs."
    )


def _comparison_sentence(first: "pd.Series[Any]") -> str:
    """Say what the paper's cells and the differences mean."""
    table = _TABLE_OF_MEMBERS[first["members"]]
    sentence = f"paper: AAE and ACE of Table {table}; diff.: measured minus published."
    images, epochs = PAPER_SCALE[first["dataset"]]
    if (first["train_examples"], first["epochs"]) == (images, epochs):
        return sentence
    return (
        f"{sentence} The paper trained on {images:,} images for {epochs} epochs: the values are not "
        "comparable with its cells."
    )


def _seeds_sentence(runs: dict[tuple[str, Method], set[int]], labels: dict[Method, str]) -> str:
    """Say how many seeds there are, and which; by column where they differ."""
    several_blocks = len({structure for structure, _ in runs}) > 1
    columns: dict[tuple[int, ...], list[str]] = {}
    for structure, method in sorted(runs, key=lambda run: (run[0], method_rank(run[1]))):
        block = f"{structure} " if several_blocks else ""
        seeds = tuple(sorted(runs[structure, method]))
        columns.setdefault(seeds, []).append(block + labels[method])
    counts = [
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"
        + (f" for {' and '.join(names)}" if len(columns) > 1 else "")
        for seeds, names in columns.items()
    ]
    several = any(len(seeds) > 1 for seeds in columns)
    figures = "Mean ± sample standard deviation" if several else "Single runs"
    return f"{figures}: {'; '.join(counts)}."


def _hardware(group: pd.DataFrame) -> str:
    """Name the machines; those of attacks apart where they are others."""
    training, attacks = ("; ".join(sorted(set(group[c]) - {""})) for c in ("hardware", "attack_hardware"))
    if attacks in ("", training):
        return training
    return f"trained on {training}; attacked on {attacks}"


def _protocol_comparisons(results: pd.DataFrame) -> list[ResultTable]:
    """Compare each method's robust accuracy under all protocols, each in its own column.

    There is a table for each dataset, scale of training and number of clean test images at which more than
    one protocol was measured.
    """
    groups = [group for _, group in results.groupby([*_SCALE, "test_examples"])]
    tables = [_comparison(group) for group in sorted(groups, key=lambda group: _scale_rank(group.iloc[0]))]
    return [table for table in tables if len(table.header) > 4]


def _comparison(group: pd.DataFrame) -> ResultTable:
    """Show the worst cases over a protocol's attacks at its smallest Linf eps, over all images attacked."""
    first = group.iloc[0]
    robust = group[(group["table"] == "robust accuracy") & (group["norm"] == "Linf")]
    worst = robust[robust["attack"] == WORST_CASE]
    worst = worst[worst["eps"] == worst.groupby(["record", *GROUP_KEYS])["eps"].transform("min")]
    keys = ["protocol", "objective", "attacked", "examples", "cumulative", "eps", "attacks_at_bound"]
    columns = sorted(
        set(worst[keys].itertuples(index=False, name=None)), key=lambda key: (_protocol_rank(key[0]), key)
    )
    clean = group[group["measure"] == "clean_accuracy"]
    where = ["structure", *_METHOD]
    values: dict[tuple[Any, ...], list[float]] = {}
    for line in lines_of(clean) + lines_of(worst):
        column = None if line.measure == "clean_accuracy" else tuple(getattr(line, key) for key in keys)
        values.setdefault((*(getattr(line, name) for name in where), column), []).append(line.value)
    lines = []
    for structure in sorted(set(group["structure"])):
        for method in methods_of(group[group["structure"] == structure]):
            cells = [values.get((structure, *method, column), []) for column in [None, *columns]]
            found = [pd.Series(cell, dtype=float) for cell in cells]
            texts = [_text(v.count(), v.mean(), v.std(), len(found[0])) if len(v) else "" for v in found]
            lines.append([structure, method_label(method), *texts])
    heads = [f"{key[0]}, eps {key[5]:.4g}, {key[3]:,} images" for key in columns]
    caption = (
        "Examples that are classified correctly without attack and under the strongest of a protocol's "
        "attacks at the given eps, of all images attacked. What a method loses from one column to another is "
        f"what the weaker protocol hides. {_training_sentence(first)} "
        f"Seeds {', '.join(map(str, sorted(set(group['seed']))))}; mean ± sample standard deviation where "
        f"there are several. Hardware: {_hardware(group)}."
    )
    return ResultTable(
        f"Robust accuracy by protocol, {first['dataset']}, k = {first['members']}",
        caption,
        ["structure", "method", f"clean, {first['test_examples']:,} images", *heads],
        [lines],
        2,
    )
