import os
import subprocess
import sys
from pathlib import Path

import pytest

from swise_deploy.models.checkpoint import LoadedNetwork
from swise_export.exporting import export_onnx

pytest.importorskip("openvino", reason="the openvino extra is not installed")

RUN_TWICE_THEN_CTRL_C = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from swise_export.openvino_runner import OpenVinoRunner

for side in (4, 5):
    with OpenVinoRunner(Path(sys.argv[1])) as runner:
        for width in (4, 6):
            runner.infer(np.zeros((1, 3, side, width), np.float32))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_after_several_compilations_is_an_interrupt(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    # Two plugins, one freed after the other, left a dangling signal stack: a segmentation fault.
    export_onnx(network_x2, tmp_path / "a.onnx")
    done = subprocess.run(
        [sys.executable, "-c", RUN_TWICE_THEN_CTRL_C, str(tmp_path / "a.onnx")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
