"""What came out of a campaign, for machines and for the terminal."""

from typing import Any

from ncen_tf.base.environment import describe_environment
from tests.fuzzing.campaign import Tally


def as_json(tallies: dict[str, Tally]) -> dict[str, Any]:
    """What came out, by format."""
    findings = [finding for tally in tallies.values() for finding in tally.findings.values()]
    return {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "formats": {name: tally.as_json() for name, tally in tallies.items()},
        "findings": [{"format": f.format, "fault": f.fault, "inputs": f.count} for f in findings],
        "environment": describe_environment(),
    }


def as_table(tallies: dict[str, Tally]) -> str:
    """What came out: most memory in MiB and most processor seconds of an input, and what was found."""
    lines = [f"{'format':<14}{'inputs':>8}{'accepted':>10}{'refused':>9}{'else':>6}{'MiB':>7}{'s':>6}"]
    for name, tally in tallies.items():
        accepted, refused = tally.outcomes["accepted"], tally.outcomes["refused"]
        rest, memory = tally.inputs - accepted - refused, tally.most_memory >> 20
        counts = f"{tally.inputs:>8}{accepted:>10}{refused:>9}{rest:>6}"
        lines.append(f"{name:<14}{counts}{memory:>7}{tally.most_seconds:>6.1f}")
    findings = [finding for tally in tallies.values() for finding in tally.findings.values()]
    lines += [f"FOUND {finding.format}, {finding.count} inputs: {finding.fault}" for finding in findings]
    inputs = sum(tally.inputs for tally in tallies.values())
    return "\n".join([*lines, f"{inputs} inputs, {len(findings)} findings"])
