"""The function that every exported file computes."""

from typing import Any

import keras
import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import mean_probabilities, stack_logits

IMAGE, PROBABILITIES, MEMBER_LOGITS = "image", "probabilities", "member_logits"


def serving_function(ensemble: keras.Model, image_shape: tuple[int, int, int]) -> Any:
    """image float32 [N, H, W, C] in [0, 1] -> probabilities [N, classes], member_logits [N, k, classes]."""

    members = ensemble.members if isinstance(ensemble, Ensemble) else [ensemble]

    @tf.function(input_signature=[tf.TensorSpec((None, *image_shape), tf.float32, name=IMAGE)])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = stack_logits(members, [image] * len(members), training=False)
        return {PROBABILITIES: mean_probabilities(logits), MEMBER_LOGITS: logits}

    return serve
