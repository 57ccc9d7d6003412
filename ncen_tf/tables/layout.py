"""Values of single runs -> a table of methods and structures, over seeds."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ncen_tf.ensembles.structures import STRUCTURES
from ncen_tf.tables.experiments import Experiment, structure_of
from ncen_tf.tables.methods import Method, common_settings, describe_settings
from ncen_tf.tables.table import Block, Cell, Row, Table

Architecture = tuple[str, ...]
Published = Callable[[Architecture, Method, Row], float | None]


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was measured on one run, by row."""

    experiment: Experiment
    values: Mapping[Row, float | None]


def lay_out(
    samples: Sequence[Sample],
    *,
    title: str,
    caption: Sequence[str],
    context: dict[str, str | int],
    hardware: str,
    row_head: tuple[str, ...],
    published: Published = lambda architecture, method, row: None,
) -> Table:
    """A table; sentences on seeds, common settings and hardware are added to the caption.

    Args:
        samples: at least one; of one dataset and scale, no two of the same method, architecture and seed.
        title: of the table.
        caption: its first sentences.
        context: what holds for all samples, by name.
        hardware: that everything was measured on.
        row_head: one or two names for what :attr:`Row.head` says.
        published: the paper's cell, ``None`` where it has none.
    """
    groups: dict[tuple[Architecture, Method], list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.experiment.config.seed):
        key = (sample.experiment.config.architecture, sample.experiment.method)
        groups.setdefault(key, []).append(sample)
    groups = dict(sorted(groups.items(), key=lambda item: (structure_rank(item[0][0]), item[0][1].rank)))
    columns = sorted({method for _, method in groups}, key=lambda method: method.rank)
    common = common_settings(columns)
    labels = [method.label(common) for method in columns]
    rows = list(dict.fromkeys(row for sample in samples for row in sample.values))
    blocks = []
    for architecture in dict.fromkeys(architecture for architecture, _ in groups):
        lines = []
        for row in rows:
            cells = (
                _cell(groups.get((architecture, method)), row, published(architecture, method, row))
                for method in columns
            )
            lines.append((row, tuple(cells)))
        blocks.append(Block(structure_name(architecture), tuple(lines)))
    settings = [f"All trained with {describe_settings(common)}."] if common else []
    return Table(
        title,
        (
            *caption,
            _seeds_sentence(groups, dict(zip(columns, labels, strict=True))),
            *settings,
            f"Hardware: {hardware}.",
        ),
        {**context, "hardware": hardware},
        row_head,
        tuple(columns),
        tuple(labels),
        tuple(blocks),
    )


def structure_name(architecture: Architecture) -> str:
    """``Ensemble1``, or ``resnet8+resnet8`` of an architecture that the paper does not have."""
    return structure_of(architecture) or "+".join(architecture)


def structure_rank(architecture: Architecture) -> tuple[int, Architecture]:
    """Sorts architectures: the paper's structures first."""
    structure = structure_of(architecture)
    return STRUCTURES.index(structure) if structure else len(STRUCTURES), architecture


def _cell(group: list[Sample] | None, row: Row, paper: float | None) -> Cell | None:
    if group is None:
        return None
    seeds = tuple(sample.experiment.config.seed for sample in group)
    return Cell(seeds, tuple(sample.values.get(row) for sample in group), paper)


def _seeds_sentence(
    groups: Mapping[tuple[Architecture, Method], list[Sample]], labels: Mapping[Method, str]
) -> str:
    """How many seeds, and which; column by column where they differ."""
    several_blocks = len({architecture for architecture, _ in groups}) > 1
    columns: dict[tuple[int, ...], list[str]] = {}
    for (architecture, method), group in groups.items():
        seeds = tuple(sample.experiment.config.seed for sample in group)
        block = f"{structure_name(architecture)} " if several_blocks else ""
        columns.setdefault(seeds, []).append(block + labels[method])
    counts = (
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"
        + (f" for {' and '.join(names)}" if len(columns) > 1 else "")
        for seeds, names in columns.items()
    )
    several = any(len(seeds) > 1 for seeds in columns)
    figures = "Mean ± sample standard deviation" if several else "Single runs"
    return f"{figures}: {'; '.join(counts)}."
