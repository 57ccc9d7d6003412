"""A transfer.json as plain text for a terminal."""

from typing import Any

from ncen_tf.report.results import Proportion
from ncen_tf.report.table import interval, percent
from ncen_tf.transfer.matrix import MEASURES

TITLES = {"aae": "AAE", "accuracy": "accuracy", "transfer_rate": "transfer rate"}
NOTES = (
    "AAE: right under attack, of the examples that the column's member gets right when clean (Luo et al.).",
    "accuracy: right under attack, of all examples.",
    "transfer rate: wrong under attack, of the examples that the attack breaks on the row's member and that",
    "both members get right when clean.",
)


def format_transfer(transfer: dict[str, Any]) -> str:
    """Members, then for each attack a table of each measure and the summary.

    Args:
        transfer: as :func:`ncen_tf.transfer.record.build_transfer` makes it.
    """
    lines = [f"{transfer['examples']} examples of {transfer['dataset']}, seed {transfer['seed']}"]
    for number, member in enumerate(transfer["members"]):
        ace = Proportion(**member["ace"])
        lines.append(f"  {number}: {member['description']}, clean {percent(ace)} {interval(ace)}")
    for row in transfer["attacks"]:
        settings = ", ".join(f"{key} {value:g}" for key, value in row["settings"].items())
        lines += ["", f"{row['attack']} {row['norm']} {row['eps']:g} ({settings})"]
        for measure in MEASURES:
            lines += [f"  {TITLES[measure]}", *_grid(row[measure])]
        lines.append(f"  {format_summary(row['summary'])}")
    return "\n".join([*lines, "", *NOTES])


def format_summary(summary: dict[str, float]) -> str:
    """The means of AAE and their difference, in one line."""
    return (
        f"mean AAE off the diagonal {100 * summary['mean_off_diagonal']:.2f} %, "
        f"on it {100 * summary['mean_diagonal']:.2f} %, difference {100 * summary['difference']:+.2f} points"
    )


def _grid(table: list[list[dict[str, Any]]]) -> list[str]:
    header = "".join(f"{f'on {j}':>10}" for j in range(len(table)))
    return [
        f"    {'':<9}{header}",
        *(
            f"    {f'made on {i}':<9}" + "".join(f"{percent(Proportion(**cell)):>10}" for cell in row)
            for i, row in enumerate(table)
        ),
    ]
