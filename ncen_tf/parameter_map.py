"""Plot accuracy over two flags of a sweep (Luo et al., Fig. 4).

python -m ncen_tf.parameter_map --records=sweeps/lambda_map

leaves parameter_map-SUITE.png and .json: ACE, mean AAE over the suite's attacks, and their product, each a
mean over seeds.
"""

from pathlib import Path
from typing import Any

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError

RECORDS = flags.DEFINE_string("records", None, "folder of records, e.g. of a sweep")
X = flags.DEFINE_string("x", "lambda_cos", "training flag of the horizontal axis")
Y = flags.DEFINE_string("y", "lambda_norm", "training flag of the vertical axis")
SUITE = flags.DEFINE_string("suite", "paper", "whose AAE is shown")
OUT = flags.DEFINE_string("out", None, "folder of the plot (default: that of the records)")


def main() -> None:
    if not RECORDS.value:
        raise InputError("--records names a folder of records, e.g. --records=sweeps/lambda_map.")
    if X.value == Y.value:
        raise InputError(f"--x and --y are two flags; both are {X.value}.")
    from ncen_tf.base.files import write_json
    from ncen_tf.sweep.parameter_map import make_parameter_map
    from ncen_tf.sweep.parameter_map_plot import plot_parameter_map
    from ncen_tf.sweep.record import read_records

    folder = Path(RECORDS.value)
    records = read_records(folder)
    measured = make_parameter_map(records, X.value, Y.value, SUITE.value)
    content: dict[str, Any] = {
        "format": 1,
        "suite": SUITE.value,
        "objective": records[0]["reports"][SUITE.value]["objective"],
        "examples": records[0]["reports"][SUITE.value]["examples"],
        "dataset": records[0]["run"]["dataset"],
        "seeds": sorted({int(record["run"]["flags"]["seed"]) for record in records}),
        "x": {"flag": X.value, "values": measured.x},
        "y": {"flag": Y.value, "values": measured.y},
        "runs": measured.runs.tolist(),
        "ace": measured.ace.tolist(),
        "mean_aae": measured.mean_aae.tolist(),
        "product": measured.product.tolist(),
    }
    title = (
        f"{content['dataset']['name']}, {content['dataset']['train_examples']} training images, "
        f"protocol {SUITE.value}, {content['examples']} examples, mean over seeds"
    )
    out = Path(OUT.value) if OUT.value else folder
    out.mkdir(parents=True, exist_ok=True)
    plot, numbers = (out / f"parameter_map-{SUITE.value}.{suffix}" for suffix in ("png", "json"))
    plot_parameter_map(plot, measured, X.value, Y.value, title)
    write_json(numbers, content)
    row, column = divmod(int(measured.product.argmax()), len(measured.x))
    print(
        f"Largest ACE x mean AAE: {measured.product[row, column]:.4f} at --{X.value}={measured.x[column]:g} "
        f"--{Y.value}={measured.y[row]:g}.\nMap: {plot}, {numbers}"
    )


if __name__ == "__main__":
    program.run(main)
