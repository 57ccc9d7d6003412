"""Fuzz everything that reads files: python -m tests.fuzzing --inputs=10000 --out=fuzz.json

Exit code 1 if anything but acceptance and a one-line refusal came of any input; the files that led to it are
left beside the JSON.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from absl import flags

from ncen_tf import program
from ncen_tf.errors import InputError

INPUTS = flags.DEFINE_integer("inputs", 10_000, "cases in all, shared among the formats", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the choice of cases")
FORMATS = flags.DEFINE_list("formats", [], "only these (default: all)")
OUT = flags.DEFINE_string("out", "fuzz.json", "what came out")

FOUND = 1


def main() -> int | None:
    from tqdm import tqdm

    from ncen_tf.environment import describe_environment
    from ncen_tf.files import write_json
    from tests.fuzzing.campaign import Finding, run_cases
    from tests.fuzzing.formats import WEIGHTS, cases
    from tests.fuzzing.sandbox import temporary_sandbox

    unknown = [name for name in FORMATS.value if name not in WEIGHTS]
    if unknown:
        raise InputError(f"--formats are of {', '.join(WEIGHTS)}; got {unknown[0]!r}.")
    counts = share(INPUTS.value, {name: WEIGHTS[name] for name in FORMATS.value or WEIGHTS})
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    started, tallies = time.perf_counter(), {}
    findings: list[Finding] = []
    with temporary_sandbox() as sandbox, tqdm(total=sum(counts.values()), unit="input", mininterval=1) as bar:
        seeds = sandbox.seeds()
        for name, count in counts.items():
            bar.set_description(name)
            chosen = cases(name, seeds, sandbox.secret)
            tallies[name] = run_cases(sandbox, name, chosen, count, SEED.value, bar.update)
            findings += tallies[name].findings.values()
    content: dict[str, Any] = {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "seed": SEED.value,
        "seconds": round(time.perf_counter() - started),
        "formats": {name: tally.as_json() for name, tally in tallies.items()},
        "findings": [{"format": f.format, "fault": f.fault, "inputs": f.count} for f in findings],
        "environment": describe_environment(),
    }
    write_json(out, content)
    kept = out.with_suffix("")
    shutil.rmtree(kept, ignore_errors=True)
    for number, finding in enumerate(findings):
        finding.case.write(kept / f"{number}-{finding.format}")
    print(f"{'format':<14}{'inputs':>8}{'accepted':>10}{'refused':>9}{'else':>6}{'MiB':>7}{'s':>6}")
    for name, tally in tallies.items():
        accepted, refused = tally.outcomes["accepted"], tally.outcomes["refused"]
        rest = tally.inputs - accepted - refused
        memory = tally.most_memory >> 20
        print(
            f"{name:<14}{tally.inputs:>8}{accepted:>10}{refused:>9}{rest:>6}{memory:>7}{tally.most_seconds:>6.1f}"
        )
    for finding in findings:
        print(f"FOUND {finding.format}, {finding.count} inputs: {finding.fault}")
    print(f"{content['inputs']} inputs, {len(findings)} findings: {out}")
    return FOUND if findings else None


def share(inputs: int, weights: dict[str, int]) -> dict[str, int]:
    """Inputs for each format, at least one."""
    return {name: max(1, inputs * weight // sum(weights.values())) for name, weight in weights.items()}


if __name__ == "__main__":
    program.run(main)
