"""Guides, posteriors and measurements that a config or a call of a model names."""

import json

import jax
import numpy as np
import pytest

import score_sde as ss
from score_sde import config as config_
from score_sde import inverse
from score_sde.configs import digits
from score_sde.experiment import guides
from score_sde.jobs.generator import Generator
from score_sde.jobs.sample import sample_settings

SHAPE = (4, 4, 1)
CODEC = ss.QuantizedCodec(SHAPE, 255)
MEANS = 0.3 * np.random.default_rng(0).standard_normal((2, *SHAPE))
MODEL = ss.Model(ss.GaussianMixture(ss.VP(), [0.5, 0.5], MEANS, 0.3), CODEC, digits.get_config(), 0)


def section(**entries):
    return config_.complete(dict(digits.get_config().to_dict(), sample=dict(n=6, batch_size=4, **entries))).sample


@pytest.fixture
def measured(tmp_path):
    """Return (a file with ten measurements, their values, their masks)."""
    rng = np.random.default_rng(1)
    x = MODEL.denoiser.data.sample(jax.random.split(jax.random.key(0), 10))
    mask = rng.random((10, *SHAPE)) < 0.5
    y = np.where(mask, np.asarray(x) + 0.05 * rng.standard_normal(x.shape), 0.0)
    np.savez(tmp_path / "measured.npz", y=y, mask=mask, other=y)
    return tmp_path / "measured.npz", y, mask


def test_a_model_samples_a_posterior(measured):
    _, y, mask = measured
    drawn = MODEL.sample(10, guidance="Posterior(operator=Mask(), noise_std=0.05)", y=y, mask=mask)
    error = np.asarray(CODEC.encode(drawn.x, None)[0]) - y
    assert drawn.x.dtype == np.uint8 and np.sqrt(np.mean(error[mask] ** 2)) < 0.12
    assert drawn.vjps is not None and drawn.nfe.tolist() == [81] * 10
    whole = MODEL.sample(10, sampler=inverse.Replacement(ss.Ancestral()), cond={"y": y, "mask": mask})
    np.testing.assert_allclose(whole.x[mask], np.asarray(CODEC.quantize(CODEC.decode(y)))[mask], atol=1)
    with pytest.raises(ss.InputError, match=r"cond\['y'\] has values from .* 255; expected the units of the operator"):
        MODEL.sample(
            10, guidance="Posterior(operator=Mask(), noise_std=0.05)", y=np.full((10, *SHAPE), 255.0), mask=mask
        )
    through = "Posterior(operator=Through(operator=Mask()), noise_std=6.0)"
    values = np.asarray(CODEC.decode(y))
    same = MODEL.sample(10, guidance=through, y=values, mask=mask)
    error = same.x.astype(float) - values
    assert np.sqrt(np.mean(error[mask] ** 2)) < 15
    with pytest.raises(ss.InputError, match=r"sample.cond has no 'y', which the model requires"):
        MODEL.sample(2, guidance="Posterior(operator=Blur(std=1), noise_std=0.05)")


def test_measurements_of_a_file_are_rows_of_samples(measured):
    """Sample i has row i of the file, whatever the batches; the rows are used in turn."""
    path, y, mask = measured
    spec = section(
        guidance="Posterior(operator=Mask(), noise_std=0.05, variance=Moments(iterations=3))",
        cond=f"y='{path}', mask='{path}:mask'",
        sampler=dict(name="Heun"),
        grid=dict(name="log_snr", n=10),
    )
    generator = Generator.from_config(spec, MODEL.denoiser, CODEC)
    assert [guide["name"] for guide in generator.guides] == ["Posterior", "Clipped"]
    together, apart = generator(MODEL.denoiser, 12), generator(MODEL.denoiser, 3, first=8)
    np.testing.assert_allclose(together.values[8:11].astype(int), apart.values, atol=1)
    np.testing.assert_allclose(together.cond["y"], np.concatenate([y, y[:2]]).astype(np.float32), rtol=1e-6)
    np.testing.assert_array_equal(together.columns()["mask"], np.concatenate([mask, mask[:2]]))
    named = Generator.from_config(
        section(cond=f"y='{path}:other', mask='{path}'", guidance=spec.guidance), MODEL.denoiser, CODEC
    )
    np.testing.assert_array_equal(named(MODEL.denoiser, 2).cond["y"], together.cond["y"][:2])
    sampler = dict(name="Replacement", sampler=dict(name="Ancestral"))
    replaced = Generator.from_config(section(cond=f"y='{path}', mask='{path}'", sampler=sampler), MODEL.denoiser, CODEC)
    assert isinstance(replaced.sampler, inverse.Replacement) and replaced(MODEL.denoiser, 2).values.shape == (2, *SHAPE)


def test_the_identity_of_samples_has_the_content_of_files(measured):
    path, y, _ = measured
    config = digits.get_config()
    config.sample.cond = f"y='{path}'"
    before = sample_settings(config)
    assert before["content"].keys() == {"y"} and json.dumps(before)
    np.savez(path, y=y + 1)
    assert sample_settings(config)["content"] != before["content"]
    config.sample.cond = "label=2"
    assert "content" not in sample_settings(config)


@pytest.mark.slow
def test_a_second_model_of_a_workdir_is_a_guide(tmp_path):
    """Guided(bad=WORKDIR) is autoguidance by the model of another workdir; its weights are part of the identity."""
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1)).astype(np.uint8)
    network = ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
    good, bad = (ss.fit(images, steps=steps, network=network, progress=False) for steps in (12, 3))
    bad.save(tmp_path / "bad")
    options = dict(seed=0, sampler=ss.DDIM(), grid=ss.time_grid.default(good.denoiser.sde, 3))
    for given in (str(tmp_path / "bad"), dict(workdir=str(tmp_path / "bad"), step=3, average=None)):
        guide = dict(name="Guided", bad=given, weight=2.0)
        drawn = good.sample(2, guidance=[guide], **options)
        raw = guides._second(given).denoiser
        expected = ss.sample(
            ss.Clipped(ss.Guided(good.denoiser, raw, 2.0), *good.codec.clip_range), options["sampler"], options["grid"],
            (8, 8, 1), n=2, seed=0,
        )  # fmt: skip
        np.testing.assert_allclose(drawn.x, good.codec.quantize(good.codec.decode(expected.x)), atol=1)
    config = digits.get_config()
    config.sample.guidance = f"Guided(bad='{tmp_path / 'bad'}', weight=2.0)"
    assert sample_settings(config)["content"] == {str(tmp_path / "bad"): guides._second(str(tmp_path / "bad")).digest}
    for wrong, message in ((3, "A guide names 3; expected the workdir"), ("nowhere", "nowhere is no workdir")):
        with pytest.raises(ss.InputError, match=message):
            good.sample(1, guidance=[dict(name="Guided", bad=wrong, weight=2.0)])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            dict(guidance="Posterior(operator=Nothing(), noise_std=0.1)"),
            "has no 'Nothing'; expected one of Blur, Chain,",
        ),
        (dict(guidance="Posterior(noise_std=0.1)"), "Posterior: .*'operator'"),
        (dict(guidance="Posterior(operator=Mask(), noise_std=0.1)"), "sample.cond has no 'mask', which the model req"),
        (
            dict(guidance="Posterior(operator=Mask(), noise_std=0.1)", cond="y='none.npz', mask='none.npz'"),
            "none.npz cannot be read as values of mask",
        ),
        (dict(guidance="Guided(bad=3, weight=2)"), "A guide names 3; expected the workdir of a trained model"),
        (dict(guidance="Guided(bad='nowhere', weight=2)"), "nowhere is no workdir of a trained model"),
        (dict(sampler=dict(name="Replacement", operator=dict(name="Blur", std=1.0))), "Blur has rows that are not ort"),
    ],
)
def test_wrong_entries_are_one_line(entries, message):
    with pytest.raises(ss.InputError, match=message):
        Generator.from_config(section(**entries), MODEL.denoiser, CODEC)


def test_a_file_with_other_arrays_is_one_line(measured, tmp_path):
    path, y, _ = measured
    guidance = "Posterior(operator=Mask(), noise_std=0.1)"
    for cond, message in (
        (f"y='{path}:nothing', mask='{path}'", "has no array 'nothing'; it has y, mask, other"),
        (f"y='{path}:mask', mask='{path}'", r"cond\['y'\] has dtype bool; expected floating point"),
    ):
        with pytest.raises(ss.InputError, match=message):
            Generator.from_config(section(guidance=guidance, cond=cond), MODEL.denoiser, CODEC)
    np.save(tmp_path / "small.npy", y[:, :2])
    with pytest.raises(ss.InputError, match=r"cond\['y'\] has shape \(1, 2, 4, 1\)"):
        Generator.from_config(
            section(guidance=guidance, cond=f"y='{tmp_path / 'small.npy'}', mask='{path}'"), MODEL.denoiser, CODEC
        )


def test_thresholding_needs_data_in_minus_1_to_1():
    flat = ss.QuantizedCodec(SHAPE, 255, centered=False)
    with pytest.raises(ss.InputError, match=r"has Thresholded, and the data have the range \(0.0, 1.0\)"):
        guides.read_guides("guidance", "Thresholded", True, flat)
    assert len(guides.read_guides("guidance", "Thresholded", True, CODEC)) == 2


def test_a_posterior_has_no_class_that_nobody_asked_for(measured):
    """Without a measurement each class is drawn in turn; with one, the class is absent unless it is asked for."""
    path, y, mask = measured
    guidance = "Posterior(operator=Mask(), noise_std=0.05)"
    generator = Generator.from_config(
        section(guidance=guidance, cond=f"y='{path}', mask='{path}'"), MODEL.denoiser, CODEC
    )
    assert "label" not in generator(MODEL.denoiser, 2).cond
    asked = section(guidance=guidance, cond=f"y='{path}', mask='{path}', label=1")
    assert Generator.from_config(asked, MODEL.denoiser, CODEC)(MODEL.denoiser, 2).cond["label"].tolist() == [1, 1]
    options = dict(guidance=guidance, y=y, mask=mask, grid=ss.time_grid.log_snr(ss.VP(), 4))
    np.testing.assert_array_equal(MODEL.sample(10, **options).x, MODEL.sample(10, label=None, **options).x)


@pytest.mark.parametrize(
    "sampler", [inverse.Replacement(), inverse.DAPS(0.05), inverse.Particles(0.05, 2), inverse.DPS()]
)
def test_samplers_check_the_scale_of_y(measured, sampler):
    _, y, mask = measured
    grid = ss.time_grid.log_snr(ss.VP(), 2)
    for wrong, message in (
        ((y + 1) * 127.5, "expected the units of the operator's output"),
        (y.astype(np.uint8), "uint8"),
    ):
        with pytest.raises(ss.InputError, match=message):
            MODEL.sample(10, sampler=sampler, grid=grid, y=wrong, mask=mask)


def test_masks_of_a_call_have_one_channel_or_all(measured):
    _, y, mask = measured
    options = dict(guidance="Posterior(operator=Mask(), noise_std=0.05)", grid=ss.time_grid.log_snr(ss.VP(), 2))
    whole = MODEL.sample(10, y=y, mask=mask, **options).x
    np.testing.assert_array_equal(MODEL.sample(10, y=y, mask=mask.astype(float), **options).x, whole)
    with pytest.raises(ss.InputError, match="expected bool of shape") as error:
        MODEL.sample(10, y=y, mask=np.ones((10, 5, 5, 1), bool), **options)
    assert len(str(error.value)) < 300
