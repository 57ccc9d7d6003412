"""Export a trained ensemble: python -m ncen_tf.export --run=runs/NAME --out=exports/NAME"""

from pathlib import Path

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data import location_flags
from ncen_tf.export.manifest import MANIFEST, ONNX_FILE, SAVED_MODEL, check_files, read_manifest

RUN = flags.DEFINE_string("run", None, "run directory to export")
OUT = flags.DEFINE_string("out", None, "folder to write (default: exports/NAME of the run)")
VERIFY = flags.DEFINE_string("verify", None, "check this export instead of writing one")
FORMATS = flags.DEFINE_list("formats", ["onnx", "saved_model"], "of onnx, saved_model")
OPSET = flags.DEFINE_integer("opset", 17, "ONNX opset, 11 to 18")
MEMBERS = flags.DEFINE_bool("members", False, "also write each member as an ONNX file")
ONNX_PRECISION = flags.DEFINE_list("onnx_precision", [], "more ONNX files: float16, int8")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace an export in the same folder")
flags.adopt_module_key_flags(location_flags)


def export(run_path: Path, out: Path) -> None:
    """Export a run and print what was measured."""
    for flag, allowed in ((FORMATS, ("onnx", "saved_model")), (ONNX_PRECISION, ("float16", "int8"))):
        unknown = [value for value in flag.value if value not in allowed]
        if unknown:
            raise InputError(f"--{flag.name} takes {', '.join(allowed)}; got {unknown[0]!r}.")
    if not FORMATS.value or (ONNX_PRECISION.value and "onnx" not in FORMATS.value):
        raise InputError("--formats names at least one format, and onnx for --onnx_precision.")
    if out.exists() and not (OVERWRITE.value and (out / MANIFEST).is_file()):
        raise InputError(f"{out} exists: choose another --out, or pass --overwrite if it is an export.")

    from ncen_tf.export.bundle import export_ensemble
    from ncen_tf.export.onnx_file import OPSETS
    from ncen_tf.export.reduced_precision import INT8_OPSET
    from ncen_tf.train.run_directory import RunDirectory
    from ncen_tf.train.trained import load_trained

    if OPSET.value not in OPSETS:
        raise InputError(f"--opset is in {OPSETS.start}..{OPSETS.stop - 1}; got {OPSET.value}.")
    if "int8" in ONNX_PRECISION.value and OPSET.value < INT8_OPSET:
        raise InputError(
            f"int8 with weights by channel needs --opset={INT8_OPSET} or above; got {OPSET.value}."
        )
    trained = load_trained(RunDirectory(run_path))
    config = trained.config
    if not trained.finished:
        print(f"{run_path} is not finished: exporting after {trained.epochs_done} of {config.epochs} epochs.")
    dataset = location_flags.load_from_flags(config.dataset, config.train_examples, config.test_examples)
    manifest = export_ensemble(
        trained,
        dataset,
        out,
        formats=FORMATS.value,
        opset=OPSET.value,
        members=MEMBERS.value,
        onnx_precisions=ONNX_PRECISION.value,
    )
    for name, entry in manifest["files"].items():
        print(f"{entry['size']:>10,} bytes  {out / name}")
    print(f"ACE {manifest['accuracy']['ace']:.4f} on {manifest['accuracy']['test_examples']} test images")
    _print_figures(manifest["parity"] | manifest["reduced_precision"], "Keras")
    target = out / (ONNX_FILE if "onnx" in FORMATS.value else SAVED_MODEL)
    print(f"Next: python -m ncen_tf.attack --target={target} --dataset={config.dataset} --suite=paper")


def verify(folder: Path) -> None:
    """Verify an export and print what was measured."""
    from ncen_tf.export.proof import verify_export
    from ncen_tf.train.config import TrainingConfig

    manifest = read_manifest(folder)
    check_files(folder, manifest)
    config = TrainingConfig.from_flags(manifest["training_flags"])
    dataset = location_flags.load_from_flags(config.dataset, config.train_examples, config.test_examples)
    figures = verify_export(folder, dataset)
    first, *others = figures
    print(
        f"{first}: the class that the manifest records on all {figures[first]['images']} images, "
        f"batch sizes within {figures[first]['max_difference_between_batch_sizes']:.1e}"
    )
    _print_figures({name: figures[name] for name in others}, first)
    print(f"{folder} is intact: {len(manifest['files'])} files.")


def _print_figures(figures: dict[str, dict[str, float]], reference: str) -> None:
    for name, figure in figures.items():
        if "max_difference" in figure:
            print(
                f"{name}: probabilities within {figure['max_difference']:.1e} of {reference} "
                f"(mean {figure['mean_difference']:.1e}), same class on all {figure['images']} images, "
                f"batch sizes within {figure['max_difference_between_batch_sizes']:.1e}"
            )
        else:
            print(
                f"{name}: ACE {figure['ace']:.4f}, agrees on {figure['agreement_with_float32']:.2%} of images"
            )


def main() -> None:
    if VERIFY.value and not RUN.value:
        verify(Path(VERIFY.value))
    elif RUN.value and not VERIFY.value:
        run_path = Path(RUN.value)
        export(run_path, Path(OUT.value) if OUT.value else Path("exports") / run_path.resolve().name)
    else:
        raise InputError("Say either --run=RUN_DIRECTORY to export, or --verify=EXPORT to check one.")


if __name__ == "__main__":
    program.run(main)
