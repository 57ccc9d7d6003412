"""Which cases a format's reader is shown."""

from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes
from tests.fuzzing.case import MODEL, Case, Files
from tests.fuzzing.checkpoint_mutations import mutated_index
from tests.fuzzing.hostile_onnx.cases import hostile_onnx
from tests.fuzzing.json_mutations import mutated_json, mutated_json_lines
from tests.fuzzing.keras_mutations import hostile_keras, mutated_keras
from tests.fuzzing.npz_mutations import mutated_npz
from tests.fuzzing.protobuf_mutations import mutated_message
from tests.fuzzing.text_mutations import mutated_text

Cases = st.SearchStrategy[Case]
Mutation = Callable[[bytes], st.SearchStrategy[bytes]]

WEIGHTS = {
    "onnx": 20,
    "onnx_parity": 5,
    "keras": 10,
    "run": 2,
    "checkpoint": 5,
    "saved_model": 8,
    "manifest": 6,
    "report": 5,
    "transfer": 4,
    "records": 5,
    "cell": 3,
    "metrics": 2,
    "run_flags": 3,
    "flagfile": 4,
    "grid": 4,
    "gate": 4,
    "suite": 4,
    "adversarials": 6,
    "attack_result": 4,
    "attack_batches": 4,
    "archives": 2,
    "prepared": 2,
}
"""Cases of each format, relative to the others: more where files come from others, or more can go wrong."""

_BY_SUFFIX: dict[str, Mutation] = {
    ".json": mutated_json,
    ".jsonl": mutated_json_lines,
    ".npz": mutated_npz,
    ".onnx": mutated_message,
    ".pb": mutated_message,
    ".keras": mutated_keras,
    ".index": mutated_index,
    ".cfg": mutated_text,
    ".toml": mutated_text,
}
_ENDLESS = "--at_steps=0x" + "f" * 5000
"""Python reads such an integer, but refuses to print it."""
_LINES = {
    "flagfile": (
        "--flagfile=flags.cfg",
        "--help",
        "--undefok=x",
        "--seed",
        "--noseed",
        "--jit_compile=maybe",
        _ENDLESS,
        "x",
        "--",
    ),
    "run_flags": ("--help", "--undefok=x", "--seed", "--jit_compile=maybe", "x", "--", "--=", "--epochs=1"),
    "gate": ("[[robust_accuracy]]", "[robust_accuracy]", "[x]", "eps = 0.1", "minimum = 0", "a.b.c = 1"),
    "suite": ("[[attack]]", "[attack]", "[x]", 'norm = "L2"', "eps = 0.1", "a.b.c = 1"),
    "grid": (
        "[train]",
        "[export]",
        "[attack]",
        "[x]",
        "--seed=0 | 1",
        "--suite=x.toml",
        "--epochs=1|1",
        _ENDLESS,
        "--x",
    ),
}
_LINES["grid"] = (
    *_LINES["grid"],
    *(f"--{name}={'|'.join(map(str, range(1, 100)))}" for name in ("seed", "epochs", "batch_size")),
)


def cases(name: str, seeds: Mapping[str, Files], secret: Path) -> Cases:
    """Cases of a format.

    Args:
        name: a key of :data:`WEIGHTS`.
        seeds: of all formats, as the worker writes them.
        secret: a file outside, for cases that ask for one.
    """
    seed = seeds[name]
    mutations = {file: _mutation(name, file) for file in sorted(seed)}
    # Without an archive, the dataset would be looked for on the network.
    mutated = _one_file_mutated(seed, mutations, or_missing=name != "archives")
    hostile = hostile_cases(name, seeds, secret)
    if not hostile:
        return mutated
    chosen = st.sampled_from(sorted(hostile)).map(hostile.__getitem__)
    return st.one_of(mutated, mutated, mutated, chosen)


def hostile_cases(name: str, seeds: Mapping[str, Files], secret: Path) -> dict[str, Case]:
    """Files made by hand, by what they ask for; the arguments are those of :func:`cases`."""
    if name == "keras":
        files = hostile_keras(seeds[name]["ensemble.keras"], secret)
        return {
            kind: Case({"ensemble.keras": content}, must_be_refused=True) for kind, content in files.items()
        }
    if name in ("onnx", "onnx_parity"):
        return hostile_onnx(seeds[name][MODEL], secret)
    if name == "saved_model":
        folders: dict[str, dict[str, bytes]] = {}
        for path, content in seeds["hostile_saved_models"].items():
            kind, _, file = path.partition("/")
            folders.setdefault(kind, {})[file] = content
        return {kind: Case(files, must_be_refused=True) for kind, files in folders.items()}
    return {}


def _mutation(name: str, file: str) -> Mutation:
    mutate = _BY_SUFFIX.get(Path(file).suffix, mutated_bytes)
    if mutate is mutated_text:
        return lambda original: mutated_text(original, _LINES.get(name, ()))
    return mutate


def _one_file_mutated(seed: Files, mutations: Mapping[str, Mutation], or_missing: bool) -> Cases:
    """The seed with one of the named files mutated, or now and then missing."""

    def changed(file: str) -> Cases:
        mutated = mutations[file](seed[file]).map(lambda content: Case({**seed, file: content}))
        missing = st.just(Case({name: content for name, content in seed.items() if name != file}))
        return st.one_of(*[mutated] * 20, missing) if or_missing else mutated

    return st.sampled_from(sorted(mutations)).flatmap(changed)
