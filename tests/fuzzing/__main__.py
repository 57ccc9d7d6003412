"""Fuzz everything that reads files: python -m tests.fuzzing --inputs=10000 --out=fuzz.json

Exit code 1 if anything but acceptance and a one-line refusal came of any input; the files that led to it are
left beside the JSON.
"""

import shutil
import time
from pathlib import Path

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from tests.shares import share

INPUTS = flags.DEFINE_integer("inputs", 10_000, "cases in all, shared among the formats", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the choice of cases")
FORMATS = flags.DEFINE_list("formats", [], "only these (default: all)")
OUT = flags.DEFINE_string("out", "fuzz.json", "what came out")

FOUND = 1


def main() -> int | None:
    from tqdm import tqdm

    from ncen_tf.base.files import write_json
    from tests.fuzzing.campaign import Tally, run_cases
    from tests.fuzzing.formats import WEIGHTS, cases
    from tests.fuzzing.sandbox import temporary_sandbox
    from tests.fuzzing.summary import as_json, as_table

    unknown = [name for name in FORMATS.value if name not in WEIGHTS]
    if unknown:
        raise InputError(f"--formats are of {', '.join(WEIGHTS)}; got {unknown[0]!r}.")
    counts = share(INPUTS.value, {name: WEIGHTS[name] for name in FORMATS.value or WEIGHTS})
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = out.with_suffix("")
    shutil.rmtree(kept, ignore_errors=True)
    started = time.perf_counter()
    tallies: dict[str, Tally] = {}
    with temporary_sandbox() as sandbox, tqdm(total=sum(counts.values()), unit="input", mininterval=1) as bar:
        seeds = sandbox.seeds()
        for name, count in counts.items():
            bar.set_description(name)
            chosen = cases(name, seeds, sandbox.secret)
            tallies[name] = run_cases(sandbox, name, chosen, count, SEED.value, bar.update)
            for number, finding in enumerate(tallies[name].findings.values()):
                finding.case.write(kept / f"{name}-{number}")
            seconds = round(time.perf_counter() - started)
            write_json(out, as_json(tallies) | {"seed": SEED.value, "seconds": seconds})
    print(as_table(tallies))
    return FOUND if any(tally.findings for tally in tallies.values()) else None


if __name__ == "__main__":
    program.run(main)
