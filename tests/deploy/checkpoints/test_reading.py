"""Checkpoints as scripts save them, and as disks and strangers leave them."""

import argparse
import datetime
import decimal
import fractions
import io
import logging
import os
import pathlib
import subprocess
import sys
import types
import uuid
import zipfile
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.reading import read_states
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import NETWORKS, build_network


def small_state() -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(31.2),
        np.float32(31.2),
        np.int64(7),
        np.bool_(True),
        np.arange(4, dtype=np.int16),
        np.array(["a", "b"]),
        argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("runs/x")),
        types.SimpleNamespace(epoch=3),
        pathlib.Path("runs/x"),
        OrderedDict(a=1),
        {"nested": [argparse.Namespace(best=np.float64(1.0))]},
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        datetime.timedelta(seconds=3),
        decimal.Decimal("0.1"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=7),
        deque([1.0, 2.0], maxlen=5),
        Counter("aab"),
        np.random.default_rng(0),
        np.random.RandomState(0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_beside_the_weights_are_no_code(tmp_path: Path, beside: object) -> None:
    torch.save({"state_dict": small_state(), "beside": beside}, tmp_path / "a.pth")
    (state,) = read_states(tmp_path / "a.pth")
    assert state.place == "state_dict"
    assert torch.equal(state.tensors["layer.weight"], small_state()["layer.weight"])


class Mode(Enum):
    FAST = "fast"


class Settings(dict):  # as EasyDict, Munch and ConfigDict are
    """A dict whose keys are attributes, too."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.__dict__ = self


@dataclass
class History:
    best: float
    weights: dict[str, torch.Tensor]


class Loud(types.SimpleNamespace):
    def __setstate__(self, _state: object) -> None:
        sys.stdout.write("executed")


class Average(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


@pytest.mark.parametrize(
    "beside",
    [
        Mode.FAST,
        Settings(lr=1e-3),
        History(31.2, small_state()),
        torch.optim.lr_scheduler.StepLR(torch.optim.SGD(nn.Linear(1, 1).parameters()), 5),
        Average(),
        {"callbacks": [History(1.0, {}), Mode.FAST]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_of_other_programs_beside_the_weights_stay_unread(
    tmp_path: Path, beside: object, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"state_dict": small_state(), "beside": beside}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        (state,) = read_states(tmp_path / "a.pth")
    assert state.place == "state_dict"
    assert torch.equal(state.tensors["layer.weight"], small_state()["layer.weight"])
    assert "are left unread" in caplog.text


def test_weights_inside_a_dict_of_another_program_are_found(tmp_path: Path) -> None:
    torch.save(Settings(state_dict=small_state(), epoch=3), tmp_path / "a.pth")
    (state,) = read_states(tmp_path / "a.pth")
    assert state.place == "state_dict"


def test_objects_of_other_programs_run_no_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": small_state(), "beside": Loud(value=1)}, tmp_path / "a.pth")
    capsys.readouterr()
    (state,) = read_states(tmp_path / "a.pth")
    assert set(state.tensors) == set(small_state())
    assert capsys.readouterr().out == ""


def test_numbers_of_older_numpy_are_read_under_its_own_names(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": small_state(), "best": np.float64(1.5)}, buffer)
    with (
        zipfile.ZipFile(io.BytesIO(buffer.getvalue())) as archive,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as renamed,
    ):
        for member in archive.infolist():
            content = archive.read(member)
            if member.filename.endswith("data.pkl"):
                # Protocol 2 has GLOBAL, whose names end with the line: any length will do.
                content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
                assert b"cnumpy.core.multiarray\n" in content
            renamed.writestr(member.filename, content)
    (state,) = read_states(tmp_path / "old.pth")
    assert set(state.tensors) == set(small_state())


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("code", "beside"),
    [
        (Harmful(), {}),
        (Harmful(), small_state()),
        (print, {}),
        (print, small_state()),
        (os.system, {}),  # torch refuses its module in other words
        (nn.Conv2d(3, 3, 1), {}),
    ],
)
def test_code_is_refused_by_its_name(
    tmp_path: Path,
    code: object,
    beside: dict[str, torch.Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "code.pth"
    torch.save({"model": code, "state_dict": beside}, path)
    with pytest.raises(InputError, match="code and not weights"):
        read_states(path)
    assert "executed" not in capsys.readouterr().out


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scripted.pt", "w") as archive:
        archive.writestr("scripted/constants.pkl", b"")
        archive.writestr("scripted/data.pkl", b"")
    with pytest.raises(InputError, match=r"TorchScript.*torch\.jit\.load"):
        read_states(tmp_path / "scripted.pt")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc for memory")
@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_a_zip_bomb_is_refused_unread(tmp_path: Path, member: str) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(member, "w", force_zip64=True) as file:
            for _ in range(512):
                file.write(bytes(1 << 20))
        archive.writestr("archive/version", "3")
    code = (
        "import re, sys; from pathlib import Path\n"
        "from swise_deploy.checkpoints.reading import read_states\n"
        "from swise_deploy.errors import InputError\n"
        "def peak_kib():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak_kib()\n"
        "try: read_states(Path(sys.argv[1]))\n"
        "except InputError as error: print(error)\n"
        "print(peak_kib() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    message, more_kib = done.stdout.splitlines()
    assert "unpacks to 536,870,91" in message
    assert int(more_kib) < 100 * 1024


def test_tensors_that_few_bytes_blow_up_are_no_weights(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_states(tmp_path / "wide.pth")


def test_a_document_that_contains_itself_ends(tmp_path: Path) -> None:
    loop: dict[str, object] = {"state_dict": small_state()}
    loop["again"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    assert len(read_states(tmp_path / "loop.pth")) == 1


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bits_end_in_one_message_or_in_a_network(tmp_path: Path, kind: str) -> None:
    state = build_network("fsrcnn", 2).state_dict()
    whole = {k.removeprefix("network."): v.contiguous() for k, v in state.items()}
    path = tmp_path / f"damaged.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(whole, path)
    else:
        torch.save(whole, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    source = np.random.default_rng(0)
    refused = 0
    for _ in range(80):
        damaged = bytearray(data)
        for place in source.integers(min(len(data), 3000), size=source.choice((1, 1, 2, 5))):
            damaged[place] ^= 1 << int(source.integers(8))
        path.write_bytes(damaged)
        try:
            open_network(weights=path, scale=2)
        except InputError as error:
            refused += str(path) in str(error)
    assert refused > 20


ODD = {
    "scalar": torch.tensor(1.0),
    "vector": torch.zeros(3),
    "five axes": torch.zeros(1, 1, 1, 1, 1),
    "empty": torch.zeros(0, 3, 3, 3),
    "integers": torch.zeros(4, 4, 3, 3, dtype=torch.int64),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["fsrcnn", "srcnn", "vdsr", "carn_m", "swisenet", "fmen_s"])
def test_tensors_of_other_shapes_are_refused_by_name(tmp_path: Path, name: str, odd: str) -> None:
    with torch.device("meta"):
        shapes = build_network(name, 2).state_dict()
    state = {k.removeprefix("network."): torch.zeros(v.shape) for k, v in shapes.items()}
    for key in [*list(state)[:2], *list(state)[-2:]]:
        if state[key].ndim == 4:
            torch.save({**state, key: ODD[odd]}, tmp_path / "odd.pth")
            with pytest.raises(InputError, match=r"odd\.pth"):
                open_network(weights=tmp_path / "odd.pth", scale=2)


def test_a_scalar_for_a_convolution_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = {
        k.removeprefix("network."): v for k, v in build_network("fsrcnn", 2).state_dict().items()
    }
    state["mid_part.0.weight"] = torch.tensor(1.0)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"mid_part\.0\.weight is \(\), expected \(12, 56, 1, 1\)"):
        open_network(weights=tmp_path / "odd.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"netG": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"epoch": 3, "params_ema": s},
        lambda s: {"state_dict": {f"generator.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {**s, "total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)},
        lambda s: {
            "state_dict": {**{f"net_g.{k}": v for k, v in s.items()}, "d.w": torch.zeros(2)}
        },
    ],
)
def test_a_network_of_the_registry_is_found_in_any_wrapper(tmp_path: Path, wrap) -> None:
    torch.manual_seed(0)
    network = build_network("swisenet", 2)
    torch.save(wrap(network.state_dict()), tmp_path / "any.pth")
    found = open_network(weights=tmp_path / "any.pth")
    assert (found.name, found.scale) == ("swisenet", 2)
    for key, value in network.state_dict().items():
        assert torch.equal(found.module.state_dict()[key], value), key


def test_averaged_weights_come_first_and_the_choice_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, average = (build_network("fsrcnn", 2).state_dict() for _ in range(2))
    strip = "network."
    states = [{k.removeprefix(strip): v for k, v in s.items()} for s in (plain, average)]
    torch.save({"model": states[0], "model_ema": states[1]}, tmp_path / "both.pth")
    with caplog.at_level(logging.WARNING):
        found = open_network(weights=tmp_path / "both.pth", scale=2)
    assert torch.equal(
        found.module.state_dict()["network.first_part.0.weight"],
        states[1]["first_part.0.weight"],
    )
    assert "model_ema; model would fit too" in caplog.text


@pytest.mark.parametrize("name", [n for n, w in NETWORKS.items() if w.trained and n != "drcn"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_network_is_recognised_by_its_shapes_whatever_its_modules_are_called(
    tmp_path: Path, name: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = build_network(name, 4)
    state = {k.removeprefix("network."): v for k, v in network.state_dict().items()}
    renamed = {f"blocks.{i}.tensor": v for i, v in enumerate(state.values())}
    path = tmp_path / f"renamed.{suffix}"
    if suffix == "pth":
        torch.save(renamed, path)
    else:  # which sorts by name: blocks.10 before blocks.2
        save_file({k: v.contiguous() for k, v in renamed.items()}, path)
    with caplog.at_level(logging.WARNING):
        found = open_network(weights=path, scale=4)
    assert found.name == name
    assert "by the shapes" in caplog.text
    lr = torch.rand(1, 3, 8, 9)
    with torch.inference_mode():
        assert torch.equal(found.module(lr), network.eval()(lr))
