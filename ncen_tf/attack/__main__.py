"""Attack a model: python -m ncen_tf.attack --target=exports/reference/ensemble.onnx --suite=paper"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data import location_flags
from ncen_tf.data.datasets import DATASETS

if TYPE_CHECKING:
    from ncen_tf.attack.attack import Norm
    from ncen_tf.attack.objectives import ObjectiveName
    from ncen_tf.attack.suites import Suite
    from ncen_tf.report.gate import Gate
    from ncen_tf.report.results import RecordedAccuracy, Report
    from ncen_tf.targets.target import Target

GATE_FAILED = 3

TARGET = flags.DEFINE_string("target", None, "run directory, .keras, SavedModel, .onnx or export")
DATASET = flags.DEFINE_enum("dataset", "fashion_mnist", list(DATASETS), "whose test images are attacked")
NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples",
    None,
    "class-balanced test images; 0 for all (default: 1000; of the suite strict, all)",
    lower_bound=0,
)
SUITE = flags.DEFINE_string("suite", "paper", "paper, released, strict, blackbox, quick, or a .toml file")
OBJECTIVE = flags.DEFINE_enum(
    "objective",
    None,
    ["member_average", "ensemble"],
    "loss that gradient attacks maximise, where the suite leaves it open: the members' mean (the paper's, "
    "the default), or the ensemble's own",
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "images attacked at a time (default: the suite's, or 100)", lower_bound=1
)
NORM = flags.DEFINE_enum(
    "norm", None, ["Linf", "L2"], "only the suite's attacks in this norm (default: all of them)"
)
SEED = flags.DEFINE_integer("seed", 0, "of random starts and random attacks", lower_bound=0)
flags.adopt_module_key_flags(location_flags)

INPUT_LAYOUT = flags.DEFINE_enum("input_layout", "NHWC", ["NHWC", "NCHW"], "of a foreign ONNX model")
OUTPUT = flags.DEFINE_enum("output", "logits", ["logits", "probabilities"], "what an ONNX model gives")
OUTPUT_NAME = flags.DEFINE_string("output_name", None, "output of an ONNX model with several")
MEAN = flags.DEFINE_list("mean", ["0"], "subtracted from images in [0, 1] before an ONNX model")
STD = flags.DEFINE_list("std", ["1"], "divides images before an ONNX model")
PROVIDERS = flags.DEFINE_list("providers", ["CPUExecutionProvider"], "onnxruntime execution providers")
ALLOW_UNVERIFIED = flags.DEFINE_bool("allow_unverified", False, "attack files that are not the exported ones")

OUT = flags.DEFINE_string("out", None, "folder of the report (default: reports/TARGET-SUITE)")
SAVE_ADVERSARIALS = flags.DEFINE_bool("save_adversarials", False, "keep adversarial images as npz")
REPLAY = flags.DEFINE_string("replay", None, "evaluate the target on saved images, made from --dataset's")
CHECK_GRADIENTS = flags.DEFINE_bool(
    "check_gradients", None, "look for masked gradients (default: with the suite strict)"
)
GATE = flags.DEFINE_string("gate", None, "TOML file of thresholds; exit code 3 if one is missed")
JUNIT = flags.DEFINE_string("junit", None, "JUnit XML file of the gate's checks")


def main() -> int | None:
    if not TARGET.value:
        raise InputError("--target names what to attack: a run directory, .keras, SavedModel or .onnx file.")
    if JUNIT.value and not GATE.value:
        raise InputError("--junit reports the checks of a --gate.")
    from ncen_tf.attack.suites import load_suite
    from ncen_tf.report.gate import Gate
    from ncen_tf.report.results import RecordedAccuracy

    gate = Gate.read(GATE.value) if GATE.value else None
    suite = load_suite(SUITE.value, DATASET.value).with_choices(
        cast("ObjectiveName | None", OBJECTIVE.value),
        BATCH_SIZE.value,
        cast("Norm | None", NORM.value),
        CHECK_GRADIENTS.value,
    )

    from ncen_tf.targets.onnx_target import OnnxInterface
    from ncen_tf.targets.opening import open_target

    interface = OnnxInterface(
        INPUT_LAYOUT.value,
        OUTPUT.value,
        OUTPUT_NAME.value,
        _floats("mean", MEAN.value),
        _floats("std", STD.value),
    )
    opened = open_target(
        Path(TARGET.value),
        interface=interface,
        providers=tuple(PROVIDERS.value),
        allow_unverified=ALLOW_UNVERIFIED.value,
        differentiable=not (REPLAY.value or all(attack.gradient_free for attack in suite.attacks)),
        batch_statistics=suite.batch_statistics,
    )
    if not opened.target.gives_logits:
        print("The target gives probabilities only: attacks maximise losses of their logarithms.")
    recorded = None
    if opened.recorded_ace is not None and opened.manifest is not None:
        examples = opened.manifest["accuracy"]["test_examples"]
        recorded = RecordedAccuracy(value=opened.recorded_ace, examples=examples)
    report, out = attack(Path(TARGET.value), opened.target, suite, recorded, gate)
    report.save(out)
    print(report)
    print(f"\nReport: {out / 'report.json'}, {out / 'report.html'}")
    return check(gate, report) if gate else None


def attack(
    path: Path, target: Target, suite: Suite, recorded: RecordedAccuracy | None, gate: Gate | None
) -> tuple[Report, Path]:
    """Run the suite, or replay saved images; returns the report and the folder for it."""
    from ncen_tf.attack.result_files import read_adversarials
    from ncen_tf.attack.runner import replay, run_suite
    from ncen_tf.attack.verdict import examine
    from ncen_tf.report.metrics import build_report
    from ncen_tf.report.results import TargetInfo

    if REPLAY.value:
        suite = dataclasses.replace(
            suite, name=f"replay of {Path(REPLAY.value).name}", attacks=(), cumulative=False
        )
    out = Path(OUT.value) if OUT.value else default_out(path, suite)
    objective: str = suite.objective
    if REPLAY.value:
        saved = read_adversarials(Path(REPLAY.value))
        result = replay(target, saved, suite.batch_size)
        images, objective = saved.images, saved.objective
    else:
        count = suite.examples if NUM_EXAMPLES.value is None else NUM_EXAMPLES.value
        test = location_flags.load_from_flags(DATASET.value, test_examples=count or None).test
        images = (test.images / 255).astype("float32")
        if gate:  # what a replay measures is known only then
            planned = [(each.name, each.eps) for each in suite.attacks]
            gate.require_measured(planned, len(images), recorded, gradients_checked=suite.check_gradients)
        result = run_suite(
            target,
            images,
            test.labels,
            suite,
            suite.objective,
            batch_size=suite.batch_size,
            seed=SEED.value,
            state_dir=out / "finished_attacks",
            save_adversarials=out / "adversarials" if SAVE_ADVERSARIALS.value else None,
        )
    examined = suite.check_gradients and not REPLAY.value
    report = build_report(
        result.labels,
        result.clean_predictions,
        result.attacks,
        protocol=suite.name,
        objective=objective,
        dataset=DATASET.value,
        target=TargetInfo(
            description=target.description,
            sha256=target.sha256,
            members=target.members,
            gives_logits=target.gives_logits,
            providers=tuple(target.providers),
        ),
        seed=SEED.value,
        cumulative=suite.cumulative,
        recorded=recorded,
        masked_gradients=examine(target, suite, result, images, SEED.value) if examined else None,
        images=images,
        class_names=DATASETS[DATASET.value].class_names,
    )
    return report, out


def check(gate: Gate, report: Report) -> int | None:
    """Compare a report with a gate, write the JUnit file, and return the exit code."""
    result = report.check(gate)
    print(result)
    if JUNIT.value:
        Path(JUNIT.value).parent.mkdir(parents=True, exist_ok=True)
        result.write_junit(Path(JUNIT.value))
    return None if result.passed else GATE_FAILED


def default_out(path: Path, suite: Suite) -> Path:
    """reports/TARGET-SUITE; a file inside an export is named after the export too."""
    path = path.resolve()
    parts = [path.parent.name, path.stem] if path.is_file() else [path.name]
    words = "".join(letter if letter.isalnum() else "-" for letter in suite.name).strip("-")
    return Path("reports") / "-".join([*parts, words])


def _floats(name: str, texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise InputError(f"--{name} takes numbers, one a channel; got {','.join(texts)!r}.") from error


if __name__ == "__main__":
    program.run(main)
