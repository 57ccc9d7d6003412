"""transfer.json: what a transfer run measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncen_tf.attack.attack import Attack
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import write_json
from ncen_tf.report.metrics import clean_accuracy
from ncen_tf.targets.target import Target
from ncen_tf.transfer.matrix import MEASURES, summarize, transfer_matrix
from ncen_tf.transfer.run import TransferResult
from ncen_tf.untrusted.input_files import NUMBER, check_content, read_json

FORMAT = 1

PROPORTION = {"value": (*NUMBER, type(None)), "count": int, "total": int, "interval": [NUMBER, NUMBER]}

_MEMBER = {"description": str, "sha256": str, "providers": [str], "ace": PROPORTION}
# Each member is right on some clean image: only a transfer rate may have counted nothing.
_CELLS = {
    measure: [[PROPORTION if measure == "transfer_rate" else {**PROPORTION, "value": NUMBER}]]
    for measure in MEASURES
}
_TRANSFER = {
    "dataset": str,
    "examples": int,
    "seed": int,
    "batch_size": int,
    "members": [_MEMBER],
    "attacks": [
        {
            "attack": str,
            "norm": str,
            "eps": NUMBER,
            "settings": {str: NUMBER},
            **_CELLS,
            "summary": dict.fromkeys(("mean_diagonal", "mean_off_diagonal", "difference"), NUMBER),
        }
    ],
    "environment": dict,
}


def build_transfer(
    members: Sequence[Target],
    attacks: Sequence[Attack],
    result: TransferResult,
    *,
    dataset: str,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """The content of transfer.json, ready for JSON.

    Each attack has one table for each of :data:`ncen_tf.transfer.matrix.MEASURES`: row i for the
    images made on member i, column j for what member j made of them, each cell with value, count, total and
    95 % interval. ``summary`` is of ``aae``.

    Args:
        members: in the order of rows and columns.
        attacks: in the order of ``result.adversarial``.
        result: what was counted.
        dataset: a key of ``ncen_tf.data.datasets.DATASETS``.
        seed: of the run.
        batch_size: of the run.
    """
    return {
        "format": FORMAT,
        "dataset": dataset,
        "examples": len(result.labels),
        "seed": seed,
        "batch_size": batch_size,
        "members": [
            {
                "description": member.description,
                "sha256": member.sha256,
                "providers": list(member.providers),
                "ace": clean_accuracy(result.labels, clean).model_dump(mode="json"),
            }
            for member, clean in zip(members, result.clean, strict=True)
        ],
        "attacks": [_attack_tables(attack, result, index) for index, attack in enumerate(attacks)],
        "environment": describe_environment(),
    }


def write_transfer(file: Path, transfer: dict[str, Any]) -> None:
    """Write transfer.json at once."""
    write_json(file, transfer)


def read_transfer(file: Path) -> dict[str, Any]:
    """A transfer.json that :func:`write_transfer` wrote.

    Raises:
        InputError: a file that is missing, no transfer.json, or of another format.
    """
    transfer = read_json(file)
    if not isinstance(transfer, dict) or transfer.get("format") != FORMAT:
        raise InputError(f"{file} is no transfer file of format {FORMAT}: write it with ncen_tf.transfer.")
    check_content(str(file), transfer, _TRANSFER)
    for number, row in enumerate(transfer["attacks"]):
        for measure in MEASURES:
            _check_square(f"{file}: attacks[{number}].{measure}", row[measure], len(transfer["members"]))
    return transfer


def _attack_tables(attack: Attack, result: TransferResult, index: int) -> dict[str, Any]:
    matrix = transfer_matrix(result.labels, result.clean, result.adversarial[index])
    summary = summarize(matrix)
    settings = attack.settings()
    return {
        **{key: settings.pop(key) for key in ("attack", "norm", "eps")},
        "settings": settings,
        **{
            measure: [[getattr(cell, measure).model_dump(mode="json") for cell in row] for row in matrix]
            for measure in MEASURES
        },
        "summary": {
            "mean_diagonal": summary.diagonal,
            "mean_off_diagonal": summary.off_diagonal,
            "difference": summary.difference,
        },
    }


def _check_square(where: str, table: list[list[Any]], size: int) -> None:
    if len(table) != size or any(len(row) != size for row in table):
        raise InputError(f"{where} is not a table of {size} x {size} cells, one for each pair of members.")
