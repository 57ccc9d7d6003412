"""Export a trained ensemble: python -m ncen_tf.export --run=runs/NAME --out=exports/NAME"""

from pathlib import Path

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.loading import TEST_FRACTION, DataFlags
from ncen_tf.export.manifest import ExportSettings


class ExportFlags(ExportSettings, DataFlags):
    """Flags of the program."""

    dataset: str | None = Field(  # type: ignore[assignment]
        None, description="Name of the dataset that measures the files (default: the one of the run)"
    )
    run: Path | None = Field(None, description="Run directory to export")
    out: Path | None = Field(None, description="Folder to write (default: exports/NAME of the run)")
    overwrite: bool = Field(False, description="Replacement of an export in the same folder")
    verify: Path | None = Field(
        None,
        description="Export to check instead of writing one; answers are compared where its images are found",
    )


def export(flags: ExportFlags, run_path: Path) -> None:
    """Export a run and print what was measured."""
    run = ncen_tf.open_run(run_path)
    if run.summary is None:
        print(
            f"{run_path} is not finished: exporting after {run.epochs_trained} of {run.config.epochs} epochs."
        )
    data = ncen_tf.load_data(
        **run.config.source_arguments() | ({"source": flags.dataset} if flags.dataset else {}),
        data_dir=flags.data_dir,
        archive_dir=flags.archive_dir,
        train_examples=run.config.train_examples,
        test_examples=run.config.test_examples,
    )
    out = flags.out or Path("exports") / run_path.resolve().name
    chosen = {name: getattr(flags, name) for name in ExportSettings.model_fields}
    manifest = ncen_tf.export_ensemble(run, out, data=data, overwrite=flags.overwrite, **chosen)
    for name, entry in manifest.files.items():
        print(f"{entry.size:>10,} bytes  {out / name}")
    measured = manifest.accuracy
    print(f"Clean accuracy {measured.clean_accuracy:.4f} on {measured.test_examples} test images")
    _print_answers(manifest, "Keras")
    target = out / ("ensemble.onnx" if "onnx" in flags.formats else "saved_model")
    source = flags.dataset or run.config.dataset
    fraction = run.config.test_fraction or TEST_FRACTION
    held_out = f" --test_fraction={fraction}" if "held out" in data.source else ""
    print(f"Next: python -m ncen_tf.attack --target={target} --dataset={source}{held_out} --suite=paper")


def verify(flags: ExportFlags, folder: Path) -> None:
    """Verify an export, its answers too where their images are found, and print what was measured."""
    manifest = ncen_tf.verify_export(folder)
    print(f"{folder} is intact: {len(manifest.files)} files.")
    try:
        data = flags.load() if flags.dataset else _recorded_data(flags, manifest)
    except InputError as error:
        if flags.dataset:
            raise
        print(f"Answers were not compared, because their images were not found: {error}")
        return
    manifest = ncen_tf.verify_export(folder, data)
    _print_answers(manifest, next(iter(manifest.parity)))


def _recorded_data(flags: ExportFlags, manifest: "ncen_tf.Manifest") -> Dataset:
    """Read the images that an export was measured with, by the settings that its manifest records."""
    config, needed = manifest.training, manifest.accuracy.test_examples
    arguments = config.source_arguments() if config else {"source": manifest.dataset}
    data = ncen_tf.load_data(**arguments, data_dir=flags.data_dir, archive_dir=flags.archive_dir)
    if len(data.test) < needed:
        raise InputError(f"{manifest.dataset} has {len(data.test)} test images, and {needed} were measured.")
    return data


def _print_answers(manifest: "ncen_tf.Manifest", reference: str) -> None:
    for name, parity in manifest.parity.items():
        print(
            f"{name}: probabilities within {parity.max_difference:.1e} of {reference} "
            f"(mean {parity.mean_difference:.1e}), same class on all {parity.images} images, "
            f"batch sizes within {parity.max_difference_between_batch_sizes:.1e}"
        )
    for name, reduced in manifest.reduced_precision.items():
        print(
            f"{name}: clean accuracy {reduced.clean_accuracy:.4f}, same class as float32 on "
            f"{reduced.agreement_with_float32:.2%} of the images"
        )


def main(flags: ExportFlags) -> None:
    if flags.run and not flags.verify:
        export(flags, flags.run)
    elif flags.verify and not flags.run:
        verify(flags, flags.verify)
    else:
        raise InputError("Give either a run directory to export as `run`, or an export to check as `verify`.")


if __name__ == "__main__":
    program.run(ExportFlags, main)
