"""This module tests that a wrong version of a required package is reported, with the remedy, before any import."""

import importlib.metadata
import subprocess
import sys

import pytest

from score_sde.core.versions import check_versions


def test_a_version_outside_the_range_is_named():
    version = importlib.metadata.version("numpy")
    check_versions(["numpy>=1.0", "numpy", "nothing>=1; extra == 'test'"])
    with pytest.raises(ImportError, match=rf"^numpy {version} is installed; expected numpy<1: pip install 'numpy<1'$"):
        check_versions(["numpy>=1.0", "numpy<1"])
    with pytest.raises(
        ImportError, match=r"^no-such-package is not installed; expected no-such-package>=2: pip install"
    ):
        check_versions(["no-such-package>=2"])


def test_the_check_comes_before_the_imports():
    program = (
        "import importlib.metadata as m, sys\n"
        "m.requires = lambda name: ['jax<0.1']\n"
        "try:\n    import score_sde\nexcept ImportError as error:\n    print(str(error)[:4], 'jax' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout == "jax  False\n", process.stderr
