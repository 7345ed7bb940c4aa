import os
import subprocess
import sys

import pytest

from swise_deploy.training.step.allocator import keep_freed_memory

# Prints how many pages the system had to bring for five passes after the first five.
_PROGRAM = """
import resource, sys, torch
from swise_deploy.training.step.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("told nothing")
torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 3, 3))
x = torch.rand(1, 3, 512, 512)
for step in range(10):
    if step == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    network(x).mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages(how: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", _PROGRAM, how]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.stderr.strip() == "told nothing":
        pytest.skip("this C library is not glibc")
    return int(found.stdout)


def test_memory_of_one_step_serves_the_next() -> None:
    # 16 x 512 x 512 float32 are 4096 pages.
    assert _pages("as it is") > 4096
    assert _pages("keep") < 4096


def test_environment_has_the_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
