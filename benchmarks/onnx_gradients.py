"""Measure gradients of ONNX files beside PyTorch's of the same models, and beside other packages.

python -m benchmarks.onnx_gradients --out=docs/benchmarks/onnx_gradients.json
"""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.peers.onnx_differentiators import SIDES, Gradient, in_torch
from benchmarks.results import BenchmarkFlags, Row, Table, publish
from benchmarks.timing import Candidate, Failure, Outcome, Run, Timing, interleaved, ratio
from ncen_tf import program

ARCHITECTURES = (
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "regnet_y_400mf",
)
ABOUT = """Models of torchvision with random weights, written by `torch.onnx.export` (dynamo=False, opset 17,
free batch). One call computes the output and the gradient of a weighted sum of it by the images. `PyTorch` is
eager autograd of the module itself; `ncen_tf` and onnx-ad run in onnxruntime, the others in PyTorch. A time
over PyTorch's below 1 is faster. The error is the relative L2 distance to PyTorch's gradient."""


class GradientFlags(BenchmarkFlags):
    """Flags of the program."""

    architectures: tuple[str, ...] = Field(ARCHITECTURES, min_length=1, description="Models of torchvision")
    batch: int = Field(4, ge=1, description="Number of images")
    threads: int = Field(1, ge=1, description="Threads of onnxruntime and of PyTorch")


def main(flags: GradientFlags) -> None:
    torch.set_num_threads(flags.threads)
    times: list[Row] = []
    errors: list[Row] = []
    for name in flags.architectures:
        with tempfile.TemporaryDirectory() as folder:
            outcomes, built = measure(flags, name, Path(folder))
        torch_outcome = outcomes["PyTorch"]
        row: Row = {"": name}
        row["PyTorch ms"] = torch_outcome.median * 1e3 if isinstance(torch_outcome, Timing) else None
        for side in SIDES:
            row[side] = ratio(outcomes[side], torch_outcome)
        times.append(row | {"build s": built.get("ncen_tf")})
        failed: Row = {"": name}
        for side in SIDES:
            failed[side] = error_of(outcomes[side], torch_outcome)
        errors.append(failed)
        print(times[-1], errors[-1], flush=True)
    title = f"Time over PyTorch's, batch {flags.batch}, threads {flags.threads}"
    tables = [Table(title, times), Table("Error, or why there is no gradient", errors), ceiling(flags)]
    publish("onnx_gradients", "Gradients of ONNX files", ABOUT, tables, flags)


def measure(
    flags: GradientFlags, name: str, folder: Path
) -> tuple[Mapping[str, Outcome], Mapping[str, float]]:
    """Time every side on one model; also tell how many seconds each took to get ready."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = get_model(name, weights=None).eval()
    with torch.no_grad():  # equal parameters would share one initializer, which other packages cannot read
        for name_of, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.ndim == 2 and not tensor.any():  # a last layer of zeros has no gradient
                tensor.add_(torch.randn_like(tensor) * 0.02)
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * (0.5 if name_of.endswith("var") else 0.1))
    rng = np.random.default_rng(0)
    x = rng.random((flags.batch, 3, 224, 224), np.float32)
    v = rng.normal(size=(flags.batch, 1000)).astype(np.float32)
    path = folder / "model.onnx"
    names = {"input_names": ["image"], "output_names": ["logits"]}
    free = {"image": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        module, (torch.from_numpy(x[:2]),), path, dynamo=False, opset_version=17, dynamic_axes=free, **names
    )
    built: dict[str, float] = {}

    def ready(side: str, make: Callable[[], Gradient]) -> Run:
        started = time.perf_counter()
        gradient = make()
        built[side] = time.perf_counter() - started
        return functools.partial(gradient, x, v)

    candidates: dict[str, Candidate] = {
        "PyTorch": functools.partial(ready, "PyTorch", lambda: in_torch(module))
    }
    for side, make in SIDES.items():
        candidates[side] = functools.partial(
            ready, side, functools.partial(make, path, flags.batch, flags.threads)
        )
    return interleaved(candidates, flags.rounds), built


def error_of(outcome: Outcome, expected: Outcome) -> str | float | None:
    """Return the relative L2 error of a gradient, or why there is none."""
    if isinstance(outcome, Failure):
        return outcome.reason[:60]
    if isinstance(expected, Failure):
        return None
    found, right = (np.asarray(side.result, np.float64) for side in (outcome, expected))
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


if __name__ == "__main__":
    program.run(GradientFlags, main)
