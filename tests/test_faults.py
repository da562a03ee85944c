"""A part of the fault suite; all of it is `python tests/faults.py`."""

import signal

import pytest

from tests import faults


@pytest.mark.slow
def test_no_run_is_lost(tmp_path):
    suite = faults.Suite(tmp_path, seed=1)
    faults.kills(suite, 3, signal.SIGKILL)
    faults.kills(suite, 1, signal.SIGTERM)
    faults.full_disk(suite, 1)
    faults.unwritable(suite, 2)
    faults.not_a_number(suite, 1)
    faults.damaged_data(suite, 1)
    faults.second_run(suite, 1)
    assert {fault: lost for fault, (_, lost) in suite.table.items() if lost} == {}
    assert sum(tried for tried, _ in suite.table.values()) >= 7
