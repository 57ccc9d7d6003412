"""Run a stress test: python -m tests.stress inputs --count=10000, or python -m tests.stress kills --kills=50

`inputs` shows damaged and hostile files to everything that reads files. `kills` kills programs with SIGKILL
at random moments and starts them again. If a fault is found, the exit code is 1 and the files are kept.
"""

import argparse
import collections
import dataclasses
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ncen_tf.base.environment import describe_environment
from tests.stress import kills
from tests.stress.kinds import choose_cases, write_seeds
from tests.stress.pool import run_cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("campaign", choices=("inputs", "kills"))
    parser.add_argument("--count", type=int, default=10_000, help="number of inputs")
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--kinds", nargs="*", help="kinds of files (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of damages and moments")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="stress-"))
    result = (run_inputs if options.campaign == "inputs" else run_kills)(options, folder)
    seconds = round(time.monotonic() - started)
    result |= {"seed": options.seed, "seconds": seconds, "environment": describe_environment()}
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    for fault in result["faults"]:
        print(f"FAULT {fault}")
    print(f"{result['total']} {options.campaign}, {len(result['faults'])} faults, {result['seconds']} s")
    if result["faults"]:
        print(f"Files: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def run_inputs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Show inputs to their readers and print a table of the results."""
    for program in ("train", "export", "attack"):
        kills.Task(program, folder).run_to_end()
    write_seeds(seeds := folder / "seeds", folder)
    cases = choose_cases(seeds, options.count, options.seed, options.kinds)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    memory: dict[str, int] = collections.defaultdict(int)
    faults: dict[str, list[str]] = {}
    for case, outcome in tqdm(run_cases(cases, seeds), total=len(cases)):
        counts[case.kind][outcome.status] += 1
        memory[case.kind] = max(memory[case.kind], outcome.memory)
        for fault in outcome.faults(case):
            alike = re.sub(r"\d\w*|'[^']*'|/\S*", "*", f"{case.kind}: {fault}")[:120]
            same = faults.setdefault(alike, [])
            same.append(fault)
            if len(same) == 1:
                case.write(seeds, folder / f"{case.kind}-{case.hostile or case.number}")
    print(f"{'kind':<14}{'inputs':>8}{'accepted':>10}{'refused':>9}{'MiB':>7}")
    for kind, count in sorted(counts.items()):
        numbers = f"{count.total():>8}{count['accepted']:>10}{count['refused']:>9}"
        print(f"{kind:<14}{numbers}{memory[kind] >> 20:>7}")
    texts = [f"{kind.partition(':')[0]}, {len(same)} inputs: {same[0]}" for kind, same in faults.items()]
    return {"total": len(cases), "kinds": counts, "most_memory": memory, "faults": texts}


def run_kills(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill programs and print a table of the results."""
    tasks = kills.run_campaign(folder, options.kills, options.seed)
    print(f"{'program':<9}{'seconds':>8}{'trials':>8}{'kills':>7}{'writing':>9}{'faults':>8}")
    for task in tasks:
        figures = f"{task.seconds:>8.1f}{task.trials:>8}{len(task.moments):>7}{task.while_writing:>9}"
        print(f"{task.program:<9}{figures}{len(task.faults):>8}")
    total = sum(len(task.moments) for task in tasks)
    faults = [fault for task in tasks for fault in task.faults]
    return {"total": total, "programs": [dataclasses.asdict(task) for task in tasks], "faults": faults}


if __name__ == "__main__":
    sys.exit(main())
