"""The zoo: small networks of the architectures that spandrel recognises, through a whole export.

    python bench/scripts/zoo.py --output bench/results/zoo.json

Each goes the way of a user's checkpoint: saved, opened, exported in fp32 and fp16, compared with
spandrel's own run of it at an odd size, and used to upscale an odd-sized picture. What cannot be
exported for every size is exported for one. Prints docs/networks.md's table. Needs spandrel.
"""

import argparse
import dataclasses
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")
sys.path[:0] = [str(room) for room in ROOMS]  # runs from a checkout that is not installed

from scripts.zoo_networks import ZOO, ZooNetwork  # noqa: E402
from swise_deploy.checkpoints.foreign import open_any  # noqa: E402
from swise_deploy.command.console import progress, run_command  # noqa: E402
from swise_deploy.command.dependencies import installed_version, require  # noqa: E402
from swise_deploy.errors import InputError, SwiseError  # noqa: E402
from swise_deploy.pictures.files import read_rgb  # noqa: E402
from swise_deploy.pictures.folders import sample_paths  # noqa: E402
from swise_deploy.storage.documents import read_document  # noqa: E402
from swise_deploy.storage.files import write_json  # noqa: E402
from swise_engines import Upscaler  # noqa: E402
from swise_export import ExportConfig, OnnxRunner, export_verified  # noqa: E402

if TYPE_CHECKING:
    from swise_deploy.checkpoints.load import LoadedNetwork

Sizes = Literal["any", "one", "none"]

ODD_SIZE = (61, 45)
"""(width, height) of the picture that is compared and upscaled."""

ONE_SIZE = (64, 64)
"""(width, height) of an export for one size."""

PARITY = 1e-3
"""Largest difference from spandrel's run, of white, in fp32."""

_CROP = 64
# The whole reason is in the JSON.
_REMARK = 180
_VERSIONS = ("spandrel", "torch", "onnxruntime")


@dataclass(frozen=True, slots=True)
class ZooResult:
    """One network's way through the export.

    Attributes:
        name: The network's, in the zoo.
        scale: Output size over input size; None where the checkpoint was not opened.
        sizes: The sizes that its file takes: any, the one of the export, or none.
        note: The preparation of an export for any size; empty where it needed none.
        reason: The refusal of an export for any size, or of every export.
        parity_fp32: Largest difference of the fp32 file from spandrel's run, of white.
        parity_fp16: The same of the fp16 file.
        upscaled: Largest difference of an upscaled odd-sized 8-bit picture from spandrel's run, in
            8-bit values; None where the file takes one size, whose tiles meet other edges.
    """

    name: str
    scale: int | None
    sizes: Sizes
    note: str = ""
    reason: str = ""
    parity_fp32: float | None = None
    parity_fp16: float | None = None
    upscaled: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Take every network through and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", metavar="NAME", nargs="+", help="networks with one of these in their names"
    )
    parser.add_argument(
        "--output", type=Path, metavar="JSON", help="the results as JSON too; others in it stay"
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options.only, options.output))


def _run(only: Sequence[str] | None, output: Path | None) -> int:
    require("spandrel", extra="spandrel", purpose="building the zoo's networks")
    wanted = [text.lower() for text in only or [""]]
    chosen = [network for network in ZOO if any(text in network.name.lower() for text in wanted)]
    if not chosen:
        names = ", ".join(network.name for network in ZOO)
        raise InputError(f"--only {only}: no network has that in its name. Known: {names}")
    results: dict[str, ZooResult] = {}
    for network in chosen:
        with tempfile.TemporaryDirectory() as folder:
            result = export_zoo_network(network, Path(folder))
        progress(table_row(result))
        kept = read_results(output) if output is not None and output.exists() else results
        results = {**kept, result.name: result}
        if output is not None:
            _write_results(output, results)
    sys.stdout.write("\n".join(table(results)) + "\n")
    return 0


def _write_results(path: Path, results: Mapping[str, ZooResult]) -> None:
    versions = {name: installed_version(name) for name in _VERSIONS}
    networks = [dataclasses.asdict(results[n.name]) for n in ZOO if n.name in results]
    write_json(path, {"schema_version": 1, "versions": versions, "networks": networks})


def read_results(path: Path) -> dict[str, ZooResult]:
    """The results of an earlier run, by the networks' names."""
    advice = "Make it again with zoo.py --output"
    document = read_document(path, dict[str, Any], what="the zoo's results", advice=advice)
    return {entry["name"]: ZooResult(**entry) for entry in document["networks"]}


def export_zoo_network(network: ZooNetwork, folder: Path) -> ZooResult:
    """Take a network from its checkpoint to an upscaled picture.

    Args:
        network: Of the zoo.
        folder: For the checkpoint and the files that are made.

    Raises:
        SwiseError: Something fails that should not: fp16 where fp32 works, or the upscaling.
    """
    checkpoint = folder / "network.pth"
    _save(network, checkpoint)
    try:
        loaded = open_any("spandrel", scale=None, weights=checkpoint)
    except InputError as error:
        return ZooResult(network.name, None, "none", reason=_reason(error, folder))
    result = ZooResult(network.name, loaded.scale, "none")
    reason = ""
    attempts: tuple[tuple[Sizes, tuple[int, int] | None], ...] = (("any", None), ("one", ONE_SIZE))
    for sizes, size in attempts:
        notes: list[str] = []
        try:
            _export(loaded, folder / "fp32.onnx", ExportConfig(white=1, size=size), notes)
        except SwiseError as error:
            reason = reason or _reason(error, folder)
            continue
        result = dataclasses.replace(result, sizes=sizes, note=_note(notes))
        config = ExportConfig(white=1, size=size, precision="fp16")
        _export(loaded, folder / "fp16.onnx", config, notes)
        return _compared(dataclasses.replace(result, reason=reason), checkpoint, folder, size)
    return dataclasses.replace(result, reason=reason)


def _save(network: ZooNetwork, path: Path) -> None:
    import torch

    torch.save(network.state(), path)


def _export(loaded: "LoadedNetwork", path: Path, config: ExportConfig, notes: list[str]) -> None:
    picture = path.with_name(f"picture_x{loaded.scale}.png")
    side = _CROP * loaded.scale
    Image.fromarray(read_rgb(sample_paths()[0])[:side, :side]).save(picture)
    export_verified(loaded, path, config, images=[picture], report=notes.append)


def _note(notes: Sequence[str]) -> str:
    """The preparation that the export reported; empty where it needed none."""
    traced = [line for line in notes if line.startswith("the network is traced")]
    return traced[0].removeprefix("the network is traced ") if traced else ""


def _reason(error: SwiseError, folder: Path) -> str:
    return " ".join(str(error).replace(f"{folder}/", "").split())


def _compared(
    result: ZooResult, checkpoint: Path, folder: Path, size: tuple[int, int] | None
) -> ZooResult:
    """Compare the files with spandrel's own run, and an upscaled picture too."""
    picture = _picture(*(size or ODD_SIZE))
    lr = (picture.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]
    expected = _spandrel_run(checkpoint, lr)
    parity = []
    for precision in ("fp32", "fp16"):
        with OnnxRunner(folder / f"{precision}.onnx") as runner:
            parity.append(float(np.abs(np.clip(runner.infer(lr), 0, 1) - expected).max()))
    with Upscaler.open(folder / "fp32.onnx", runner="onnxruntime") as upscaler:
        sr = upscaler(_picture(*ODD_SIZE))
    assert sr.shape == (ODD_SIZE[1] * upscaler.scale, ODD_SIZE[0] * upscaler.scale, 3)
    upscaled = None
    if size is None:
        upscaled = int(np.abs(sr - np.rint(expected[0].transpose(1, 2, 0) * 255)).max())
    return dataclasses.replace(
        result, parity_fp32=parity[0], parity_fp16=parity[1], upscaled=upscaled
    )


def _picture(width: int, height: int) -> NDArray[np.uint8]:
    """Grey noise."""
    grey = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8)
    return np.repeat(grey, 3, axis=2)


def _spandrel_run(checkpoint: Path, lr: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture that spandrel itself gives, in [0, 1]; networks for luma get it as BT.601 has it.

    Black is 16 and white 235 there (ITU-R BT.601).
    """
    import torch
    from spandrel import ImageModelDescriptor, ModelLoader

    found = ModelLoader(device="cpu").load_from_file(checkpoint)
    assert isinstance(found, ImageModelDescriptor)
    # Networks for luma have one right answer to a grey picture.
    if found.input_channels == 1:
        sr = found(torch.tensor(lr[:, :1] * 219 / 255 + 16 / 255))
        luma: NDArray[np.float32] = sr.numpy()
        return (luma * np.float32(255 / 219) - np.float32(16 / 219)).clip(0, 1)
    rgb: NDArray[np.float32] = found(torch.tensor(lr)).numpy()
    return rgb


def table(results: Mapping[str, ZooResult]) -> list[str]:
    """The Markdown table, in the zoo's order."""
    head = "| network | scale | sizes | fp32, fp16: difference from spandrel | remarks |"
    rows = [table_row(results[n.name]) for n in ZOO if n.name in results]
    missing = [network.name for network in ZOO if network.name not in results]
    rest = ["", f"Not run: {'; '.join(missing)}."] if missing else []
    return [head, "|---|---|---|---:|---|", *rows, *rest]


def table_row(result: ZooResult) -> str:
    """A network's row."""
    sizes = {"any": "every", "one": "`--size` only", "none": "refused"}[result.sizes]
    scale = "-" if result.scale is None else f"x{result.scale}"
    parity = "-"
    if result.parity_fp32 is not None:
        parity = f"{result.parity_fp32:.0e}, {result.parity_fp16:.0e}"
    remark = result.note if result.sizes == "any" else result.reason
    remark = textwrap.shorten(remark, _REMARK, placeholder=" ...")
    return f"| {result.name} | {scale} | {sizes} | {parity} | {remark.replace('|', '/')} |"


if __name__ == "__main__":
    sys.exit(main())
