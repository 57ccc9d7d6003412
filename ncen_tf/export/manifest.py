"""Settings of an export, and its manifest: what was exported and measured, and the hash of every file."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.base.settings import Settings
from ncen_tf.train.config import TrainConfig

MANIFEST = "manifest.json"
ONNX_FILE, SAVED_MODEL, MEMBERS = "ensemble.onnx", "saved_model", "members"
"""Names in an export: the two forms of the whole ensemble, and the folder of its members."""
IMAGE, PROBABILITIES, MEMBER_LOGITS = "image", "probabilities", "member_logits"
"""Input and outputs of the exported files."""


class ExportSettings(Settings):
    """What is exported: arguments of :func:`ncen_tf.export_ensemble`, flags, and a table of a grid."""

    formats: tuple[Literal["onnx", "saved_model"], ...] = Field(
        default=("onnx", "saved_model"), description="Formats, of onnx and saved_model"
    )
    # Opsets that tf2onnx writes and the gradient builder differentiates.
    opset: int = Field(default=17, ge=11, le=18, description="ONNX opset")
    members: bool = Field(default=False, description="Export of each member as an ONNX file, too")
    precisions: tuple[Literal["float16", "int8"], ...] = Field(
        default=(),
        description="Further ONNX files, of float16 and int8",
        json_schema_extra={"flag": "onnx_precision"},
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if not self.formats or (self.precisions and "onnx" not in self.formats):
            raise InputError("`formats` must name a format, and onnx where `precisions` are given.")
        if "int8" in self.precisions and self.opset < 13:  # the first that quantizes by channel
            raise InputError(f"int8 needs an `opset` of 13 or above, got {self.opset}.")
        return self


class ImageInput(Settings):
    """Input of the exported files."""

    name: str = IMAGE
    layout: Literal["NHWC"] = "NHWC"
    shape: tuple[Literal["N"], int, int, int]
    range: tuple[int, int] = (0, 1)


class Accuracy(Settings):
    """Accuracy of the ensemble on the test images."""

    clean_accuracy: float = Field(ge=0, le=1, description="Share of test images classified correctly")
    test_examples: int = Field(description="Number of test images")
    dataset_source: str | None = Field(description="Kind of source that the images were read from")
    predictions_sha256: str = Field(description="Hash of the predicted classes, as uint16")


class Parity(Settings):
    """Difference between the probabilities of a file and those of the ensemble in Keras."""

    images: int = Field(description="Number of test images compared")
    max_difference: float = Field(description="Largest absolute difference")
    mean_difference: float = Field(description="Mean absolute difference")
    different_predictions: int = Field(description="Number of images with another predicted class")
    max_difference_between_batch_sizes: float = Field(
        description="Largest difference between answers for the same image in batches of 1, 7 and 256"
    )


class ReducedPrecision(Settings):
    """Accuracy of a file of reduced precision."""

    clean_accuracy: float = Field(ge=0, le=1, description="Share of test images classified correctly")
    agreement_with_float32: float = Field(
        ge=0, le=1, description="Share of test images for which the ensemble predicts the same class"
    )


class FileEntry(Settings):
    """Size and hash of a file."""

    size: int
    sha256: str


class Manifest(Settings):
    """The content of an export, written to its ``manifest.json``.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", test_examples=20)
        >>> ensemble = ncen_tf.build_ensemble(["resnet8"] * 2, (28, 28, 1), 10)
        >>> _ = ncen_tf.export_ensemble(ensemble, "exports/own", data=data.test, formats=["onnx"])
        >>> manifest = ncen_tf.Manifest.read("exports/own")
        >>> manifest.dataset, manifest.input.shape, list(manifest.files)
        ('fashion_mnist_sample', ('N', 28, 28, 1), ['ensemble.onnx'])
    """

    format: Literal[2] = 2
    dataset: str = Field(description="Name of the dataset")
    class_names: tuple[str, ...] = Field(description="Name of each class, in the order of the outputs")
    input: ImageInput
    members: tuple[str, ...] = Field(description="Name of each member")
    training: TrainConfig | None = Field(description="Settings of the training run, where there was one")
    epochs_trained: int | None = Field(description="Number of epochs that the run has trained")
    weights_sha256: str = Field(description="Hash of all weights, as float32 in the order of the members")
    opset: int = Field(description="ONNX opset")
    accuracy: Accuracy
    parity: dict[str, Parity] = Field(description="Parity of each form of the whole ensemble")
    reduced_precision: dict[str, ReducedPrecision]
    environment: dict[str, Any] = Field(description="Versions and hardware that the export was made with")
    files: dict[str, FileEntry] = Field(min_length=1, description="Every file, by its relative path")

    @model_validator(mode="after")
    def _check_reduced_precision(self) -> Self:
        for name in self.reduced_precision:
            if name not in self.files:
                raise InputError(f"`files` does not list {name}.")
        return self

    @classmethod
    def read(cls, file: Path | str) -> Self:
        """Read the manifest of an export.

        Args:
            file: The export's folder, or the manifest in it.

        Raises:
            InputError: There is no manifest, or it is not one of this format.
        """
        file = Path(file)
        if not file.is_file() and not (file / MANIFEST).is_file():
            raise InputError(f"{file} is not an export: it has no {MANIFEST}.")
        return super().read(file if file.is_file() else file / MANIFEST)

    def check_files(self, folder: Path) -> None:
        """Compare the files in a folder with the manifest.

        Raises:
            InputError: A file is missing, changed, or not listed; it is named.
        """
        found = describe_files(folder)
        for name, entry in self.files.items():
            if name not in found:
                raise InputError(f"{folder / name} is missing.")
            if found[name] != entry:
                raise InputError(f"{folder / name} is not the file that was exported: its sha256 differs.")
        extra = sorted(set(found) - set(self.files))
        if extra:
            raise InputError(f"{folder / extra[0]} is not part of the export.")


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Compute size and hash of every file below a folder, by its relative path; manifests are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): FileEntry(size=path.stat().st_size, sha256=sha256(path))
        for path in files
    }
