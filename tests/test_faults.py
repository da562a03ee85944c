"""The tests run a part of the fault suite; `python tests/faults.py` runs the whole suite."""

import functools
import json
import signal
import time

import pytest

from tests import faults

killed = functools.partial(faults.kills, sign=signal.SIGKILL)
stopped = functools.partial(faults.kills, sign=signal.SIGTERM)

# The faults of the first group have no test within one process, so CI runs this group.
FAULTS = [
    pytest.param((killed, stopped, faults.full_disk, faults.unwritable), id="whole", marks=pytest.mark.slow),
    pytest.param((faults.not_a_number, faults.damaged_data, faults.second_run), id="rest", marks=pytest.mark.long),
]


@pytest.mark.parametrize("made", FAULTS)
def test_no_run_is_lost(tmp_path, made):
    suite = faults.Suite(tmp_path, seed=1, steps=150)
    for fault in made:
        fault(suite, 1)
    assert {fault: lost for fault, (_, lost) in suite.table.items() if lost} == {}
    assert sum(tried for tried, _ in suite.table.values()) >= 3


@pytest.mark.long  # CI kills runs in test_no_run_is_lost, with an unchanged number of steps
def test_60_steps_killed_then_120_are_120_at_once(tmp_path):
    """Every array of the last checkpoint is equal, bit for bit."""
    suite = faults.Suite(tmp_path, seed=2, steps=120, every=15)
    killed = suite.start(tmp_path / "parts", "--config.train.steps=60")
    while len(faults.steps(tmp_path / "parts")) < 2:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    for steps in (60, 120):
        done = suite.run(tmp_path / "parts", f"--config.train.steps={steps}")
        assert done.returncode == 0, done.stderr
    assert f"step {steps}" in done.stdout
    about = tmp_path / "parts" / "checkpoints" / "120" / "about" / "metadata"
    assert json.loads(about.read_text())["digests"] == suite.expected[0]
