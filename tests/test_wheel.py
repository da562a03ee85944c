"""This module tests that the command and the configs of a wheel work in an empty folder."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import score_sde as ss
from score_sde.config import read_file

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return a wheel that is built from a copy, so that no build folder stays in the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("score_sde", "setup.py", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(command, check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_command_of_a_wheel_works_in_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "score-sde = score_sde.command:run" in archive.read(entry).decode()
        assert "score_sde/py.typed" in archive.namelist()
    program = "import score_sde, sys; from score_sde.command import run; print(score_sde.__file__); run()"
    environment = os.environ | {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*arguments):
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=environment, cwd=empty, capture_output=True, text=True, timeout=300)

    for config in ("digits:conditional", "configs/digits.py:conditional"):
        result = run(f"--config={config}", "--mode=describe")
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(str(installed))
        assert "parameters" in result.stdout
    wrong = run("--config=digit", "--mode=describe")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: --config is 'digit', but there is no file digit; expected FILE") and (
        "celeba, celebahq, cifar10, digits" in wrong.stderr
    )


def test_a_file_comes_before_a_config_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_file("digits:conditional").data.given == ("label",)
    (tmp_path / "digits").write_text(
        "def get_config(variant=''):\n    return dict(seed=17, data=dict(name='TwoMoons'), network=dict(name='MLP'))\n"
    )
    assert read_file("digits").seed == 17
    assert read_file("configs/digits.py").seed != 17
    with pytest.raises(ss.InputError, match="there is no file variants; expected FILE"):
        read_file("variants")
