"""This module tests that other processes read pictures as this process does."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from score_sde.core.errors import InputError
from score_sde.readers.pictures import Fit, Header, Unreadable, pixels, workers

RNG = np.random.default_rng(0)


def encoded(values, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


def drawn(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def examples(n=200):
    """Return pictures for every kind of answer; the number of pictures exceeds one request."""
    kinds = (
        lambda: encoded(drawn(20, 30, 3)),
        lambda: encoded(drawn(16, 12, 4)),
        lambda: encoded(drawn(16, 12, dtype=np.uint16)),
        lambda: encoded(drawn(16, 12, 3), "JPEG"),
        lambda: drawn(9, 9, 3),
        lambda: b"text",
        lambda: encoded(drawn(40, 40, 3))[:900],
        lambda: InputError("has no content"),
        lambda: drawn(9, 9).astype(float),
    )
    return [kinds[number % len(kinds)]() for number in range(n)]


def alike(one, other):
    if isinstance(one, Exception):
        return type(one) is type(other) and str(one) == str(other)
    if isinstance(one, Header):
        return one == other
    return one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("fit", [Fit(16, 12), Fit(8, 10, 1, way="pad", background=(9, 8, 7)), Fit(16, 12, 4), None])
def test_processes_read_what_this_process_reads(fit):
    given = examples()
    if fit is None:
        given = [example for example in given if not isinstance(example, np.ndarray) or example.dtype == np.uint8]
    with workers.reading(len(given), processes=2) as read:
        results = list(read(given, fit))
    wanted = list(workers.here(given, fit))
    assert sum(isinstance(result, Exception) for result in wanted) > 40
    assert sum(not isinstance(result, Exception) for result in wanted) > 80
    assert all(alike(*pair) for pair in zip(results, wanted, strict=True))


@pytest.mark.parametrize("answer", ["", "[[tr"])
def test_a_picture_that_ends_a_decoder_is_named_and_alone(tmp_path, monkeypatch, answer):
    script = tmp_path / "fatal.py"
    fatal = (
        "_real = decoded\ndef decoded(encoded, fit):\n    if encoded == b'fatal':\n        import os\n"
        f"        os.write(1, {answer.encode()!r}); os._exit(11)\n"
    )
    source = workers._SCRIPT.read_text()
    at = source.index("if __name__")
    script.write_text(f"{source[:at]}{fatal}    return _real(encoded, fit)\n\n{source[at:]}")
    monkeypatch.setattr(workers, "_SCRIPT", script)
    fit, given = Fit(6, 6), [encoded(drawn(6, 6, 3)) for _ in range(70)]
    given[33] = b"fatal"
    with workers.reading(len(given), processes=1) as read:
        results = list(read(given, fit))
    assert isinstance(results[33], Unreadable) and str(results[33]) == "crashes the process that decodes it"
    assert [number for number, result in enumerate(results) if isinstance(result, Exception)] == [33]
    assert alike(results[69], next(workers.here(given[69:], fit)))


def test_the_processes_end_with_their_use():
    with workers.reading(2, processes=2) as read:
        processes = [worker._process for worker in read.__self__._all]
        assert len(list(read([b"", b""], None))) == 2
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.poll() is not None for process in processes)


def test_no_process_starts_after_the_end():
    with workers.reading(2, processes=1) as read:
        pool = read.__self__
    results = list(read([encoded(drawn(6, 6, 3))] * 3, Fit(6, 6)))
    assert len(results) == 3 and all(isinstance(result, Unreadable) for result in results)
    assert [worker._process.poll() is not None for worker in pool._all] == [True]


def test_a_process_that_decodes_imports_nothing_of_the_project():
    code = (
        "import runpy, sys, io\nsys.stdin = io.TextIOWrapper(io.BytesIO())\n"
        f"runpy.run_path({str(pixels.__file__)!r}, run_name='__main__')\n"
        "print([name for name in ('jax', 'numpy', 'score_sde') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
