"""How attacks transfer between members: python -m ncen_tf.transfer --target=exports/reference"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data import location_flags
from ncen_tf.data.datasets import DATASETS

TARGET = flags.DEFINE_string(
    "target", None, "run directory, .keras, SavedModel, .onnx or export: its members"
)
TARGETS = flags.DEFINE_list(
    "targets", [], "instead of --target, several such paths: the members of all of them"
)
ATTACKS = flags.DEFINE_list("attacks", ["pgd", "mi_fgsm"], "what makes the images: pgd, mi_fgsm")
EPS = flags.DEFINE_float("eps", 0.05, "Linf radius; images are in [0, 1]")
STEPS = flags.DEFINE_integer("steps", 40, "gradient steps of each attack")
STEP_SIZE = flags.DEFINE_float(
    "step_size", None, "of each step (default, the paper's: eps PGD, 0.01 MI-FGSM)"
)
DATASET = flags.DEFINE_enum("dataset", "fashion_mnist", list(DATASETS), "whose test images are attacked")
NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 1000, "class-balanced test images; 0 for all", lower_bound=0
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "images attacked at a time", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of PGD's random starts", lower_bound=0)
flags.adopt_module_key_flags(location_flags)
PROVIDERS = flags.DEFINE_list("providers", ["CPUExecutionProvider"], "onnxruntime execution providers")
ALLOW_UNVERIFIED = flags.DEFINE_bool("allow_unverified", False, "attack files that are not the exported ones")
OUT = flags.DEFINE_string(
    "out", None, "folder of transfer.json and its heat map (default: reports/TARGET-transfer)"
)


def main() -> None:
    if bool(TARGET.value) == bool(TARGETS.value):
        raise InputError("Name one model with --target, or several with --targets, to take members from.")
    from ncen_tf.transfer.attacks import build_attacks

    attacks = build_attacks(ATTACKS.value, EPS.value, STEPS.value, STEP_SIZE.value)

    from ncen_tf.transfer.heat_map import write_heat_map
    from ncen_tf.transfer.members import open_members
    from ncen_tf.transfer.record import build_transfer, write_transfer
    from ncen_tf.transfer.run import run_transfer
    from ncen_tf.transfer.table import format_transfer

    paths = [Path(TARGET.value)] if TARGET.value else [Path(path) for path in TARGETS.value]
    members = open_members(paths, providers=tuple(PROVIDERS.value), allow_unverified=ALLOW_UNVERIFIED.value)
    test = location_flags.load_from_flags(DATASET.value, test_examples=NUM_EXAMPLES.value or None).test
    out = Path(OUT.value or default_out())
    result = run_transfer(
        members,
        (test.images / 255).astype("float32"),
        test.labels,
        attacks,
        folder=out / "adversarials",
        batch_size=BATCH_SIZE.value,
        seed=SEED.value,
    )
    transfer = build_transfer(
        members, attacks, result, dataset=DATASET.value, seed=SEED.value, batch_size=BATCH_SIZE.value
    )
    write_transfer(out / "transfer.json", transfer)
    write_heat_map(out / "transfer.png", transfer)
    print(format_transfer(transfer))
    print(f"\nTransfer: {out / 'transfer.json'}, {out / 'transfer.png'}")


def default_out() -> Path:
    """reports/TARGET-transfer; a file inside an export is named after the export too."""
    if not TARGET.value:
        return Path("reports") / "transfer"
    path = Path(TARGET.value).resolve()
    parts = [path.parent.name, path.stem] if path.is_file() else [path.name]
    return Path("reports") / "-".join([*parts, "transfer"])


if __name__ == "__main__":
    program.run(main)
