"""Suite strict beside the official AutoAttack in PyTorch, on one exported ONNX file and the same images.

python -m benchmarks.autoattack_agreement exports/reference/ensemble.onnx --eps=0.1 --examples=100

AutoAttack is the authors' code: github.com/fra31/auto-attack (autoattack), or as pyautoattack packs it
for PyPI: pip install pyautoattack onnx2torch torchvision. onnx2torch makes a PyTorch module of the ONNX file.
Each side is asked for the worst case over its own attacks; both sides' images are judged by onnxruntime.
"""

import argparse
import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import torch

from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.strict import strict_attacks
from ncen_tf.attack.suites import Suite
from ncen_tf.base.environment import describe_environment
from ncen_tf.data.dataset import load_data
from ncen_tf.targets.onnx_target import OnnxTarget

TOLERANCE = 0.005
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def main(options: argparse.Namespace) -> None:
    test = load_data(options.dataset, data_dir=options.data_dir, test_examples=options.examples).test
    images, labels = (test.images / 255).astype(np.float32), test.labels.astype(np.int32)
    objective = Objective(OnnxTarget(options.model), "ensemble")
    right = predictions(objective, images) == labels
    model = Converted(options.model)
    model.check(objective, images[:16])

    started = time.perf_counter()
    theirs, package = autoattack(model, images, labels, options)
    seconds = time.perf_counter() - started
    suite = Suite("strict", strict_attacks(options.eps, options.norm), "ensemble", cumulative=True)
    result = run_suite(
        objective.target, images, labels, suite, "ensemble", batch_size=options.batch_size, seed=options.seed
    )
    stands = {
        "strict": right & np.all([attack.predictions == labels for attack in result.attacks], axis=0),
        "AutoAttack": right & (predictions(objective, theirs) == labels),
    }
    report(options, package, right, stands, result.attacks, (model.passes, seconds))


class Converted(torch.nn.Module):
    """An exported ONNX file in PyTorch: images [N, C, H, W] -> log mean probabilities [N, classes]."""

    def __init__(self, file: Path) -> None:
        import onnx2torch

        super().__init__()
        self._module = onnx2torch.convert(file).eval()
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += len(images)
        member_logits = self._module(images.permute(0, 2, 3, 1))[0]
        return torch.log_softmax(member_logits, 2).logsumexp(1) - np.log(member_logits.shape[1])

    def check(self, objective: Objective, images: Images) -> None:
        """The conversion must compute what onnxruntime computes."""
        with torch.no_grad():
            converted = self(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
        difference = float(np.abs(converted - objective.answer(tf.constant(images)).numpy()).max())
        if not difference < 1e-3:
            raise SystemExit(f"The converted model differs from onnxruntime by {difference:g}.")


def autoattack(
    model: Converted, images: Images, labels: Labels, options: argparse.Namespace
) -> tuple[Images, str]:
    """Worst images of AutoAttack, and the package that made them."""
    for package in ("autoattack", "pyautoattack"):
        try:
            official: Any = importlib.import_module(package)
        except ImportError:
            continue
        break
    else:
        raise SystemExit("AutoAttack is not installed: see the top of this file.")
    attack = official.AutoAttack(model, norm=options.norm, eps=options.eps, seed=options.seed, device="cpu")
    if options.attacks:
        attack.attacks_to_run = options.attacks.split(",")
    logging.basicConfig(format="AutoAttack: %(message)s")
    logging.getLogger("auto-attack").setLevel(logging.DEBUG)  # pyautoattack's progress, attack by attack
    x = torch.tensor(images).permute(0, 3, 1, 2)
    found = attack.run_standard_evaluation(x, torch.tensor(labels).long())
    if isinstance(found, tuple):  # pyautoattack adds the predictions
        found = found[0]
    return found.permute(0, 2, 3, 1).numpy(), f"{package}: {', '.join(attack.attacks_to_run)}"


def predictions(objective: Objective, images: Images) -> Labels:
    scores = [np.argmax(objective.answer(tf.constant(part)), axis=1) for part in np.array_split(images, 8)]
    return np.concatenate(scores).astype(np.int32)


def report(
    options: argparse.Namespace,
    package: str,
    right: npt.NDArray[np.bool_],
    stands: dict[str, npt.NDArray[np.bool_]],
    attacks: list[Any],
    theirs: tuple[int, float],
) -> None:
    """Print both robust accuracies, where they disagree, and the same as JSON."""
    ours = stands["strict"]
    accuracy = {name: float(values.mean()) for name, values in stands.items()}
    counts = [(int(a.attacked.sum()), a) for a in attacks]
    content: dict[str, Any] = {
        "model": str(options.model),
        "dataset": options.dataset,
        "examples": len(right),
        "ball": [options.norm, options.eps],
        "seed": options.seed,
        "reference": package,
        "clean": float(right.mean()),
        "robust": accuracy,
        "agrees": accuracy["strict"] <= accuracy["AutoAttack"] + TOLERANCE,
        "broken by strict only": np.flatnonzero(stands["AutoAttack"] & ~ours).tolist(),
        "broken by AutoAttack only": np.flatnonzero(ours & ~stands["AutoAttack"]).tolist(),
        "strict": {
            "forward": round(sum(n * a.queries_per_image for n, a in counts)),
            "backward": round(sum(n * a.gradients_per_image for n, a in counts)),
            "seconds": sum(a.seconds for a in attacks),
        },
        "AutoAttack": {"forward": theirs[0], "seconds": theirs[1]},
        "environment": describe_environment(),
    }
    print(f"{options.model}, {options.norm} {options.eps:.4g}, {len(right)} images of {options.dataset}")
    print(f"  clean {right.mean():.4f}")
    for name in stands:
        cost = content[name]
        print(f"  {name:<11} robust {accuracy[name]:.4f}  {cost['forward']} forward, {cost['seconds']:.0f} s")
    for name in ("broken by strict only", "broken by AutoAttack only"):
        print(f"  {name}: {len(content[name])}")
    print(f"  strict is at most {TOLERANCE} above: {'yes' if content['agrees'] else 'NO'}")
    print(json.dumps(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="ensemble.onnx of an export")
    parser.add_argument("--dataset", default="fashion_mnist_sample")
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--examples", type=int, default=100, help="class-balanced test images")
    parser.add_argument("--norm", choices=["Linf", "L2"], default="Linf")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--attacks", help="of AutoAttack, comma-separated; default: its standard version")
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
