"""NCEn-TF: train, export and attack negative-correlation ensembles of image classifiers."""

import sys

__version__ = "0.1.0"

# Importing the package registers its classes with Keras, so that saved ensembles load. Under
# `python -m ncen_tf.NAME` the program imports what it needs after its flags have been parsed
# (argv[0] is "-m" while the interpreter is still looking for the module): --help need not wait for
# TensorFlow.
if sys.argv[:1] != ["-m"]:
    from ncen_tf.models.ensemble import Ensemble, build_ensemble
    from ncen_tf.regularizers.adp import ADP
    from ncen_tf.regularizers.gal import GAL
    from ncen_tf.regularizers.gpmr import GPMR
    from ncen_tf.regularizers.nce import NCE
    from ncen_tf.training.nc_ensemble import NCEnsemble

    __all__ = ["ADP", "GAL", "GPMR", "NCE", "Ensemble", "NCEnsemble", "build_ensemble"]
