"""Records of a sweep as one long table: a line for every number that was measured on a run."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import flags_of
from ncen_tf.ensembles.structures import STRUCTURES, structure_architecture
from ncen_tf.report.results import AttackRow, Report, WorstCase
from ncen_tf.sweep.records import CellRecord, read_records
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import TestMetrics

Line = dict[str, Any]
Setting = tuple[str, str]
Method = tuple[str, tuple[Setting, ...]]
"""A regularizer, and the settings that are not its defaults."""

WORST_CASE = "worst case"
METHOD_NAMES = {
    "none": "BL",
    "ncl": "NCL",
    "gal": "GAL",
    "gpmr": "GPMR",
    "trs": "TRS",
    "dverge": "DVERGE",
    "adp": "ADP",
    "nce": "NCEn",
}
"""Names of the regularizers in the paper's tables, in its order; NCL, TRS, DVERGE and ADP are not in it."""
PAPER_SCALE = {"fashion_mnist": (60_000, 40), "cifar10": (50_000, 60)}
"""Training images and epochs of the paper, by dataset."""

# The paper's cells are shown beside these protocols and objectives: its own loss, and its authors' code.
_COMPARABLE = {("paper", "member_average"), ("released", "stacked_softmax")}
# Tables keep these apart as blocks, repetitions and scale, or they do not change the weights.
_NOT_OF_METHOD = {
    *("dataset", "architecture", "regularizer", "seed", "epochs", "train_examples", "test_examples"),
    "checkpoint_every",
}
# These make another method than the paper's: the regularizer's own settings, and adversarial training.
_DEPARTURES = {
    flag.name for flag in flags_of(TrainConfig) if flag.path[0] in ("regularizer", "adversarial_training")
} - {"regularizer", "nce_form"}
# Measured on attacked images, after adversarial training: not part of a table about clean images.
_ATTACKED = ("training_attack_accuracy", "pgd_accuracy")
# Columns that are empty where no attack was run.
_OF_ATTACKS = (
    *("protocol", "objective", "attacked", "attack_settings", "attacks", "attack", "norm", "detail"),
    *("attacks_at_bound", "attack_hardware", "machine"),
)
# Relative to the members' largest value: float32 leaves less than this of differences that are zero.
_ROUNDING = 1e-6


def read_results(folder: str | Path) -> pd.DataFrame:
    """Read all records of sweeps below a folder into one long table.

    Args:
        folder: Folder of a sweep, or any folder that holds records of its cells.

    Returns:
        A line for each measured number (``value``). The other columns say what was trained (``dataset``,
        ``structure``, ``regularizer``, ``settings``, ``seed``, ...), how it was measured (``protocol``,
        ``objective``, ``examples``, ``attack_settings``, ...), what the number is (``measure``, ``attack``,
        ``norm``, ``eps``, ``detail``), and what the paper has there (``paper``).

    Raises:
        InputError: There is no record, or two records have the same settings and seed.

    Examples:
        >>> import ncen_tf
        >>> results = ncen_tf.read_results("docs/results")
        >>> sorted(set(results["protocol"]) - {""})
        ['paper', 'released', 'strict']
    """
    records = read_records(Path(folder))
    # Python's own strings: columns of pandas' string type take several times as long in frames this small.
    frame = pd.DataFrame([line for record in records for line in _lines(record)], dtype=object)
    frame = frame.astype({"value": float, "eps": float, "seed": int, "members": int, "examples": int})
    identity = ["dataset", "structure", "train_examples", "epochs", "regularizer", "settings", "seed"]
    same = frame.drop_duplicates("record").groupby(identity)["record"].agg(list)
    if (twice := same[same.map(len) > 1]).size:
        first, second, *_ = twice.iloc[0]
        raise InputError(
            f"The records {first!r} and {second!r} in {folder} have the same settings and seed: remove one "
            "of them."
        )
    return _with_paper_cells(frame.sort_values("seed", kind="stable", ignore_index=True))


def method_settings(config: TrainConfig) -> tuple[Setting, ...]:
    """List the settings that are not the defaults of the run's dataset and regularizer, by name.

    Scale, seed and members are left out: they do not make another method.
    """
    settings = config.flat()
    chosen = {name: settings[name] for name in ("dataset", "regularizer", "adversarial_training")}
    defaults = TrainConfig.from_flags(chosen).flat() | {"adversarial_training": "none"}
    return tuple(
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in sorted(settings.items())
        if name not in _NOT_OF_METHOD and value != defaults.get(name)
    )


def is_departure(setting: str) -> bool:
    """Return whether a setting that is not the default makes it another method than the paper's."""
    return setting in _DEPARTURES


def methods_of(group: pd.DataFrame) -> list[Method]:
    """List the methods of results in the paper's order."""
    return sorted(set(zip(group["regularizer"], group["settings"], strict=True)), key=method_rank)


def method_rank(method: Method) -> tuple[Any, ...]:
    """Sort methods as the paper does, those with its own settings first."""
    return list(METHOD_NAMES).index(method[0]), len(method[1]), method[1]


def common_settings(methods: Sequence[Method]) -> frozenset[Setting]:
    """Find the settings that all methods share, which the caption names.

    What makes it another method than the paper's stays in the labels; of adversarial training, only that
    there is one, for its details are long.
    """
    shared = frozenset.intersection(*(frozenset(settings) for _, settings in methods))
    return frozenset(s for s in shared if not is_departure(s[0]) or s[0].startswith(("at_", "trades_")))


def method_label(method: Method, common: Iterable[Setting] = ()) -> str:
    """Name a method as ``NCEn, lambda_norm -0.02``, without the settings that all columns share."""
    own = describe_settings(s for s in method[1] if s not in common)
    return f"{METHOD_NAMES[method[0]]}, {own}" if own else METHOD_NAMES[method[0]]


def lines_of(frame: pd.DataFrame) -> list[Any]:
    """List the lines of a frame, which have its columns as attributes."""
    return list(frame.itertuples(index=False))


def describe_settings(settings: Iterable[Setting]) -> str:
    """Write settings as ``decay_every 3, lambda_norm -0.02``."""
    return ", ".join(f"{name} {text}" for name, text in sorted(settings))


def _lines(record: CellRecord) -> Iterator[Line]:
    run, config = record.run, record.config
    base: Line = {
        "record": record.name,
        "dataset": config.dataset,
        "members": len(config.members),
        "train_examples": run.data.train_examples,
        "test_examples": run.data.test_examples,
        "epochs": config.epochs,
        "structure": _structure(config.members),
        "regularizer": config.flat()["regularizer"],
        "settings": method_settings(config),
        "seed": config.seed,
        "config": config.flat(),
        "hardware": _hardware(run.environment),
        **dict.fromkeys(_OF_ATTACKS, ""),
        "cumulative": False,
        "eps": np.nan,
    }
    seen = set()
    for report in record.reports.values():
        key = (report.protocol, report.objective, report.examples)
        if key in seen:
            raise InputError(
                f"The record {record.name!r} has two reports of protocol {report.protocol!r} with the same "
                "objective and number of examples."
            )
        seen.add(key)
        for line in _report_lines(report):
            yield base | line
    for line in _diagnostic_lines(run.test):
        yield base | {"table": "gradients", "examples": run.data.test_examples} | line
    cost = {"measure": "seconds per step", "value": run.median_seconds_per_step}
    yield base | {"table": "cost", "examples": 0, "machine": base["hardware"]} | cost


def _report_lines(report: Report) -> Iterator[Line]:
    attacks = [_describe_attack(row) for row in report.attacks]
    base: Line = {
        "protocol": report.protocol,
        "objective": report.objective,
        "attacked": report.dataset,
        "examples": report.examples,
        "cumulative": report.cumulative,
        "attack_settings": ("cumulative: " if report.cumulative else "") + "; ".join(attacks),
        "attacks": _describe_attacks(report),
        "attack_hardware": _hardware(report.environment),
    }
    for measure, share in (("AAE", "aae"), ("robust accuracy", "robust_accuracy")):
        base |= {"table": measure, "measure": measure}
        # The first row is the accuracy without attack; each table has its own name for it.
        clean = {"measure": "ACE"} if measure == "AAE" else {"attack": "clean", "eps": 0.0}
        yield base | clean | {"value": report.clean_accuracy.value}
        for row in report.attacks:
            alike = [
                _settings(o) for o in report.attacks if (o.attack, _bound(o)) == (row.attack, _bound(row))
            ]
            differing = [s for s in _settings(row) if any(s not in other for other in alike)]
            attacked = {"attack": row.attack, "detail": describe_settings(differing)}
            yield base | _bound(row) | attacked | {"value": getattr(row, share).value}
        for worst in report.worst_case:
            if len(worst.attacks) > 1:
                at_bound = zip(report.attacks, attacks, strict=True)
                here = "; ".join(text for row, text in at_bound if _bound(row) == _bound(worst))
                attacked = {"attack": WORST_CASE, "attacks_at_bound": here}
                yield base | _bound(worst) | attacked | {"value": getattr(worst, share).value}


def _bound(row: AttackRow | WorstCase) -> Line:
    return {"norm": row.norm, "eps": row.eps}


def _settings(row: AttackRow) -> list[Setting]:
    return sorted((name, str(value)) for name, value in row.settings.items())


def _describe_attack(row: AttackRow) -> str:
    settings = describe_settings(_settings(row))
    return f"{row.attack} {row.norm} {row.eps}" + (f" ({settings})" if settings else "")


def _describe_attacks(report: Report) -> str:
    """Write each attack once, with its settings at all bounds: ``PGD (step_size 0.1/0.15, steps 40)``."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in report.attacks:
        for name, text in _settings(row) or [("", "")]:
            found.setdefault(row.attack, {}).setdefault(name, []).append(text)
    parts = []
    for attack, settings in found.items():
        texts = [f"{name} {'/'.join(dict.fromkeys(texts))}" for name, texts in settings.items() if name]
        parts.append(attack + (f" ({', '.join(texts)})" if texts else ""))
    if any(len(worst.attacks) > 1 for worst in report.worst_case):
        parts.append("worst case: each example under its strongest attack of the same norm and eps")
    return "; ".join(parts)


def _diagnostic_lines(test: TestMetrics) -> Iterator[Line]:
    """Yield what was measured on clean test images; values of members as their mean and range."""
    for name, value in test:
        numbers = np.asarray(value, np.float64)
        if name in _ATTACKED or not numbers.size:
            continue
        summaries = {"": numbers} if numbers.ndim == 0 else {"mean": numbers.mean(), "range": np.ptp(numbers)}
        for detail, number in summaries.items():
            is_rounding = abs(number) < _ROUNDING * np.abs(numbers).max()
            yield {"measure": name, "detail": detail, "value": 0.0 if is_rounding else float(number)}


def _structure(members: tuple[str, ...]) -> str:
    """Return ``Ensemble1`` to ``Ensemble4``, or ``resnet8+resnet8`` of other members than the paper's."""
    if len(members) in (3, 4, 5):
        for name in STRUCTURES:
            if structure_architecture(name, len(members)) == members:
                return name
    return "+".join(members)


def _hardware(environment: dict[str, Any]) -> str:
    gpus = [f"GPU {name}" for name in environment.get("gpus") or ()]
    cores = environment.get("cores", "unknown")
    cores = f"{cores} CPU core{'' if cores == 1 else 's'}"
    return ", ".join([*gpus, cores, str(environment.get("platform", "unknown platform"))])


def _with_paper_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``paper``: the cell of Tables II-IV (Luo et al.) where one may be compared."""
    keys = ["dataset", "structure", "members", "regularizer", "attack", "eps"]
    comparable = [
        line.table == "AAE"
        and (line.protocol, line.objective) in _COMPARABLE
        and line.attacked == line.dataset
        and not any(is_departure(name) for name, _ in line.settings)
        for line in lines_of(frame)
    ]
    named = frame.assign(attack=frame["attack"].where(frame["measure"] != "ACE", "ACE"))
    paper = named[keys].merge(paper_cells(), on=keys, how="left")["value"]
    return frame.assign(paper=paper.where(np.array(comparable)))


@functools.cache
def paper_cells() -> pd.DataFrame:
    """Read the legible cells of Tables II-IV (Luo et al.).

    Returns:
        A line a cell: ``dataset``, ``structure``, ``members``, ``regularizer`` (``none`` is the paper's BL),
        ``attack`` (``ACE`` for clean accuracy), ``eps`` (Linf, images in [0, 1]; NaN for ACE; BIM's 0.2 on
        CIFAR-10 is read as 0.02), and ``value``: ACE or AAE in [0, 1].
    """
    with (resources.files("ncen_tf.tables") / "paper_cells.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(
            stream, dtype=dict.fromkeys(("dataset", "structure", "regularizer", "attack"), object)
        )
