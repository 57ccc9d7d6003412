"""Compare the suite strict with the official AutoAttack in PyTorch, on one ONNX export and the same images.

python -m benchmarks.autoattack_agreement --target=exports/reference/ensemble.onnx --examples=100

AutoAttack is the authors' code: github.com/fra31/auto-attack (autoattack), or its package on PyPI:
pip install pyautoattack onnx2torch torchvision. onnx2torch makes a PyTorch module of the ONNX file. Each side
is asked for the worst case over its own attacks; onnxruntime judges the images of both sides.
"""

import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from ncen_tf import program
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.scoring import predict
from ncen_tf.attack.suites import load_suite
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import DataFlags
from ncen_tf.targets.opening import open_target

TOLERANCE = 0.005
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


class AgreementFlags(DataFlags):
    """Flags of the program."""

    target: Path = Field(description="ensemble.onnx of an export")
    dataset: str = Field("fashion_mnist_sample", description="Name of the dataset with the images")
    examples: int = Field(100, ge=1, description="Number of class-balanced test images")
    norm: Literal["Linf", "L2"] = Field("Linf", description="Norm of the perturbation")
    attacks: tuple[str, ...] = Field((), description="Attacks of AutoAttack (default: its standard version)")
    seed: int = Field(0, ge=0, description="Seed of both sides")


class Converted(torch.nn.Module):
    """An ONNX export in PyTorch: images [N, C, H, W] -> log of mean probabilities [N, classes]."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._module = importlib.import_module("onnx2torch").convert(file).eval()
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += len(images)
        member_logits = self._module(images.permute(0, 2, 3, 1))[0]
        return torch.log_softmax(member_logits, 2).logsumexp(1) - np.log(member_logits.shape[1])


def main(flags: AgreementFlags) -> None:
    test = flags.load(test_examples=flags.examples).test
    images, labels = test.float_images(), test.labels
    objective = Objective(open_target(flags.target), "ensemble")
    correct = predict(objective, images, 100, "clean images") == labels
    model = Converted(flags.target)
    with torch.no_grad():
        converted = model(torch.tensor(images[:16]).permute(0, 3, 1, 2)).numpy()
    difference = float(np.abs(converted - objective.log_probabilities(images[:16])).max())
    if not difference < 1e-3:
        raise InputError(f"The converted model differs from onnxruntime by {difference:g}.")

    suite = load_suite("strict", test.images.shape[1:], norm=flags.norm)
    eps = suite.attacks[0].eps
    started = time.perf_counter()
    theirs, package = autoattack(model, images, labels, eps, flags)
    seconds = time.perf_counter() - started
    attacks = run_suite(objective.target, images, labels, suite, seed=flags.seed).attacks
    remaining = {
        "strict": correct & np.all([attack.predictions == labels for attack in attacks], axis=0),
        "AutoAttack": correct & (predict(objective, theirs, 100, "adversarial images") == labels),
    }
    accuracy = {name: float(values.mean()) for name, values in remaining.items()}
    only = {
        f"broken by {name} only": np.flatnonzero(remaining[other] & ~remaining[name]).tolist()
        for name, other in (("strict", "AutoAttack"), ("AutoAttack", "strict"))
    }
    passes = sum(int(a.attacked.sum()) * a.queries_per_image for a in attacks)
    content: dict[str, Any] = {
        "model": str(flags.target),
        "dataset": flags.dataset,
        "examples": len(labels),
        "norm": flags.norm,
        "eps": eps,
        "seed": flags.seed,
        "reference": package,
        "clean": float(correct.mean()),
        "robust": accuracy,
        "agrees": accuracy["strict"] <= accuracy["AutoAttack"] + TOLERANCE,
        **only,
        "strict": {"forward": round(passes), "seconds": sum(a.seconds for a in attacks)},
        "AutoAttack": {"forward": model.passes, "seconds": seconds},
        "environment": describe_environment(),
    }
    print(f"{flags.target}, {flags.norm} {eps:.4g}, {len(labels)} images of {flags.dataset}")
    print(f"  clean {correct.mean():.4f}")
    for name, value in accuracy.items():
        cost = content[name]
        print(f"  {name:<11} robust {value:.4f}  {cost['forward']} forward, {cost['seconds']:.0f} s")
    for name, examples in only.items():
        print(f"  {name}: {len(examples)}")
    print(f"  strict is at most {TOLERANCE} above: {'yes' if content['agrees'] else 'NO'}")
    print(json.dumps(content))


def autoattack(
    model: Converted, images: Images, labels: Labels, eps: float, flags: AgreementFlags
) -> tuple[Images, str]:
    """Return the worst images of AutoAttack, and the name of the package that made them."""
    for package in ("autoattack", "pyautoattack"):
        try:
            official: Any = importlib.import_module(package)
        except ImportError:
            continue
        break
    else:
        raise InputError(
            "AutoAttack is not installed: see the beginning of benchmarks/autoattack_agreement.py."
        )
    attack = official.AutoAttack(model, norm=flags.norm, eps=eps, seed=flags.seed, device="cpu")
    attack.attacks_to_run = list(flags.attacks) or attack.attacks_to_run
    logging.basicConfig(format="AutoAttack: %(message)s")
    logging.getLogger("auto-attack").setLevel(logging.DEBUG)  # progress of pyautoattack
    x = torch.tensor(images).permute(0, 3, 1, 2)
    found = attack.run_standard_evaluation(x, torch.tensor(labels).long())
    found = found[0] if isinstance(found, tuple) else found  # pyautoattack adds the predictions
    return found.permute(0, 2, 3, 1).numpy(), f"{package}: {', '.join(attack.attacks_to_run)}"


if __name__ == "__main__":
    program.run(AgreementFlags, main)
