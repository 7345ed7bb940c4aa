import json
import subprocess
import sys

from swise_engines.doctor import cli as cli_doctor
from swise_engines.targets.catalogue import load_targets


def test_the_screen_names_what_works_and_the_target(capsys):
    assert cli_doctor.main(["--target", "jetson-nano"]) == 3
    screen = capsys.readouterr().out
    assert "upscale and benchmark ONNX files" in screen
    assert "swise-build FILE.onnx --target jetson-nano" in screen
    assert len(screen.splitlines()) < 60


def test_json_is_one_document_with_values_or_reasons(capsys):
    assert cli_doctor.main(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 2
    assert document["target"] is None
    for section in document["facts"].values():
        for fact in section.values():
            assert (fact["value"] is None) != (fact["reason"] is None)


def test_json_states_whether_a_target_is_served(capsys):
    code = cli_doctor.main(["--json", "--target", "jetson-thor"])
    verdict = json.loads(capsys.readouterr().out)["target"]
    assert code == (0 if verdict["build"]["works"] else 3)
    assert verdict["target"] == "jetson-thor"


def test_the_screen_fits_80_columns_and_its_commands_can_be_copied(capsys):
    assert cli_doctor.main(["--target", "jetson-orin-nano-super"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for line in lines:
        if line.endswith(" \\"):
            assert line.startswith("    ")


def test_a_family_lists_its_targets(capsys):
    jetsons = [target for target in load_targets().values() if target.kind == "jetson"]
    assert cli_doctor.main(["--target", "jetson"]) == 0
    screen = capsys.readouterr().out
    assert all(f"{target.name} " in screen and target.title in screen for target in jetsons)
    assert cli_doctor.main(["--json", "--target", "jetson"]) == 0
    family = json.loads(capsys.readouterr().out)["family"]
    assert [target["name"] for target in family] == [target.name for target in jetsons]
    assert family[0]["jetpacks"] == {"4.6.1": "8.2.1"}


def test_a_misspelt_target_is_a_usage_error(capsys):
    assert cli_doctor.main(["--target", "rtx4090"]) == 2
    assert "Did you mean 'rtx-4090'" in capsys.readouterr().err


def test_an_examination_loads_no_heavy_library():
    code = (
        "import sys\nfrom swise_engines.doctor.cli import main\nmain(['--json'])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    )
    assert not {"torch", "onnxruntime", "openvino", "tensorrt", "ray"} & set(done.stderr.split())
