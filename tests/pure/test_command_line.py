"""What the command says to somebody who mistypes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.__main__ import main


def test_a_word_too_many_shows_the_usage_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "gateway.ini"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "usage: starttls-gateway status [-h]" in said
    assert "--config FILE" in said
    assert "status: error: unrecognized arguments: gateway.ini" in said


def test_a_configuration_that_is_not_there_is_not_taken_for_a_gateway_that_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.ini"
    assert main(["status", "-c", str(missing)]) == 3
    assert f"{missing}: there is no such file; name the gateway's file" in capsys.readouterr().err
    assert main(["status", "--nagios", "-c", str(missing)]) == 3
    assert capsys.readouterr().out.startswith(f"GATEWAY UNKNOWN - {missing}: there is no such file")


_LOADED = """
import sys
from gateway.cli.__main__ import make_parser
make_parser(serving=True)
print(*sys.modules, sep="\\n")
"""


def test_a_gateway_that_runs_has_no_other_command_and_no_unserved_protocol() -> None:
    told = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True).stdout
    assert "gateway.cli.run" in told.splitlines()
    others = ("gateway.cli.probe", "gateway.cli.steer", "gateway.cli.importing", "gateway.cli.report")
    assert not [
        name
        for name in told.splitlines()
        if name.startswith((*others, "gateway.dialects.")) and name != "gateway.dialects.base"
    ]
