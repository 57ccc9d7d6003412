"""Attack a model: python -m ncen_tf.attack --target=exports/reference/ensemble.onnx --suite=paper"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import require_target
from ncen_tf.base.ray_cluster import RayFlags
from ncen_tf.data.loading import DataFlags
from ncen_tf.targets.combination import Combine
from ncen_tf.targets.interface import ModelInterface, Quantization

GATE_FAILED = 3


class AttackFlags(DataFlags, ModelInterface, RayFlags):
    """Flags of the program."""

    target: tuple[Path, ...] = Field(
        description="Path of a run directory, a .keras file, a SavedModel, an .onnx file or an export, or a "
        "function images -> scores as module:function; several, separated by commas, are attacked as one "
        "ensemble"
    )
    combine: Combine = Field(
        default="softmax", description="What an ensemble of several targets averages over them"
    )
    suite: str = Field(
        default="paper",
        description="Name of a suite: paper, released, strict, screen, blackbox, quick; or a .toml file",
    )
    eps: float | None = Field(
        default=None,
        gt=0,
        description="Bound of every attack of the suite, such as 8/255 (default: by the images' size)",
    )
    norm: Literal["Linf", "L2"] | None = Field(
        default=None, description="Norm of the attacks that are run (default: all of the suite's)"
    )
    num_examples: int | None = Field(
        default=None,
        ge=0,
        description="Number of test images, balanced over classes; 0 for all (default: the suite's)",
    )
    sample_seed: int | None = Field(
        default=None, ge=0, description="Seed of a random choice of them (default: the first of each class)"
    )
    objective: Literal["member_average", "ensemble"] | None = Field(
        default=None, description="Loss that gradient attacks maximise (default: the suite's)"
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Number of images attacked at a time (default: the suite's)"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of random starts and random attacks")
    check_gradients: bool | None = Field(
        default=None, description="Whether to look for masked gradients (default: the suite's)"
    )
    providers: tuple[str, ...] = Field(
        default=("CPUExecutionProvider",), description="Execution providers of onnxruntime"
    )
    allow_unverified: bool = Field(
        default=False, description="Whether to attack files whose hash differs from their manifest's"
    )
    allow_low_accuracy: bool = Field(
        default=False,
        description="Whether to attack targets whose clean accuracy tells that they are fed wrongly",
    )
    quantization: Quantization | None = Field(
        default=None,
        description="Gradient of ONNX models that quantise: straight_through is that of the model without "
        "rounding (default: such models are refused by attacks that need a gradient)",
    )
    eot_samples: int = Field(
        default=1,
        ge=1,
        description="Number of calls whose mean is attacked, for targets that are not deterministic",
    )
    round_to_8bit: bool = Field(
        default=False, description="Whether images, adversarial ones too, are rounded to whole 8-bit pixels"
    )
    curve: tuple[Literal["Linf", "L2", "L1", "L0"], ...] = Field(
        default=(), description="Norms in which robust accuracy is also measured at every bound at once"
    )
    out: Path | None = Field(default=None, description="Folder of the report (default: reports/TARGET-SUITE)")
    save_adversarials: bool = Field(
        default=False, description="Whether to keep adversarial images as npz files"
    )
    replay: Path | None = Field(
        default=None, description="File of saved adversarial images that the target is evaluated on instead"
    )
    gate: Path | None = Field(
        default=None, description="TOML file of thresholds; the exit code is 3 if one is missed"
    )
    junit: Path | None = Field(
        default=None, description="JUnit XML file that the gate's checks are written to"
    )


def main(flags: AttackFlags) -> int | None:
    if flags.junit and not flags.gate:
        raise InputError("`junit` reports the checks of a `gate`.")
    protocol = f"replay of {flags.replay.name}" if flags.replay else flags.suite
    out = flags.out or _default_out(flags.target, protocol)
    for folder in (out, flags.junit.parent if flags.junit else out):
        _require_writable(folder)
    for path in flags.target:
        require_target(path)
    target = flags.target[0] if len(flags.target) == 1 else flags.target
    opening: dict[str, Any] = {
        "interface": ModelInterface(**{name: getattr(flags, name) for name in ModelInterface.model_fields}),
        "combine": flags.combine,
        "providers": flags.providers,
        "allow_unverified": flags.allow_unverified,
    }
    gate = ncen_tf.Gate.read(flags.gate) if flags.gate else None
    if flags.replay:
        report = ncen_tf.evaluate_saved(target, flags.replay, **opening)
    else:
        report = ncen_tf.evaluate(
            target,
            flags.load_test(),
            suite=flags.suite,
            eps=flags.eps,
            norm=flags.norm,
            examples=flags.num_examples,
            sample_seed=flags.sample_seed,
            seed=flags.seed,
            objective=flags.objective,
            batch_size=flags.batch_size,
            check_gradients=flags.check_gradients,
            gate=gate,
            out=out,
            save_adversarials=flags.save_adversarials,
            allow_low_accuracy=flags.allow_low_accuracy,
            quantization=flags.quantization,
            eot_samples=flags.eot_samples,
            round_to_8bit=flags.round_to_8bit,
            curve=flags.curve,
            ray=flags.ray,
            ray_cpus=flags.ray_cpus,
            ray_gpus=flags.ray_gpus,
            **opening,
        )
    report.save(out)
    print(report)
    print(f"\nReport: {out / 'report.json'}, {out / 'report.html'}")
    if gate is None:
        return None
    result = report.check(gate)
    print(result)
    if flags.junit:
        flags.junit.parent.mkdir(parents=True, exist_ok=True)
        result.write_junit(flags.junit)
    return None if result.passed else GATE_FAILED


def _default_out(targets: tuple[Path, ...], protocol: str) -> Path:
    """Return reports/TARGET-SUITE."""
    suite = f"custom ({Path(protocol).name})" if protocol.endswith(".toml") else protocol
    words = "".join(letter if letter.isalnum() else "-" for letter in suite).strip("-")
    several = f"and-{len(targets) - 1}-more-" if len(targets) > 1 else ""
    return program.report_folder(targets[0], several + words)


def _require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to: best before hours of attacks."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{folder} cannot be written to: {existing} is not a writable folder.")


if __name__ == "__main__":
    program.run(AttackFlags, main)
