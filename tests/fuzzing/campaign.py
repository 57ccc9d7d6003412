"""Shows many cases of a format to its reader and counts what came of them."""

import collections
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzzing.case import Case
from tests.fuzzing.formats import Cases
from tests.fuzzing.sandbox import Outcome, Sandbox


@dataclasses.dataclass
class Finding:
    """Cases with the same fault; the first of them stands for all."""

    format: str
    fault: str
    case: Case
    count: int = 0


@dataclasses.dataclass
class Tally:
    """What came of the cases of a format."""

    inputs: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    most_memory: int = 0
    most_seconds: float = 0.0
    findings: dict[str, Finding] = dataclasses.field(default_factory=dict)

    def add(self, name: str, case: Case, outcome: Outcome) -> None:
        """Count a case of a format."""
        self.inputs += 1
        self.outcomes[outcome.outcome] += 1
        self.most_memory = max(self.most_memory, outcome.memory)
        self.most_seconds = max(self.most_seconds, outcome.seconds)
        for fault in outcome.faults:
            kind = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|/\S*", "*", fault)[:100]
            finding = self.findings.setdefault(kind, Finding(name, fault, case))
            finding.count += 1

    def as_json(self) -> dict[str, Any]:
        """The counts."""
        return {
            "inputs": self.inputs,
            "outcomes": dict(self.outcomes),
            "most_memory_bytes": self.most_memory,
            "most_cpu_seconds": round(self.most_seconds, 2),
        }


def run_cases(
    sandbox: Sandbox, name: str, cases: Cases, count: int, seed: int, done: Callable[[], object]
) -> Tally:
    """Show ``count`` cases of a format to its reader.

    Args:
        sandbox: where.
        name: of the format.
        cases: of the format.
        count: how many; fewer if there are no more different ones.
        seed: of the choice among them.
        done: called after each.
    """
    tally = Tally()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases)
    def show(case: Case) -> None:
        tally.add(name, case, sandbox.show(name, case))
        done()

    show()
    return tally
