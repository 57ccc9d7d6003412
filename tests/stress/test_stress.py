"""A short part of the stress tests, and whether they notice what they look for."""

import json
import os
import pickle
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.stress.comparison import damages, differences
from tests.stress.kills import Task
from tests.stress.kinds import choose_cases, write_seeds
from tests.stress.pool import Case, run_cases


def unpickles(folder: Path) -> None:
    pickle.loads(pickle.dumps(os.path.exists))  # noqa: S301


def starts_a_program(folder: Path) -> None:
    subprocess.run(["/bin/true"], check=True)


def takes_memory(folder: Path) -> None:
    b"x" * (5 << 29)


def dies(folder: Path) -> None:
    os.abort()


def waits(folder: Path) -> None:
    time.sleep(3600)


def raises(folder: Path) -> None:
    raise KeyError


MISDEEDS = {
    raises: "failed: KeyError",
    unpickles: "pickle.find_class",
    starts_a_program: "subprocess.Popen",
    takes_memory: "took 2.5 GiB",
    dies: "died: exit code -6",
    waits: "hung",
}


def test_forbidden_actions_are_noticed(tmp_path: Path) -> None:
    names = [f"{__name__}:{function.__name__}" for function in MISDEEDS]
    for name in names:
        (tmp_path / name).mkdir()
    results = dict(run_cases(map(Case, names[:-1]), tmp_path))
    results |= dict(run_cases([Case(names[-1])], tmp_path, longest=5))
    for name, expected in zip(names, MISDEEDS.values(), strict=True):
        faults = results[Case(name)].faults(Case(name))
        assert any(expected in fault for fault in faults), (name, faults)


def test_damaged_and_different_files_are_noticed(tmp_path: Path) -> None:
    for name, seconds in (("one", 1.0), ("other", 9.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({"accuracy": 0.5, "seconds": seconds}))
        info = json.dumps({"seconds": seconds})
        np.savez(tmp_path / name / "state.npz", predictions=np.arange(3), info=info)
    folder = tmp_path / "other"
    assert differences(tmp_path / "one", folder) == []
    (folder / "report.json").write_text(json.dumps({"accuracy": 0.6}))
    np.savez(folder / "state.npz", predictions=np.arange(3.0))
    (folder / ".5.report.json").write_text("{")
    assert damages(folder) == []
    expected = ["only in one run: .5.report.json", "differs: report.json", "differs: state.npz"]
    assert differences(tmp_path / "one", folder) == expected
    os.truncate(folder / "state.npz", 10)
    assert [fault.split(":")[1] for fault in damages(folder)] == [" state.npz"]


@pytest.fixture(scope="module")
def campaign(tiny_run: Path, tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of a campaign in which train and export have run."""
    folder = tmp_path_factory.mktemp("campaign")
    for name, source in {"train/expected/run": tiny_run, "export/expected/export": tiny_export}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(source)
    return folder


@pytest.fixture(scope="module")
def attack(campaign: Path) -> Task:
    """Make an attack that has run to its end once."""
    task = Task("attack", campaign)
    task.run_to_end()
    return task


def test_a_killed_attack_ends_as_an_uninterrupted_one(attack: Task) -> None:
    attack.run_with_kills(2, seed=0)
    assert attack.faults == []
    assert len(attack.moments) == 2


def test_damaged_and_hostile_files_are_accepted_or_refused(
    attack: Task, campaign: Path, tmp_path: Path
) -> None:
    write_seeds(tmp_path, campaign)
    cases = choose_cases(tmp_path, 250, seed=0)
    results = list(run_cases(cases, tmp_path))
    found = [(case, fault) for case, outcome in results for fault in outcome.faults(case)]
    assert found == []
    untouched = {case.kind: outcome for case, outcome in results if not case.number and not case.hostile}
    assert untouched.pop("archive").status == "refused"
    assert {kind: outcome for kind, outcome in untouched.items() if outcome.status != "accepted"} == {}
    assert sum(bool(case.hostile) for case, _ in results) >= 25
