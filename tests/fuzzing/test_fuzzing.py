"""A quick part of what ``python -m tests.fuzzing`` does, always the same cases."""

import pytest

from tests.fuzzing.campaign import run_cases
from tests.fuzzing.case import Case, Files
from tests.fuzzing.formats import WEIGHTS, cases, hostile_cases
from tests.fuzzing.misdeeds import MISDEEDS
from tests.fuzzing.readers.registry import READERS
from tests.fuzzing.sandbox import Sandbox

INPUTS = 150
"""In all; the campaign has thousands."""
SAYS = {
    "unpickles": "pickle.find_class",
    "starts_a_program": "subprocess.Popen",
    "connects": "socket.connect",
    "reads_outside": "touched outside/secret.bin",
    "reads_outside_in_c": "touched outside/secret.bin",
    "reads_in_the_working_directory": "touched cwd/secret.bin",
    "writes_outside": "touched sandbox/written",
    "takes_memory": "took 2.5 GiB",
    "raises": "failed: KeyError",
    "says_too_little": "not in one printable line",
    "dies": "died: exit code -11",
    "waits": "too slow",
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_the_sandbox_notices(name: str, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    if name == "waits":
        monkeypatch.setattr("tests.fuzzing.sandbox.MOST_SECONDS", 0.5)
    assert any(SAYS[name] in fault for fault in sandbox.show(name, Case({})).faults)


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_mutations_start_from_is_accepted(name: str, sandbox: Sandbox, seeds: dict[str, Files]) -> None:
    outcome = sandbox.show(name, Case(seeds[name]))
    # Only the datasets' authors can make archives that are accepted.
    assert outcome.outcome == ("refused" if name == "archives" else "accepted"), outcome
    assert not outcome.faults


@pytest.mark.parametrize("name", WEIGHTS)
def test_damaged_and_hostile_files_are_accepted_or_refused(
    name: str, sandbox: Sandbox, seeds: dict[str, Files]
) -> None:
    count = max(2, INPUTS * WEIGHTS[name] // sum(WEIGHTS.values()))
    tally = run_cases(sandbox, name, cases(name, seeds, sandbox.secret), count, seed=0, done=lambda: None)
    assert not tally.findings
    assert tally.inputs == count


@pytest.mark.parametrize("name", ["onnx_parity", "keras", "saved_model"])
def test_code_and_files_outside_are_refused(name: str, sandbox: Sandbox, seeds: dict[str, Files]) -> None:
    hostile = hostile_cases(name, seeds, sandbox.secret)
    wanted = {kind: case for kind, case in hostile.items() if case.must_be_refused}
    assert len(wanted) > 10
    outcomes = {kind: sandbox.show(name, case) for kind, case in wanted.items()}
    assert {kind: outcome.faults for kind, outcome in outcomes.items() if outcome.faults} == {}
    assert {outcome.outcome for outcome in outcomes.values()} == {"refused"}


def test_every_format_is_fuzzed() -> None:
    assert set(WEIGHTS) == set(READERS)
