"""From a torch network to a verified ONNX file."""

from typing import TYPE_CHECKING

from swise_deploy.public_names import lazy_names

if TYPE_CHECKING:
    from swise_export.config import ExportConfig as ExportConfig
    from swise_export.counting import count_onnx as count_onnx
    from swise_export.interface.onnx_file import OnnxFile as OnnxFile
    from swise_export.interface.onnx_file import read_onnx_file as read_onnx_file
    from swise_export.job import export_verified as export_verified
    from swise_export.runtimes.onnxruntime import OnnxRunner as OnnxRunner
    from swise_export.runtimes.openvino import OpenVinoRunner as OpenVinoRunner
    from swise_export.runtimes.table import RUNTIMES as RUNTIMES
    from swise_export.runtimes.table import open_runner as open_runner
    from swise_export.tracing.trace import export_onnx as export_onnx
    from swise_export.verification.drift import measure_drift as measure_drift

PUBLIC = {
    "ExportConfig": "swise_export.config",
    "count_onnx": "swise_export.counting",
    "OnnxFile": "swise_export.interface.onnx_file",
    "read_onnx_file": "swise_export.interface.onnx_file",
    "export_verified": "swise_export.job",
    "OnnxRunner": "swise_export.runtimes.onnxruntime",
    "OpenVinoRunner": "swise_export.runtimes.openvino",
    "RUNTIMES": "swise_export.runtimes.table",
    "open_runner": "swise_export.runtimes.table",
    "export_onnx": "swise_export.tracing.trace",
    "measure_drift": "swise_export.verification.drift",
}
"""Name to the module that defines it; imported when it is used."""

__getattr__ = lazy_names(__name__, PUBLIC)
