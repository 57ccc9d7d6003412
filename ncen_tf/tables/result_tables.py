"""Tables of results: methods in columns, structures in blocks, mean and deviation over seeds in cells."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ncen_tf.base.errors import InputError
from ncen_tf.tables.results_frame import (
    PAPER_SCALE,
    WEIGHTS,
    WORST_CASE,
    Setting,
    describe_settings,
    is_departure,
    of_adversary,
)

Method = tuple[str, tuple[Setting, ...]]
"""A regularizer, and the settings that are not its defaults."""

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
_NAMES = {"none": "BL", "gal": "GAL", "gpmr": "GPMR", "adp": "ADP", "nce": "NCEn"}
_TABLE_OF_MEMBERS = {3: "II", 4: "III", 5: "IV"}
_FORMATS = {"AAE": ".4f", "robust accuracy": ".4f", "gradients": ".4g", "cost": ".3f"}
_MEANING = {
    "AAE": "AAE: accuracy under attack among the examples that are classified correctly without it "
    "(Luo et al.). ACE: clean accuracy.",
    "robust accuracy": "Robust accuracy: examples that are classified correctly without attack and under attack, "
    "of all examples.",
    "gradients": "Measured by the training program on clean test images, in inference mode. mean, range: over "
    "the members; the range is the largest minus the smallest value.",
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
    cells: pd.DataFrame | None = None
    """A line for each cell with its numbers in full precision."""


def result_tables(results: pd.DataFrame, protocol: str = "all") -> dict[str, list[ResultTable]]:
    """Arrange results as Tables II-IV of the paper (Luo et al.) do.

    Results that were measured under different conditions (:data:`GROUP_KEYS`) never share a table. Runs that
    differ in nothing but the seed are averaged.

    Args:
        results: What :func:`read_results` returns.
        protocol: Name of a protocol, or ``all``, which adds a comparison of the protocols, the gradients on
            clean images, and the cost of training.

    Returns:
        Tables by heading.

    Raises:
        InputError: Nothing was measured under the protocol.

    Example:
        >>> import ncen_tf
        >>> tables = ncen_tf.result_tables(ncen_tf.read_results("docs/diversity"), protocol="all")
        >>> list(tables)[-2:]
        ['Gradients on clean images', 'Cost of training']
    """
    known = sorted(set(results["protocol"]) - {""}, key=_protocol_rank)
    if protocol not in ("all", *known):
        measured = f"they have {', '.join(known)}" if known else "they have no reports of attacks"
        raise InputError(f"No record has the protocol {protocol!r}: {measured}.")
    groups = sorted((group for _, group in results.groupby(GROUP_KEYS, sort=False)), key=_table_rank)
    sections: dict[str, list[ResultTable]] = {}
    if protocol == "all" and (comparisons := _protocol_comparisons(results)):
        sections["Protocols side by side"] = comparisons
    for group in groups:
        first = group.iloc[0]
        if protocol in ("all", first["protocol"]):
            sections.setdefault(_heading(first), []).append(_table(group))
    return sections


def _heading(first: "pd.Series[Any]") -> str:
    if first["protocol"]:
        return f"Protocol {first['protocol']}"
    return {"gradients": "Gradients on clean images", "cost": "Cost of training"}[first["table"]]


def _protocol_rank(protocol: str) -> tuple[int, str]:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS), protocol


def _table_rank(group: pd.DataFrame) -> tuple[Any, ...]:
    """Sort tables: accuracies by protocol first, then by dataset in the paper's order, members and scale."""
    first = group.iloc[0]
    tables = list(_FORMATS)
    return (
        max(tables.index(first["table"]), 1),
        _protocol_rank(first["protocol"]),
        _scale_rank(first),
        *(first[name] for name in ("objective", "attacked", "examples", "cumulative", "machine", "attack_settings")),
        first["table"],
    )


def _scale_rank(first: "pd.Series[Any]") -> tuple[Any, ...]:
    datasets = list(PAPER_SCALE)
    rank = datasets.index(first["dataset"]) if first["dataset"] in datasets else len(datasets)
    return rank, *(first[name] for name in _SCALE)


def _methods(group: pd.DataFrame) -> list[Method]:
    """List the methods in the paper's order, those with its own settings first."""
    found = set(zip(group["regularizer"], group["settings"], strict=True))
    return sorted(found, key=lambda m: (list(WEIGHTS).index(m[0]), len(m[1]), m[1]))


def _common_settings(methods: Sequence[Method]) -> frozenset[Setting]:
    """Settings that all methods share, for the caption.

    What makes it another method than the paper's stays in the labels; of adversarial training, only that
    there is one, for its details are long.
    """
    shared = frozenset.intersection(*(frozenset(settings) for _, settings in methods))
    departing = {s for name, settings in methods for s in settings if is_departure(name, s[0])}
    return frozenset(s for s in shared if s not in departing or of_adversary(s[0]))


def _label(method: Method, common: Iterable[Setting] = ()) -> str:
    own = describe_settings(s for s in method[1] if s not in common)
    return f"{_NAMES[method[0]]}, {own}" if own else _NAMES[method[0]]


def _table(group: pd.DataFrame) -> ResultTable:
    """Make the table of results that were measured under the same conditions."""
    first = group.iloc[0]
    methods = _methods(group)
    common = _common_settings(methods)
    labels = [_label(method, common) for method in methods]
    group = group.assign(
        column=[methods.index(m) for m in zip(group["regularizer"], group["settings"], strict=True)],
        row=group.groupby(_ROW, sort=False, dropna=False).ngroup(),
    )
    cells = _cells(group, labels)
    compared = set(cells.loc[cells["paper"].notna(), "column"])
    with_eps = first["table"] in ("AAE", "robust accuracy")
    header = ["structure", *(["attack", "eps"] if with_eps else ["measure"])]
    for column, label in enumerate(labels):
        header += [label, "paper", "diff."] if column in compared else [label]

    by_place = {(cell.structure, cell.row, cell.column): cell for cell in cells.itertuples()}
    blocks = []
    for structure in sorted(set(cells["structure"])):
        block = []
        for row in group.drop_duplicates("row").itertuples():
            line = [structure if not block else "", *_row_head(row)[: 1 + with_eps]]
            for column in range(len(methods)):
                cell = by_place.get((structure, row.row, column))
                line.append(cell.text if cell else "")
                if column in compared:
                    has_paper = cell is not None and not pd.isna(cell.paper)
                    line += [f"{cell.paper:.4f}", f"{cell.difference:+.4f}"] if has_paper else ["", ""]
            block.append(line)
        blocks.append(block)
    caption = [*_conditions(first), _seeds_sentence(group, labels)]
    if common:
        caption.append(f"All trained with {describe_settings(common)}.")
    hardware = _hardware(group)
    caption.append(f"Hardware: {hardware}.")
    if compared:
        caption.append(_comparison_sentence(first))
    context = {name: first[name] for name in CONTEXT} | {"hardware": hardware}
    numbers = cells.assign(**context, method=cells["regularizer"].map(_NAMES), settings=cells["settings"].map(describe_settings))
    return ResultTable(_title(first), " ".join(caption), header, blocks, 2 + with_eps, numbers[CSV_COLUMNS])


def _cells(group: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Average over seeds: a line for each structure, row and column."""
    keys = ["structure", "row", *_ROW, "column", *_METHOD]
    seeds = [f"{s} " if v == v else "" for s, v in zip(group["seed"], group["value"], strict=True)]
    with_seeds = group.assign(seeds=pd.Series(seeds, group.index, object))
    cells = with_seeds.groupby(keys, sort=False, dropna=False).agg(
        n=("value", "count"),
        seeds=("seeds", "sum"),
        mean=("value", "mean"),
        std=("value", "std"),
        paper=("paper", "first"),
    )
    cells = cells.reset_index().assign(seeds=[seeds.strip() for seeds in cells["seeds"]])
    runs = group.groupby(["structure", "column"])["seed"].nunique().rename("runs")
    cells = cells.merge(runs.reset_index(), on=["structure", "column"])
    number_format = _FORMATS[group["table"].iloc[0]]
    texts = [_text(c.n, c.runs, c.mean, c.std, number_format) for c in cells.itertuples()]
    return cells.assign(difference=cells["mean"] - cells["paper"], text=texts)


def _text(n: int, runs: int, mean: float, std: float, number_format: str = ".4f") -> str:
    """Write ``0.7694 ± 0.0012``, with ``(n = ...)`` if a seed is missing, or ``n/a`` if all are."""
    if n == 0:
        return "n/a"
    deviation = "" if pd.isna(std) else f" ± {std:{number_format}}"
    return f"{mean:{number_format}}{deviation}" + (f" (n = {n})" if n < runs else "")


def _row_head(row: Any) -> tuple[str, str]:
    """Name a row, and give its bound."""
    name = row.attack or row.measure
    eps = "" if pd.isna(row.eps) else f"{row.eps:.4g}"
    return f"{name} ({row.detail})" if row.detail else name, f"{eps} ({row.norm})" if row.norm == "L2" else eps


def _title(first: "pd.Series[Any]") -> str:
    names = {"gradients": "Gradients and accuracy on clean images", "cost": f"Cost of training on {first['machine']}"}
    table = first["table"]
    name = names.get(table, f"{table[0].upper()}{table[1:]}, protocol {first['protocol']}")
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
            "Each row counts the examples that are still classified correctly after its attack and those above "
            "it, at the same norm and eps."
        )
    if first["table"] == "gradients":
        sentences.append(f"{first['examples']:,} test images.")
    return [*sentences, _training_sentence(first)]


def _training_sentence(first: "pd.Series[Any]") -> str:
    return f"Trained on {first['train_examples']:,} images of {first['dataset']} for {first['epochs']} epochs."


def _comparison_sentence(first: "pd.Series[Any]") -> str:
    """Say what the paper's cells and the differences mean."""
    table = _TABLE_OF_MEMBERS[first["members"]]
    sentence = f"paper: AAE and ACE of Table {table}; diff.: measured minus published."
    images, epochs = PAPER_SCALE[first["dataset"]]
    if (first["train_examples"], first["epochs"]) == (images, epochs):
        return sentence
    return (
        f"{sentence} The paper trained on {images:,} images for {epochs} epochs: the values are not comparable "
        "with its cells."
    )


def _seeds_sentence(group: pd.DataFrame, labels: list[str]) -> str:
    """Say how many seeds there are, and which; by column where they differ."""
    several_blocks = group["structure"].nunique() > 1
    columns: dict[tuple[int, ...], list[str]] = {}
    for (structure, column), runs in group.groupby(["structure", "column"]):
        block = f"{structure} " if several_blocks else ""
        columns.setdefault(tuple(sorted(set(runs["seed"]))), []).append(block + labels[column])
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

    A cell is the worst case over a protocol's attacks at its smallest Linf eps, over all images attacked.
    There is a table for each dataset, scale of training and number of clean test images at which more than
    one protocol was measured.
    """
    groups = [group for _, group in results.groupby([*_SCALE, "test_examples"])]
    tables = [_comparison(group) for group in sorted(groups, key=lambda group: _scale_rank(group.iloc[0]))]
    return [table for table in tables if len(table.header) > 4]


def _comparison(group: pd.DataFrame) -> ResultTable:
    first = group.iloc[0]
    worst = group[(group["attack"] == WORST_CASE) & (group["norm"] == "Linf") & (group["table"] == "robust accuracy")]
    smallest = worst.groupby(["record", *GROUP_KEYS])["eps"].transform("min")
    worst = worst[worst["eps"] == smallest]
    clean = group[group["measure"] == "clean_accuracy"]
    keys = ["protocol", "objective", "attacked", "examples", "cumulative", "eps", "attacks_at_bound"]
    columns = sorted((key for key, _ in worst.groupby(keys)), key=lambda key: (_protocol_rank(key[0]), *key[1:]))
    heads = [f"{key[0]}, eps {key[5]:.4g}, {key[3]:,} images" for key in columns]
    measured = [clean, *(worst[(worst[keys] == list(key)).all(axis=1)] for key in columns)]
    methods = _methods(group)
    lines = []
    for structure in sorted(set(group["structure"])):
        for method in methods:
            runs = clean[_is_of(clean, structure, method)]["seed"].nunique()
            if runs:
                values = [lines[_is_of(lines, structure, method)]["value"] for lines in measured]
                texts = [_text(v.count(), runs, v.mean(), v.std()) if v.count() else "" for v in values]
                lines.append([structure, _label(method), *texts])
    caption = (
        "Examples that are classified correctly without attack and under the strongest of a protocol's attacks at "
        "the given eps, of all images attacked. What a method loses from one column to another is what the weaker "
        f"protocol hides. {_training_sentence(first)} "
        f"Seeds {', '.join(map(str, sorted(set(group['seed']))))}; mean ± sample standard deviation where there are "
        f"several. Hardware: {_hardware(group)}."
    )
    return ResultTable(
        f"Robust accuracy by protocol, {first['dataset']}, k = {first['members']}",
        caption,
        ["structure", "method", f"clean, {first['test_examples']:,} images", *heads],
        [lines],
        2,
    )


def _is_of(lines: pd.DataFrame, structure: str, method: Method) -> "pd.Series[bool]":
    """Select the lines of a structure and a method."""
    same_settings = lines["settings"].map(lambda settings: settings == method[1]).astype(bool)
    return (lines["structure"] == structure) & (lines["regularizer"] == method[0]) & same_settings
