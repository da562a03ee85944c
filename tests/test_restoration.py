"""The evaluation `Restoration` finds exact posteriors calibrated, and others not; its figures are as defined."""

import types

import jax
import numpy as np
import pytest

import score_sde as ss
from score_sde.jobs.evaluations import Restoration
from score_sde.jobs.parts import Parts

SHAPE, N = (6, 6, 1), 120
CODEC = ss.QuantizedCodec(SHAPE, 255)
MEANS = 0.2 * np.random.default_rng(0).standard_normal((1, *SHAPE))
MODEL = ss.GaussianMixture(ss.VP(), [1.0], MEANS, 0.25)


def images():
    x = MODEL.data.sample(jax.random.split(jax.random.key(0), N))
    return np.asarray(CODEC.quantize(CODEC.decode(x)))


VALUES = images()


def context(folder, seed=0, batch_size=256):
    """Return what `Restoration` reads of a Context, with the exact denoiser of the images."""
    folder.mkdir(exist_ok=True)
    return types.SimpleNamespace(
        source=VALUES,
        experiment=types.SimpleNamespace(codec=CODEC),
        devices=types.SimpleNamespace(local=types.SimpleNamespace(sharded=None)),
        denoiser=lambda devices: MODEL,
        batch=lambda numbers: {"values": VALUES[numbers]},
        parts=lambda name: Parts(folder, name, {}),
        folder=folder,
        seed=seed,
        batch_size=batch_size,
    )


def run(folder, **settings):
    settings = dict(n=N, draws=9, steps=12, noise_std=0.1) | settings
    found, line = Restoration(**settings).run(context(folder))
    assert "over 120 images with 9 draws" in line
    return found


@pytest.mark.parametrize(
    "settings",
    [
        dict(mask="box"),
        pytest.param(dict(mask=0.4, method="Posterior(variance=RowSums())"), marks=pytest.mark.slow),
        pytest.param(dict(operator="Downsample(factor=2)"), marks=pytest.mark.slow),
        pytest.param(dict(operator="Through(operator=Downsample(factor=3))", noise_std=12.0), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_exact_posteriors_are_calibrated(tmp_path, settings):
    """Pixels are independent, so these methods are exact: coverage 8/10, spread 1, residual 1."""
    found = run(tmp_path / "run", **settings)
    assert found["coverage_if_calibrated"] == 0.8
    assert abs(found["coverage"] - 0.8) < 4 * found["coverage_stderr"] + 0.01
    assert abs(found["spread"] - 1) < 0.06
    assert abs(found["residual"] - 1) < 0.25
    # A mean of 9 draws has (1 + 1/9) / 2 of the squared error of one draw: 2.55 dB more.
    assert abs(found["psnr_mean"] - found["psnr_draw"] - 10 * np.log10(2 / (1 + 1 / 9))) < 1.2


def test_an_overconfident_method_is_found(tmp_path):
    """Four particles are too few for 36 numbers: the samples are too narrow."""
    found = run(tmp_path / "run", method="Particles(count=4, data_std=0.25)", mask=0.5)
    assert found["coverage"] < 0.75 and found["spread"] < 0.95


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch(tmp_path):
    one, two = (
        Restoration(n=12, draws=3, steps=4, mask=0.5).run(context(tmp_path / str(size), batch_size=size))[0]
        for size in (36, 9)
    )
    for name in ("psnr_draw", "coverage", "spread", "residual", "nfe"):
        assert one[name] == pytest.approx(two[name], rel=2e-3)
    other = Restoration(n=12, draws=3, steps=4, mask=0.5).run(context(tmp_path / "other", seed=1))[0]
    assert other["psnr_draw"] != one["psnr_draw"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(n=1), "n of Restoration is 1"),
        (dict(draws=1), "draws of Restoration is 1"),
        (dict(noise_std=0.0), "noise_std of Restoration is 0.0; expected a positive number"),
        (dict(mask="circle"), "mask of Restoration is 'circle'; expected 'box', or a fraction below 1"),
        (dict(mask=1.5), "mask of Restoration is 1.5"),
        (dict(operator=""), "operator of Restoration is ''; expected one name"),
        (dict(method="Posterior, Posterior"), "method of Restoration is 'Posterior, Posterior'"),
        (dict(features="Classifier()"), "Classifier has no weights"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ss.InputError, match=message):
        Restoration(**settings)


def test_what_cannot_be_measured_is_refused(tmp_path):
    for settings, message in (
        (dict(method="Nothing"), "has no 'Nothing'"),
        (dict(operator="Downsample(factor=4)"), "divisible"),
        (dict(method="Replacement", operator="Blur(std=1)"), "rows that are not orthogonal"),
    ):
        with pytest.raises(ss.InputError, match=message):
            Restoration(n=4, draws=2, steps=2, **settings).run(context(tmp_path / "run"))
    real = context(tmp_path / "real")
    real.experiment.codec = ss.ContinuousCodec((2,))
    with pytest.raises(ss.InputError, match="Restoration measures images of whole numbers"):
        Restoration().run(real)
