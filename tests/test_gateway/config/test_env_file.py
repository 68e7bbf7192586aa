"""``headrace.env``: variables beside the configuration."""

from __future__ import annotations

import os
import stat
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.config.env_file import (
    MAX_BYTES,
    can_be_written,
    read_env_file,
    with_env_file,
    write_env_file,
)
from pipeline.gateway.config.load import config_files, load_settings
from pipeline.gateway.config.problems import ConfigError

CONFIG = "model_list:\n  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
KEY = "sk-env-file-0123456789abcdef"


def test_lines_are_variables_comments_or_blank(tmp_path: Path) -> None:
    file = tmp_path / "headrace.env"
    file.write_text("# one\n\nA=1\n  export B = no\n".replace(" = no", "=2") + "C='3 4'\nD=\"5\"\nE=\nF=a=b'\n")
    assert read_env_file(file) == {"A": "1", "B": "2", "C": "3 4", "D": "5", "E": "", "F": "a=b'"}
    assert read_env_file(tmp_path / "missing.env") == {}


def test_a_line_that_sets_nothing_is_named_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "headrace.env"
    file.write_bytes(b"A=1\n" + KEY.encode() + b"\n\xff\n")
    with pytest.raises(ConfigError) as refused:
        read_env_file(file)
    assert refused.value.problems == tuple(f"{file}:{n}: is not a variable: expected NAME=value" for n in (2, 3))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "headrace.env").mkdir()
    with pytest.raises(ConfigError, match=r"headrace\.env: cannot be read \(Is a directory\)"):
        read_env_file(tmp_path / "headrace.env")
    (tmp_path / "large.env").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        read_env_file(tmp_path / "large.env")


def test_the_variables_of_the_process_come_first_unless_they_are_empty(tmp_path: Path) -> None:
    (tmp_path / "headrace.env").write_text("A=1\nB=2\nC=3\n")
    assert with_env_file(tmp_path / "c.yaml", {"A": "9", "B": " ", "D": ""}) == {"A": "9", "B": "2", "C": "3", "D": ""}


def test_a_configuration_is_read_with_the_file_beside_it_and_both_are_watched(tmp_path: Path) -> None:
    config, variables = tmp_path / "c.yaml", tmp_path / "headrace.env"
    config.write_text(CONFIG)
    assert config_files(config) == (str(config), str(variables)), "it may come"
    variables.write_text(f"HEADRACE_MASTER_KEY={KEY}\nHEADRACE_PORT=4321\n")
    settings = load_settings(config, {})
    assert (settings.master_key, settings.pipeline.port) == (KEY, 4321)
    assert load_settings(config, {"--port": "1234"}).pipeline.port == 1234
    assert config_files(config) == (str(config), str(variables))


def test_what_is_written_keeps_other_lines_and_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "headrace.env"
    file.write_text("# mine\nA=1\nB=2\n")
    file.chmod(0o644)
    write_env_file(file, {"B": "3", "C": "4"})
    assert file.read_text() == "# mine\nA=1\nB=3\nC=4\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["headrace.env"]


@given(value=st.text(st.characters(max_codepoint=0x17F), min_size=1, max_size=20))
def test_a_value_that_can_be_written_is_read_as_it_is(value: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "headrace.env")
        if can_be_written(value):
            write_env_file(file, {"NAME": value})
            assert read_env_file(file) == {"NAME": value}
        else:  # one of them would change what a shell reads
            assert set(value) - set(string.ascii_letters + string.digits + "_./:+=@%,~-")
