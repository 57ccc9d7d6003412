"""SavedModels as targets, through their ``serving_default`` signature."""

import hashlib
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import IMAGE, MEMBER_LOGITS, describe_files
from ncen_tf.untrusted.memory import try_model
from ncen_tf.untrusted.saved_model import load_saved_model


class SavedModelTarget:
    """A SavedModel that :mod:`ncen_tf.export` wrote; TensorFlow differentiates its graph.

    Args:
        path: the SavedModel's folder.

    Raises:
        InputError: a folder that TensorFlow cannot load, another signature, or a model that does not run.
    """

    gives_logits = True
    providers: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._loaded = load_saved_model(path)
        try:
            self._serve: Any = self._loaded.signatures["serving_default"]
            (image,) = self._serve.structured_input_signature[1].values()
            height, width, channels = map(int, image.shape[1:])
            members, classes = map(int, self._serve.structured_outputs[MEMBER_LOGITS].shape[1:])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} cannot be used: it has no signature {IMAGE} [N, H, W, C] -> "
                f"{MEMBER_LOGITS} [N, members, classes]."
            ) from error
        self.description = f"SavedModel {path}"
        self.sha256 = hashlib.sha256(json.dumps({name: file.model_dump() for name, file in describe_files(path).items()}).encode()).hexdigest()
        self.image_shape = (height, width, channels)
        self.members, self.classes = members, classes
        try_model(path, self.image_shape, lambda images: self.member_logits(tf.constant(images)))

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._serve(**{IMAGE: images})[MEMBER_LOGITS]
