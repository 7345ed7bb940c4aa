import stat

import pytest

from swise_engines.doctor.machine import Machine, UnobservableError


@pytest.fixture
def machine(tmp_path):
    """A machine whose only command is the shell script that a test writes."""

    def write(script):
        command = tmp_path / "tool"
        command.write_bytes(b"#!/bin/sh\n" + script)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        return Machine(tmp_path, str(tmp_path))

    return write


def test_output_that_is_no_utf_8_is_read(machine):
    """A name in Latin-1 under a UTF-8 locale, or a degree sign under the C locale."""
    there = machine(b"printf '54 \\260C'")
    assert there.output_of("tool") == "54 \N{REPLACEMENT CHARACTER}C"
    assert there.first_line_of("tool") == "54 \N{REPLACEMENT CHARACTER}C"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (b"echo no GPU >&2; exit 9", "tool failed with 9: no GPU"),
        (b"exit 3", "tool failed with 3: no message"),
    ],
)
def test_a_command_that_fails_gives_the_reason(machine, script, reason):
    with pytest.raises(UnobservableError, match=reason):
        machine(script).output_of("tool")


def test_a_command_that_is_absent_or_silent_gives_the_reason(machine):
    there = machine(b"exec sleep 30")
    with pytest.raises(UnobservableError, match="other is not on the PATH"):
        there.output_of("other")
    with pytest.raises(UnobservableError, match="tool printed nothing in 1 s"):
        there.first_line_of("tool")
