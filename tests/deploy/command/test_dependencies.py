import json
from pathlib import Path

import pytest

from swise_deploy.command.dependencies import install_command, require
from swise_deploy.errors import BackendMissingError

METADATA = """Metadata-Version: 2.4
Name: swise-deploy
Version: 0.1.0
Provides-Extra: export
Provides-Extra: train
Provides-Extra: tensorrt
Requires-Dist: numpy>=1.26
Requires-Dist: tomli>=2; python_version < "3.11"
Requires-Dist: torch>=2.6; extra == "export"
Requires-Dist: safetensors>=0.4.3; extra == "export"
Requires-Dist: swise-deploy[export]; extra == "train"
Requires-Dist: tensorboard>=2.16; extra == "train"
Requires-Dist: pycuda>=2024.1; platform_machine == "aarch64" and extra == "tensorrt"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a distribution's metadata as pip does, PEP 610's record included."""

    def write(origin: dict[str, object] | None) -> None:
        folder = tmp_path / "site" / "swise_deploy-0.1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(METADATA, encoding="utf-8")
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
        monkeypatch.syspath_prepend(folder.parent)

    return write


def test_from_an_index_the_name_is_enough(install):
    install(None)
    assert install_command("export") == "pip install 'swise-deploy[export]'"
    assert install_command("rtx", "ray") == "pip install 'swise-deploy[rtx,ray]'"


def test_a_folder_is_named_editable_or_not(install, tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    install({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert install_command("export") == f"pip install -e '{folder}[export]'"


def test_a_folder_that_is_not_editable_is_installed_again(install, tmp_path):
    install({"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_command("export") == f"pip install '{tmp_path}[export]'"


def test_a_wheel_that_is_still_there_is_named(install, tmp_path):
    wheel = tmp_path / "swise_deploy-0.1.0-py3-none-any.whl"
    wheel.touch()
    install({"url": wheel.as_uri(), "archive_info": {"hashes": {}}})
    assert install_command("tensorrt", beside=["tensorrt<12"], pip="~/swise/bin/pip") == (
        f"~/swise/bin/pip install 'tensorrt<12' '{wheel}[tensorrt]'"
    )


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("export", "'torch>=2.6' 'safetensors>=0.4.3'"),
        ("train", "'torch>=2.6' 'safetensors>=0.4.3' 'tensorboard>=2.16'"),
        ("tensorrt", """'pycuda>=2024.1; platform_machine == "aarch64"'"""),
    ],
)
def test_where_the_wheel_is_gone_the_packages_of_the_extra_are_named(install, extra, packages):
    install({"url": "file:///gone/swise_deploy-0.1.0-py3-none-any.whl", "archive_info": {}})
    assert install_command(extra) == f"pip install {packages}"


def test_a_git_repository_keeps_its_address_and_revision(install):
    url = "https://example.org/swise-deploy.git"
    vcs = {"vcs": "git", "commit_id": "0" * 40, "requested_revision": "v0.1.0"}
    install({"url": url, "vcs_info": vcs})
    assert install_command("export") == f"pip install 'swise-deploy[export] @ git+{url}@v0.1.0'"


def test_a_download_keeps_its_address(install):
    url = "https://example.org/swise_deploy-0.1.0-py3-none-any.whl"
    install({"url": url, "archive_info": {}})
    assert install_command("export") == f"pip install 'swise-deploy[export] @ {url}'"


def test_a_missing_package_is_named_with_that_command(install):
    install(None)
    with pytest.raises(BackendMissingError) as caught:
        require("no_such_package", extra="export", purpose="a test")
    assert "no_such_package" in str(caught.value)
    assert "pip install 'swise-deploy[export]'" in str(caught.value)


def test_the_build_folder_of_a_checkout_is_no_record_of_an_installation(
    install, tmp_path, monkeypatch
):
    install({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    checkout = tmp_path / "checkout" / "swise_deploy.egg-info"
    checkout.mkdir(parents=True)
    (checkout / "PKG-INFO").write_text(METADATA, encoding="utf-8")
    monkeypatch.syspath_prepend(checkout.parent)
    assert install_command("export") == f"pip install -e '{tmp_path}[export]'"
