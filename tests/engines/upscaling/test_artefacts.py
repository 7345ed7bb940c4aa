"""Which file a name stands for."""

from pathlib import Path

import pytest

from swise_deploy.checkpoints.shipped import shipped_onnx, shipped_weights
from swise_deploy.errors import InputError
from swise_deploy.storage.caches import cache_folder
from swise_engines.upscaling.artefacts import artefact_of


@pytest.mark.parametrize(
    ("source", "scale", "expected"),
    [("auto", None, 2), ("swisenet", 3, 3), ("swisenet:4", None, 4)],
)
def test_a_shipped_network_is_its_shipped_file_and_nothing_is_exported(
    source: str, scale: int | None, expected: int
) -> None:
    path = artefact_of(source, scale=scale)
    assert path == shipped_onnx("swisenet", expected, precision="fp32")
    assert not cache_folder("exported").exists()


def test_weights_that_are_given_are_exported() -> None:
    path = artefact_of("swisenet", weights=shipped_weights("swisenet", 2), scale=2)
    assert path.parent == cache_folder("exported")


def test_a_scale_that_does_not_ship_is_refused() -> None:
    with pytest.raises(InputError, match="no weights"):
        artefact_of("carn_m", scale=2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file at .*gone\.onnx"):
        artefact_of(tmp_path / "gone.onnx")
