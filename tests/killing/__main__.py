"""Kill programs and compare what they end with: python -m tests.killing --kills=50 --out=killing.json

SIGKILLs training, export, attack and sweep, with all that they have started, at random moments; starts the
same command again, until it completes by itself; and compares what it leaves with an undisturbed run. Exit
code 1 if anything differs, is half written or is left over; the folders are then left beside the JSON.
"""

import shutil
from pathlib import Path

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from tests.shares import share

KILLS = flags.DEFINE_integer("kills", 50, "in all, shared among the programs", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the moments")
PROGRAMS = flags.DEFINE_list("programs", [], "of train, export, attack, sweep (default: all)")
OUT = flags.DEFINE_string("out", "killing.json", "what came out")

FOUND = 1


def main() -> int | None:
    from tqdm import tqdm

    from ncen_tf.base.environment import describe_environment
    from ncen_tf.base.files import write_json
    from tests.killing.campaign import Campaign
    from tests.killing.tasks import NEEDS, SHARES, make_tasks

    unknown = [name for name in PROGRAMS.value if name not in NEEDS]
    if unknown:
        raise InputError(f"--programs are of {', '.join(NEEDS)}; got {unknown[0]!r}.")
    out = Path(OUT.value).resolve()
    folder = out.with_suffix("")
    if folder.exists():
        raise InputError(f"{folder} exists: choose another --out.")
    folder.mkdir(parents=True)
    tasks = make_tasks(folder)
    chosen = [name for name in NEEDS if name in (PROGRAMS.value or NEEDS)]
    needed = [name for name in NEEDS if any(name in (one, *NEEDS[one]) for one in chosen)]
    kills = share(KILLS.value, {name: SHARES[name] for name in chosen})
    tallies = []
    with tqdm(total=sum(kills.values()), unit="kill", smoothing=0) as bar:
        campaign = Campaign(SEED.value, bar.update)
        for name in needed:
            bar.set_description(f"{name}, undisturbed")
            seconds = campaign.run_undisturbed(tasks[name])
            if name in chosen:
                bar.set_description(name)
                tallies.append(campaign.run(tasks[name], seconds, kills[name]))
                content = {
                    "kills": sum(len(tally.moments) for tally in tallies),
                    "seed": SEED.value,
                    "programs": [tally.as_json() for tally in tallies],
                    "environment": describe_environment(),
                }
                write_json(out, content)
    faults = [f"{tally.program}, {fault}" for tally in tallies for fault in tally.faults]
    print(f"{'program':<9}{'seconds':>8}{'trials':>8}{'kills':>7}{'writing':>9}{'resumes':>9}  outcome")
    for tally in tallies:
        print(
            f"{tally.program:<9}{tally.seconds:>8.1f}{tally.trials:>8}{len(tally.moments):>7}"
            f"{tally.kills_while_writing:>9}{tally.resumes:>9}  {tally.outcome}"
        )
    for fault in faults:
        print(f"FOUND {fault}")
    print(f"{sum(len(tally.moments) for tally in tallies)} kills, {len(faults)} faults: {out}")
    if faults:
        return FOUND
    shutil.rmtree(folder)
    return None


if __name__ == "__main__":
    program.run(main)
