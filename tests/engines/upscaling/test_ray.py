import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_engines.upscaling.batch import upscale_files
from swise_engines.upscaling.jobs import plan_jobs
from swise_engines.upscaling.ray import RaySettings, upscale_on_ray
from swise_engines.upscaling.upscaler import Upscaler

ray = pytest.importorskip("ray", reason="needs Ray, the extra [ray]")

ROOT = Path(__file__).resolve().parents[3]


def worker_pids():
    """Processes of ours that run an actor of the upscaler."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::_Worker"):
                pids.append(int(folder.name))
    return pids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_worker_loses_nothing_and_results_equal_the_local_run(
    tmp_path, small_network, monkeypatch
):
    rooms = [str(ROOT / room) for room in (".", "export", "engines", "bench")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(rooms))
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    num_pictures = 40
    for i in range(num_pictures):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / f"in/{i}.png")
    (tmp_path / "in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbad")
    model = small_network(radius=6)
    local = plan_jobs([str(tmp_path / "in")], tmp_path / "local").jobs
    with Upscaler.open(model) as upscaler:
        list(upscale_files(upscaler, local))

    killed = []

    def kill_one():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            pids = worker_pids()
            if len(pids) == 2 and any((tmp_path / "ray").glob("*.png")):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "ray").jobs
    settings = RaySettings("local", threads=1, num_workers=2)
    outcomes = list(upscale_on_ray(model, jobs, settings=settings))
    killer.join()
    assert killed
    assert len(outcomes) == num_pictures + 1
    assert [o.item.source.name for o in outcomes if o.error] == ["bad.png"]
    for i in range(num_pictures):
        expected = (tmp_path / f"local/{i}.png").read_bytes()
        assert (tmp_path / f"ray/{i}.png").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_missing_cluster_is_reported(small_network):
    settings = RaySettings("ray://127.0.0.1:1")
    with pytest.raises(InputError, match="no Ray cluster"):
        list(upscale_on_ray(small_network(), [], settings=settings))


@pytest.mark.parametrize(
    ("name", "num_workers", "resources", "expected"),
    [
        ("a.onnx", None, {"CPU": 8.0, "GPU": 2.0}, (4, 0.0)),
        ("a.onnx", 3, {"CPU": 8.0}, (3, 0.0)),
        ("a.onnx", None, {"CPU": 1.0}, (1, 0.0)),
        ("a.engine", None, {"CPU": 64.0, "GPU": 2.0}, (2, 1.0)),
        ("a.engine", 1, {"GPU": 2.0}, (1, 1.0)),
        ("a.engine", 3, {"GPU": 2.0}, (3, 0.5)),
        ("a.plan", 4, {"GPU": 1.0}, (4, 0.25)),
    ],
)
def test_an_engine_s_workers_ask_for_gpus_and_others_for_none(
    name, num_workers, resources, expected
):
    settings = RaySettings("auto", threads=2, num_workers=num_workers)
    assert settings.share_out(Path(name), resources) == expected


def test_an_engine_on_a_cluster_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="cluster at auto offers no GPU"):
        RaySettings("auto").share_out(Path("a.engine"), {"CPU": 8.0})
