"""A classifier that was trained on real digits recognises the samples of a short run.

The test takes ten minutes on two busy cores: `python -m pytest -m long tests/test_digits.py`, before a release.
`python -m tests.test_digits` runs other variants.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import score_sde as ss

ROOT = pathlib.Path(__file__).parent.parent
REAL = load_digits()
PIXELS, LABELS = REAL.data[:1500], REAL.target[:1500]


def sure(images):
    """Return (class, probability) of each image under logistic regression on the real training digits."""
    model = LogisticRegression(C=0.01, max_iter=5000).fit(PIXELS, LABELS)
    probabilities = model.predict_proba(images)
    return probabilities.argmax(axis=1), probabilities.max(axis=1)


def the_likelihood_is_right(workdir):
    """Assert at most 2.20 bits/dim (ten class Gaussians: 2.59), known to 0.03; exact trace and probes agree."""
    result = json.loads((workdir / "eval" / "likelihood.json").read_text())
    assert result["n"] == 297
    assert 1.0 < result["bits_per_dim"] <= 2.20
    assert result["stderr"] < 0.03
    model = ss.load(workdir)
    images = REAL.images[1500:1502, ..., None]
    keys = jax.random.split(jax.random.key(0), 2)
    options = {"codec": model.codec, "rtol": 1e-3, "atol": 1e-3}
    exact = ss.bits_per_dim(model.denoiser, images, keys, trace="exact", **options)
    estimated = ss.bits_per_dim(model.denoiser, images, keys, probes=16, **options)
    # Student's t with 15 degrees of freedom exceeds 4.07 once in a thousand; 0.005 allows for the error of the solver.
    assert (np.abs(exact.value - estimated.value) < 4.07 * estimated.stderr + 0.005).all()


@pytest.mark.long
@pytest.mark.parametrize(("variant", "steps"), [("edm", 500)])
def test_a_person_would_read_digits(tmp_path, variant, steps):
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    conditional = "conditional" in variant
    subprocess.run(
        [sys.executable, "main.py", f"--config=configs/digits.py:{variant}", f"--workdir={tmp_path}"]
        + [f"--mode=train{'' if conditional else ',eval'},sample", "--config.sample.n=200"]
        + [f"--config.train.steps={steps}", "--config.train.eval_every=0", "--config.train.sample_every=0"]
        + ["--config.eval.what=Likelihood(rtol=1e-3, atol=1e-3)"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    if not conditional:
        the_likelihood_is_right(tmp_path)
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        images = arrays["images"].reshape(200, 64).astype(float)
        labels = arrays.get("labels")

    # The classifier is as certain of the samples as of unseen real digits, less a margin.
    classes, probability = sure(images)
    _, real = sure(REAL.data[1500:])
    assert (probability > 0.9).mean() > (real > 0.9).mean() - 0.15
    assert np.bincount(classes, minlength=10).min() >= 5
    neighbours = KNeighborsClassifier(1).fit(PIXELS, LABELS).predict(images)
    assert (neighbours == classes).mean() > 0.8  # two classifiers read the same digit
    if labels is not None:
        assert (classes == labels).mean() > 0.85

    # Samples are not copies: samples have a distance from the training images, as unseen real digits have.
    def nearest(points):
        return np.sqrt(((points[:, None] - PIXELS[None]) ** 2).sum(axis=2)).min(axis=1)

    unseen = nearest(REAL.data[1500:])
    assert np.median(nearest(images)) > 0.7 * np.median(unseen)
    assert nearest(images).min() > 0.5 * unseen.min()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        test_a_person_would_read_digits(pathlib.Path(folder) / "vp", "vp", 1200)
        test_a_person_would_read_digits(pathlib.Path(folder) / "conditional", "subvp,conditional", 800)
