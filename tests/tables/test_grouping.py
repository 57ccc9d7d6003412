"""Which runs and attacks share a table, a column or a row, and which records are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.tables.experiments import read_experiments
from ncen_tf.tables.page import sections
from tests.tables.records import report, run, write


def test_other_attack_settings_are_another_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed, steps in enumerate((10, 20)):
        attacks = [{"attack": "PGD", "eps": 0.1, "settings": {"steps": steps}}]
        write(tmp_path, f"s{seed}", run(rng, seed=seed), [report(rng, attacks=attacks)])
    tables = sections(read_experiments(tmp_path))["Protocol paper"]
    assert sorted(sentence for table in tables for sentence in table.caption if "Attacks" in sentence) == [
        *2 * ["Attacks: PGD (steps 10)."],
        *2 * ["Attacks: PGD (steps 20)."],
    ]


def test_rows_that_look_alike_say_how_they_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    attacks = [
        {"attack": "PGD", "eps": 0.1, "settings": {"steps": steps, "step_size": size}}
        for steps, size in ((10, 0.1), (20, 0.1), (20, 0.05))
    ]
    attacks.append({"attack": "PGD", "eps": 0.2, "settings": {"steps": 10, "step_size": 0.1}})
    write(tmp_path, "one", run(rng), [report(rng, attacks=attacks)])
    table = sections(read_experiments(tmp_path))["Protocol paper"][0]
    heads = [row.head[0] for row, _ in table.blocks[0].lines]
    assert heads[1:5] == [
        "PGD (step_size 0.1, steps 10)",
        "PGD (step_size 0.1, steps 20)",
        "PGD (step_size 0.05, steps 20)",
        "PGD",
    ]


def test_a_flag_that_old_runs_lack_counts_as_the_datasets_default(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        of_run = run(rng, dataset="cifar10", regularizer="gpmr", seed=seed)
        if seed == 1:
            del of_run["flags"]["lambda_div"]
        write(tmp_path, f"s{seed}", of_run, [report(rng, dataset="cifar10")])
    table = sections(read_experiments(tmp_path))["Protocol paper"][0]
    assert table.labels == ("GPMR",)
    assert all(cell is not None and cell.seeds == (0, 1) for cell in (c for _, (c,) in table.blocks[0].lines))


@pytest.mark.parametrize("count", [None, 10_000])
def test_the_same_run_twice_is_refused(tmp_path: Path, count: int | None) -> None:
    """Also where only one of them states how many images there are."""
    rng = np.random.default_rng(0)
    write(tmp_path, "one", run(rng))
    again = run(rng)
    again["flags"].pop("train_examples")
    if count:
        again["flags"]["train_examples"] = str(count)
    write(tmp_path, "two", again)
    with pytest.raises(InputError, match="'one' and 'two'"):
        read_experiments(tmp_path)


@pytest.mark.parametrize(
    ("break_record", "says"),
    [
        (lambda r: r["reports"].update(again=r["reports"]["paper"]), "two reports of the same protocol"),
        (lambda r: r["run"].pop("environment"), "'one'.*environment"),
        (lambda r: r["run"]["flags"].update(dataset="mnist"), "unknown dataset 'mnist'"),
        (lambda r: r["run"]["flags"].update(epochs="many"), "flags of a run"),
        (lambda r: r["run"]["flags"].update(dropout="0.1"), "dropout"),
        (lambda r: r["run"]["test"].update(gradient_norm=[[1.0], [2.0, 3.0]]), "'one'"),
        (lambda r: r["reports"]["paper"]["attacks"][0].pop("aae"), "one.*aae is missing"),
        (
            lambda r: r["reports"]["paper"]["attacks"][0].update(aae={"value": "high"}),
            "aae.value has the wrong type",
        ),
        (
            lambda r: r["reports"]["paper"]["attacks"].append(r["reports"]["paper"]["attacks"][0]),
            "FGSM twice",
        ),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, break_record: Any, says: str) -> None:
    rng = np.random.default_rng(0)
    record = write(tmp_path, "one", run(rng), [report(rng)])
    break_record(record)
    (tmp_path / "one" / "result.json").write_text(json.dumps({"format": 1, **record}))
    with pytest.raises(InputError, match=says):
        read_experiments(tmp_path)
