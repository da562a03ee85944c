"""benchmarks/accelerator.py runs from beginning to end on a CPU; the sizes are too small for a measurement."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


# In 0.75 minutes the script has no time for most parts; the script reports each omitted part.
@pytest.mark.parametrize(
    "minutes", [pytest.param(0.75, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.long)]
)
def test_it_ends_with_every_part_made_or_left_out(minutes, tmp_path):
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "benchmarks/accelerator.py", "--tiny", f"--minutes={minutes}", f"--out={out}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    printed, _, table = run.stdout.partition("| what | result |")
    assert table.count("right: ") == printed.count('"right": true')
    lines = [json.loads(line) for line in printed.splitlines()]
    assert lines == [json.loads(line) for line in out.read_text().splitlines()]
    assert "device" in lines[0] and lines[-1]["wrong"] == 0
    checks = [line for line in lines if "check" in line]
    assert checks[0]["check"].startswith("outputs") and all(line["right"] for line in checks)
    parts = {f"training: {line['training']}" if "training" in line else line.get("left_out") for line in lines}
    assert {
        f"training: {name}, {kind}, batch 2"
        for name in ("NCSN++", "DDPM++")
        for kind in ("bfloat16", "tf32", "float32")
    } <= parts
    for kind in ("twin", "kernels", "evaluation", "likelihood", "sampling", "remat", "fused"):
        assert any(kind in line or str(line.get("left_out", "")).startswith(kind) for line in lines), kind
    if minutes < 1:
        assert any("s are left" in line.get("why", "") for line in lines)
    else:
        assert len(checks) == 8


def test_what_is_missing_is_one_line(tmp_path):
    """The script prints one line on a machine without a required package."""
    (tmp_path / "diffrax.py").write_text("raise ImportError('no diffrax here', name='diffrax')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "benchmarks/accelerator.py"], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert (
        run.returncode == 1
        and run.stderr
        == "error: diffrax cannot be imported; install the missing packages, or add their folder to PYTHONPATH.\n"
    )
