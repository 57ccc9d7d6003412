"""NCEn-TF: train, export and attack negative-correlation ensembles of image classifiers."""

import lazy_loader

__version__ = "0.1.0"

# The public names are those of __init__.pyi. Each is loaded at first use (PEP 562), so that `import ncen_tf`
# and `--help` do not wait for TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
