"""Hostile ONNX files by what they ask for."""

from pathlib import Path

import onnx

from tests.fuzzing.case import MODEL, Case
from tests.fuzzing.hostile_onnx import memory, sizes, structure
from tests.fuzzing.hostile_onnx.external_data import HOLDERS, external


def hostile_onnx(original: bytes, secret: Path) -> dict[str, Case]:
    """Cases by what they ask for."""
    locations = {
        "above": f"../{secret.parent.name}/{secret.name}",
        "roundabout": f"weights/../../{secret.parent.name}/{secret.name}",
        "absolute": str(secret),
        "url": f"file://{secret}",
        "of the working directory": secret.name,
        "beside": "weights.bin",
    }
    cases = {}
    for place, holder in HOLDERS.items():
        for kind, location in locations.items():
            model = onnx.load_from_string(original)
            holder(model, external(location))
            files = {MODEL: model.SerializeToString(), "weights.bin": bytes(4096)}
            cases[f"external data {kind}, {place}"] = Case(files, must_be_refused=True)
    for kind, change in (memory.CHANGES | sizes.CHANGES | structure.CHANGES).items():
        model = onnx.load_from_string(original)
        change(model)
        cases[kind] = Case({MODEL: model.SerializeToString()})
    return cases
