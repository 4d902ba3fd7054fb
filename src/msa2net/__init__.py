"""MSA²Net for medical image segmentation. Research use only, not a medical device.

Heavy libraries are imported where they are used, so that `import msa2net` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from msa2net.config import Config, load_config
    from msa2net.data.case import Case, Geometry, Segmentation
    from msa2net.errors import ConfigError, DataError, Msa2NetError, WeightsError
    from msa2net.evaluation.folders import evaluate
    from msa2net.evaluation.run import evaluate_run
    from msa2net.export.onnx import export_onnx
    from msa2net.inference.onnx_backend import OnnxPredictor
    from msa2net.inference.predictor import Predictor
    from msa2net.models.registry import create_model
    from msa2net.prediction.run import predict_files
    from msa2net.training.run import train

_HOME = {
    "Case": "msa2net.data.case",
    "Config": "msa2net.config",
    "ConfigError": "msa2net.errors",
    "DataError": "msa2net.errors",
    "Geometry": "msa2net.data.case",
    "Msa2NetError": "msa2net.errors",
    "OnnxPredictor": "msa2net.inference.onnx_backend",
    "Predictor": "msa2net.inference.predictor",
    "Segmentation": "msa2net.data.case",
    "WeightsError": "msa2net.errors",
    "create_model": "msa2net.models.registry",
    "evaluate": "msa2net.evaluation.folders",
    "evaluate_run": "msa2net.evaluation.run",
    "export_onnx": "msa2net.export.onnx",
    "load_config": "msa2net.config",
    "predict_files": "msa2net.prediction.run",
    "train": "msa2net.training.run",
}

__all__ = [
    "Case",
    "Config",
    "ConfigError",
    "DataError",
    "Geometry",
    "Msa2NetError",
    "OnnxPredictor",
    "Predictor",
    "Segmentation",
    "WeightsError",
    "__version__",
    "create_model",
    "evaluate",
    "evaluate_run",
    "export_onnx",
    "load_config",
    "predict_files",
    "train",
]


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)


if not TYPE_CHECKING:  # of a module with this, type checkers believe that it has any name

    def __getattr__(name: str) -> Any:
        """Import a public name from its home on first use."""
        if name not in _HOME:
            raise AttributeError(f"module 'msa2net' has no attribute '{name}'")
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
