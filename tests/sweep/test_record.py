"""Records: what is written is read, what is no record is passed over, what is damaged is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.record import read_record, read_records, write_record
from ncen_tf.sweep.table import format_records


@pytest.fixture
def record() -> dict[str, Any]:
    def case(eps: float, value: float, norm: str = "Linf") -> dict[str, Any]:
        share = {"value": value}
        return {"attacks": ["PGD"], "norm": norm, "eps": eps, "robust_accuracy": share, "aae": share}

    return {
        "name": "regularizer=nce,seed=0",
        "run": {
            "test": {"ace": 0.9, "member_ace": [0.8, 0.7]},
            "flags": {
                "dataset": "cifar10",
                "architecture": "resnet8,resnet8",
                "regularizer": "nce",
                "seed": "0",
            },
            "dataset": {"name": "cifar10", "train_examples": 100, "test_examples": 10},
        },
        "export": {"ace": 0.9, "test_examples": 10, "sha256": "ab"},
        "reports": {
            "paper": {
                "protocol": "paper",
                "objective": "member_average",
                "dataset": "cifar10",
                "examples": 10,
                "ace": {"value": 0.9},
                "attacks": [],
                "worst_case": [case(1.5, 0.25, "L2"), case(0.3, 0.125), case(0.1, 0.5)],
            }
        },
        "seconds": {"train": 100.2, "export": 10.0, "paper": 20.0},
    }


def test_records_are_found_below_a_folder_beside_other_json(tmp_path: Path, record: dict[str, Any]) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name / "result.json", record | {"name": name})
    (tmp_path / "a" / "report.json").write_text(json.dumps(record["reports"]["paper"]))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "a" / ".4711.result.json").write_text('{"name": "half wri')
    assert read_records(tmp_path) == [{"format": 1, **record, "name": name} for name in ("a", "b")]
    with pytest.raises(InputError, match="no record of a sweep"):
        read_record(tmp_path / "a" / "report.json")
    with pytest.raises(InputError, match="is not a folder"):
        read_records(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("format", 2, "has format 2; this version reads 1"),
        ("run.test.ace", None, "run.test.ace has the wrong type, NoneType"),
        ("run.flags", {}, "run.flags.dataset is missing"),
        ("reports.paper.attacks", {}, "reports.paper.attacks has the wrong type"),
        ("reports.paper", 3, "reports.paper is not a table"),
    ],
)
def test_damaged_records_are_refused_with_the_field(
    path: str, value: object, says: str, tmp_path: Path, record: dict[str, Any]
) -> None:
    *parents, last = path.split(".")
    inner = record
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(InputError, match=says):
        write_record(tmp_path / "new.json", record)
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, **record}))
    with pytest.raises(InputError, match=says):
        read_records(tmp_path)


def test_the_table_has_the_worst_case_below_its_suite_norm_and_eps(record: dict[str, Any]) -> None:
    paper = record["reports"]["paper"]
    wide = paper | {"worst_case": [row for row in paper["worst_case"] if row["eps"] == 0.3]}
    other = record | {"name": "x", "reports": {"wide": wide}}
    suites, balls, first, second, *_ = format_records([record, other]).splitlines()
    assert suites.split() == ["cell", "ACE", "paper", "paper", "paper", "wide", "seconds"]
    assert re.split("  +", balls.strip()) == ["Linf 0.1", "Linf 0.3", "L2 1.5", "Linf 0.3"]
    assert first.split() == ["regularizer=nce,seed=0", "0.9000", "0.500", "0.125", "0.250", "-", "130"]
    assert second.split() == ["x", "0.9000", "-", "-", "-", "0.125", "130"]
    ends = [[match.end() for match in re.finditer(r"\S+(?= |$)", line)] for line in (suites, first)]
    assert ends[0][1:] == ends[1][1:], "values are right below their heads"


def test_the_table_of_a_sweep_without_attacks(record: dict[str, Any]) -> None:
    assert [line.split() for line in format_records([record | {"reports": {}}]).splitlines()] == [
        ["cell", "ACE", "seconds"],
        ["regularizer=nce,seed=0", "0.9000", "130"],
    ]


def test_the_table_of_a_record_that_knows_less(record: dict[str, Any]) -> None:
    del record["seconds"]
    for row in record["reports"]["paper"]["worst_case"]:
        row["robust_accuracy"] = {"value": None}
    assert format_records([record]).splitlines()[2].split()[2:] == ["n/a", "n/a", "n/a", "0"]
