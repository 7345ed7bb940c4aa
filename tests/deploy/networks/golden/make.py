"""Run the authors' own code on a shipped photograph and keep its pictures and weights.

    git clone https://github.com/nmhkahn/CARN-pytorch && git -C CARN-pytorch checkout 40d3514
    git clone https://github.com/NJU-Jet/FMEN && git -C FMEN checkout a1def16
    python tests/deploy/networks/golden/make.py CARN-pytorch FMEN

Nothing of this project computes here but the reading of the photograph. The code of the two
checkouts is executed.
"""

import importlib
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths

FOLDER = Path(__file__).resolve().parent


def main(carn: Path, fmen: Path) -> None:
    """Write carn_m.* and fmen_s.* beside this file."""
    sample = next(path for path in sample_paths() if path.stem == "flowers")
    lr = read_rgb(sample)[48:84, 60:100]

    sys.path.insert(0, str(carn / "carn"))
    network = importlib.import_module("model.carn_m").Net(multi_scale=True, group=4)
    state = torch.load(carn / "checkpoint" / "carn_m.pth", weights_only=True, map_location="cpu")
    network.load_state_dict(state)
    outputs = {f"x{s}": run(partial(network, scale=s), lr, peak=1) for s in (2, 3, 4)}
    keep("carn_m", lr, outputs, state)

    sys.path.insert(0, str(fmen))
    sys.modules["torchsummaryX"] = types.ModuleType("torchsummaryX")
    sys.modules["torchsummaryX"].summary = None  # type: ignore[attr-defined]  # only its main uses it
    module = importlib.import_module("test_fmen")
    network = module.TEST_FMEN(module.Args())
    state = torch.load(fmen / "test_weights.pt", weights_only=True, map_location="cpu")
    network.load_state_dict(state)
    keep("fmen_s", lr, {"x4": run(network, lr, peak=255)}, state)


def run(
    network: Callable[[torch.Tensor], torch.Tensor], lr: NDArray[np.uint8], *, peak: int
) -> NDArray[np.uint8]:
    """Upscale with pictures in 0..peak, and round to 8 bits."""
    x = torch.from_numpy(lr.transpose(2, 0, 1)[None].astype(np.float32) / 255 * peak)
    with torch.inference_mode():
        y = network(x)[0].numpy().transpose(1, 2, 0) / peak * 255
    return np.asarray(np.clip(np.round(y), 0, 255), np.uint8)


def keep(
    name: str, lr: NDArray[np.uint8], outputs: dict[str, NDArray[np.uint8]], state: object
) -> None:
    """Write pictures and weights."""
    arrays: dict[str, Any] = {"lr": lr, **outputs}
    np.savez_compressed(FOLDER / f"{name}.npz", allow_pickle=False, **arrays)
    assert isinstance(state, dict)
    save_file(
        {key: value.contiguous() for key, value in state.items()}, FOLDER / f"{name}.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
