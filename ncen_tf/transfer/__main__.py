"""Measure how attacks transfer between members: python -m ncen_tf.transfer --target=exports/reference"""

from pathlib import Path

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import require_target
from ncen_tf.data.loading import DataFlags


class TransferFlags(DataFlags):
    """Flags of the program."""

    target: Path | None = Field(
        default=None,
        description="Run directory, .keras file, SavedModel, .onnx file or export whose members are compared",
    )
    targets: tuple[str, ...] = Field(default=(), description="Several such paths, instead of `target`")
    attacks: tuple[str, ...] = Field(
        default=("pgd", "mi_fgsm"), description="Names of the attacks that make the images"
    )
    eps: float = Field(default=0.05, gt=0, description="Linf bound; images are in [0, 1]")
    steps: int = Field(default=40, ge=1, description="Number of gradient steps of each attack")
    step_size: float | None = Field(
        default=None,
        gt=0,
        description="Size of each step (default: the paper's, eps for PGD and 0.01 for MI-FGSM)",
    )
    num_examples: int = Field(
        default=1000, ge=0, description="Number of class-balanced test images; 0 for all"
    )
    batch_size: int = Field(default=100, ge=1, description="Number of images attacked at a time")
    seed: int = Field(default=0, ge=0, description="Seed of PGD's random starts")
    providers: tuple[str, ...] = Field(
        default=("CPUExecutionProvider",), description="onnxruntime execution providers"
    )
    allow_unverified: bool = Field(
        default=False, description="Whether to attack files that are not the exported ones"
    )
    out: Path | None = Field(
        default=None,
        description="Folder of transfer.json and its heat map (default: reports/TARGET-transfer)",
    )


def main(flags: TransferFlags) -> None:
    if bool(flags.target) == bool(flags.targets):
        raise InputError("Name one model with `target`, or several with `targets`, to take members from.")
    paths = [flags.target] if flags.target else [Path(path) for path in flags.targets]
    for path in paths:
        require_target(path)
    default = program.report_folder(flags.target, "transfer") if flags.target else Path("reports/transfer")
    out = flags.out or default
    transfer = ncen_tf.measure_transfer(
        paths,
        flags.load_test(flags.num_examples or None),
        out,
        attacks=flags.attacks,
        eps=flags.eps,
        steps=flags.steps,
        step_size=flags.step_size,
        batch_size=flags.batch_size,
        seed=flags.seed,
        providers=flags.providers,
        allow_unverified=flags.allow_unverified,
    )
    transfer.save(out)
    print(transfer)
    print(f"\nTransfer: {out / 'transfer.json'}, {out / 'transfer.png'}")


if __name__ == "__main__":
    program.run(TransferFlags, main)
