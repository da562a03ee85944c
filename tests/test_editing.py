"""Edits of pictures: what they keep, what they draw, and how they come back, against closed forms."""

import dataclasses
import fractions
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import score_sde as ss
from score_sde.configs import digits
from score_sde.editing import (
    ChangeClass,
    Colourise,
    Deblur,
    Editor,
    ImageToImage,
    Inpaint,
    Outpaint,
    Picture,
    Sharpen,
    SuperResolve,
    kept,
    kept_steps,
    read_picture,
)
from score_sde.editing.region import Region, around, filled, inside, known_at, ramp, resized, whole, windows
from score_sde.experiment import as_edit
from tests.closed_forms import FullGaussian, Images, posterior_law, random_covariance

SDE = ss.VP()
EXACT = "Posterior(variance=Moments())"


def editor(mean, cov, shape, codec=None, steps=25, **options):
    """Return an editor whose model is the exact denoiser of Gaussian images."""
    denoiser = Images(FullGaussian(SDE, np.ravel(mean), cov), shape)
    codec = ss.ContinuousCodec(shape) if codec is None else codec
    return Editor(denoiser, codec, ss.Heun(), ss.time_grid.log_snr(SDE, steps), **options)


def edited(model, edit, pictures, n=2, **asked):
    given_pictures, alone = ss.editing.as_pictures(pictures, model.codec)
    results = list(model(edit, given_pictures, n, asked))
    return results[0] if alone else results


def smooth_cov(height, width, rho, std=0.3):
    """Return the covariance of a stationary process on a grid, a product of two Markov processes, and its axes."""
    axes = [rho ** np.abs(np.subtract.outer(np.arange(side), np.arange(side))) for side in (height, width)]
    return std**2 * np.kron(*axes), axes


BYTES = ss.QuantizedCodec((8, 8, 1), 255)
PLAIN = editor(np.zeros(64), smooth_cov(8, 8, 0.8)[0], (8, 8, 1), BYTES, steps=4)


def drawn_pictures(n, seed=0, shape=(8, 8), rho=0.8):
    """Return uint8 pictures of the process, (n, *shape, 1)."""
    x = np.random.default_rng(seed).multivariate_normal(np.zeros(math.prod(shape)), smooth_cov(*shape, rho)[0], size=n)
    return np.asarray(BYTES.quantize(BYTES.decode(x.reshape(n, *shape, 1))))


# Strength.


@pytest.mark.parametrize(
    ("steps", "strength", "kept_count"),
    [(50, 0.0, 0), (50, 1.0, 50), (50, 0.58, 29), (50, 0.56, 28), (100, 0.29, 29), (50, 0.75, 38), (3, 0.5, 2)]
    + [(100, 0.145, 15), (200, 0.0725, 15)]
    + [(40, 0.0124, 0), (40, 0.0125, 1), (7, 0.999, 7), (1, 0.49, 0), (1, 0.5, 1), (1000, 0.1, 100)],
)  # fmt: skip
def test_steps_of_a_strength(steps, strength, kept_count):
    assert kept_steps(strength, steps) == kept_count
    grid = ss.time_grid.default(SDE, steps)
    np.testing.assert_array_equal(kept(grid, strength), grid[steps - kept_count :])


@given(st.integers(1, 1000), st.integers(0, 10_000))
@settings(deadline=None)
def test_steps_of_a_strength_are_rounded_as_exact_fractions(steps, parts):
    exact = math.floor(fractions.Fraction(parts, 10_000) * steps + fractions.Fraction(1, 2))
    assert kept_steps(parts / 10_000, steps) == exact


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 1.0])
def test_an_edit_takes_the_steps_of_its_strength(strength):
    one = edited(PLAIN, ImageToImage(strength=strength), drawn_pictures(1)[0])
    steps = kept_steps(strength, 4)
    assert one.about["steps"] == steps
    assert one.about["nfe"] == (2 * steps + 1 if steps else 0)  # Heun, and the last denoising
    assert one.about["t"] == pytest.approx(float(PLAIN.grid[4 - steps]))


def test_strength_0_returns_the_picture_and_1_forgets_it():
    alpha = np.random.default_rng(0).integers(0, 256, (11, 9)).astype(np.uint8)
    pixels = np.random.default_rng(1).integers(0, 256, (11, 9, 1)).astype(np.uint8)
    for edit in (ImageToImage(strength=0), Sharpen(strength=0), Inpaint(mask=(1, 1, 3, 3), strength=0)):
        same = edited(PLAIN, edit, Picture(pixels, 255, alpha), n=3)
        np.testing.assert_array_equal(same.answers, np.repeat(pixels[None], 3, axis=0))
        assert same.about["nfe"] == 0 and same.mean_spread == 0
    first, second = drawn_pictures(2)
    one, other = (edited(PLAIN, ImageToImage(strength=1), picture) for picture in (first, second))
    np.testing.assert_array_equal(one.answers, other.answers)
    half, half_other = (edited(PLAIN, ImageToImage(strength=0.5), picture) for picture in (first, second))
    assert (half.answers != half_other.answers).any()


def test_a_walk_from_the_middle_has_the_law_of_noise_and_its_removal():
    """For Gaussian data the answer is Gaussian: noise added at t, then the exact flow, an affine map."""
    cov, mean, t_steps = np.diag([1.0, 0.25, 0.04, 0.01]), np.asarray([0.5, -0.5, 0.2, 0.0]), 60
    model = editor(mean, cov, (2, 2, 1), steps=t_steps, batch_size=4000)
    picture = np.asarray([1.0, 0.0, -0.3, 0.4]).reshape(2, 2, 1)
    one = edited(model, ImageToImage(strength=0.5), picture, n=4000)
    t = one.about["t"]
    alpha, variance = float(SDE.alpha(t)), float(SDE.variance(t))
    # The flow maps N(alpha m, alpha^2 c + v) to N(m, c), coordinate by coordinate.
    c = np.diag(cov)
    gain = np.sqrt(c / (alpha**2 * c + variance))
    expected_mean = mean + gain * alpha * (picture.ravel() - mean)
    expected_std = gain * np.sqrt(variance)
    flat = one.answers.reshape(4000, 4)
    np.testing.assert_allclose(flat.mean(axis=0), expected_mean, atol=4 * expected_std.max() / math.sqrt(4000) + 0.01)
    np.testing.assert_allclose(flat.std(axis=0), expected_std, rtol=0.06)


# Known pixels.


@pytest.mark.parametrize("area", ["whole", "masked"])
@pytest.mark.parametrize("masked_content", ["original", "fill", "noise", "zeros"])
def test_known_pixels_come_back_to_the_last_bit(area, masked_content):
    rng = np.random.default_rng(2)
    large = rng.integers(0, 256, (21, 30, 3)).astype(np.uint8)
    hole = np.zeros((21, 30), bool)
    hole[5:12, 8:20] = rng.random((7, 12)) < 0.8
    for blur in (0, 1, 3):
        for strength in (0.5, 1.0):
            edit = Inpaint(mask=hole, area=area, masked_content=masked_content, blur=blur, strength=strength, padding=4)
            one = edited(PLAIN, edit, large)
            np.testing.assert_array_equal(one.answers[:, ~hole], np.repeat(large[~hole][None], 2, axis=0))
            assert one.answers.dtype == np.uint8 and (one.answers[:, hole] != large[hole]).any()
            assert (one.spread[~hole] == 0).all() and one.spread[hole].max() > 0


@pytest.mark.parametrize("method", ["Replacement", "RePaint(resample=2, jump=1)", EXACT])
def test_known_pixels_come_back_with_every_method(method):
    picture = drawn_pictures(1)[0]
    one = edited(PLAIN, Inpaint(mask=(2, 3, 6, 7), method=method), picture)
    hole = np.zeros((8, 8), bool)
    hole[3:7, 2:6] = True
    np.testing.assert_array_equal(one.answers[:, ~hole], np.repeat(picture[~hole][None], 2, axis=0))
    out = edited(PLAIN, Outpaint(left=3, bottom=2, method=method), picture)
    assert out.answers.shape == (2, 10, 11, 1)
    np.testing.assert_array_equal(out.answers[:, :8, 3:], np.repeat(picture[None], 2, axis=0))


def test_nothing_of_the_hole_reaches_the_answer():
    """With any content but 'original', two pictures that differ in the hole only have the same answers."""
    first = drawn_pictures(1)[0].repeat(2, axis=0).repeat(2, axis=1)
    second = first.copy()
    second[4:9, 5:11] = 255 - second[4:9, 5:11]
    for content in ("fill", "noise", "zeros"):
        edit = Inpaint(mask=(5, 4, 11, 9), masked_content=content, strength=0.5, blur=2)
        one, other = (edited(PLAIN, edit, picture) for picture in (first, second))
        np.testing.assert_array_equal(one.answers, other.answers)
    edit = Inpaint(mask=(5, 4, 11, 9), masked_content="original", strength=0.5)
    one, other = (edited(PLAIN, edit, picture) for picture in (first, second))
    assert (one.answers != other.answers).any()


def test_the_ramp_is_linear_inside_the_hole():
    hole = np.zeros((1, 12), bool)
    hole[0, 3:9] = True
    np.testing.assert_allclose(ramp(hole, 2)[0, 2:10], [0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(ramp(hole, 0), hole)


def test_a_seam_is_not_visible():
    """Squared differences across the border of the hole are those of real pictures of a stationary process."""
    height, width, rho, std = 6, 6, 0.9, 0.3
    cov, _ = smooth_cov(height, width, rho, std)
    model = editor(np.zeros(36), cov, (6, 6, 1), batch_size=400)
    real = np.random.default_rng(3).multivariate_normal(np.zeros(36), cov, size=400).reshape(400, 6, 6, 1)
    found = edited(model, Inpaint(mask=(2, 2, 5, 5), method=EXACT), real, n=1)
    answers = np.stack([one.answers[0] for one in found])[..., 0]
    across = [answers[:, 2:5, 1] - answers[:, 2:5, 2], answers[:, 1, 2:5] - answers[:, 2, 2:5]]
    expected = 2 * std**2 * (1 - rho)
    for differences in across:
        assert np.mean(differences**2) == pytest.approx(expected, rel=0.12)
    # Pasting without a model would have the variance of independent pixels.
    assert expected < 0.2 * 2 * std**2


# Windows.


@given(st.data())
@settings(deadline=None)
def test_windows_cover_a_canvas_from_what_is_known(data):
    side = (data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9)))
    core = (data.draw(st.integers(side[0], 20)), data.draw(st.integers(side[1], 20)))
    before, after = (tuple(data.draw(st.integers(0, 25)) for _ in range(2)) for _ in range(2))
    size = tuple(a + b + c for a, b, c in zip(before, core, after))
    overlap = data.draw(st.floats(0.05, 0.95))
    known = np.zeros(size, bool)
    known[before[0] : before[0] + core[0], before[1] : before[1] + core[1]] = True
    for top, left in windows(size, side, Region(*before, *core), overlap):
        window = known[top : top + side[0], left : left + side[1]]
        assert window.shape == side
        assert window.any()
        if not window.all():
            # Along at least one axis the share `overlap` of the window is known, as far as the rounding allows.
            least = [max(1, min(length - 1, round(overlap * length))) for length in side]
            assert (
                (window.all(axis=1).sum() >= least[0])
                or (window.all(axis=0).sum() >= least[1])
                or (window.any(axis=1).sum() >= least[0] and window.any(axis=0).sum() >= least[1])
            )
        window[:] = True
    assert known.all()


def test_two_windows_have_the_law_of_one():
    """A stationary Markov process along x: the extension in windows has the exact joint law given the picture."""
    rho, width, added, n = 0.8, 6, 7, 6000
    cov, _ = smooth_cov(1, width, rho, 1.0)
    model = editor(np.zeros(width), cov, (1, width, 1), batch_size=n, steps=40)
    x = np.random.default_rng(4).multivariate_normal(np.zeros(width), cov)
    one = edited(model, Outpaint(right=added, method=EXACT), x.reshape(1, width, 1), n=n)
    assert one.about["windows"] == 3 and one.answers.shape == (n, 1, width + added, 1)
    found = one.answers[:, 0, width:, 0]
    steps = np.arange(1, added + 1)
    expected_mean = rho**steps * x[-1]
    lags = np.abs(np.subtract.outer(steps, steps))
    expected_cov = rho**lags - rho ** np.add.outer(steps, steps)
    error = 4 / math.sqrt(n)
    np.testing.assert_allclose(found.mean(axis=0), expected_mean, atol=error + 0.01)
    np.testing.assert_allclose(np.cov(found.T), expected_cov, atol=2 * error)


def test_a_later_window_keeps_what_an_earlier_one_drew():
    cov, _ = smooth_cov(1, 6, 0.8, 1.0)
    model, x = editor(np.zeros(6), cov, (1, 6, 1), steps=6), np.zeros((1, 6, 1))
    one, three = (edited(model, Outpaint(right=added, noise_std=0.3), x) for added in (3, 8))
    assert (one.about["windows"], three.about["windows"]) == (1, 3)
    np.testing.assert_array_equal(three.answers[:, :, :9], one.answers)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_canvas_of_an_extension_covers_it(data):
    height, width = (data.draw(st.integers(1, 40)) for _ in range(2))
    sides = [data.draw(st.integers(0, 30)) for _ in range(3)] + [data.draw(st.integers(1, 30))]
    picture = Picture(np.zeros((height, width, 1), np.uint8), 255)
    plan = Outpaint(**dict(zip(("left", "top", "right", "bottom"), sides))).plan(picture, 0, BYTES)
    region, base = plan.paste.region, plan.paste.base
    assert base.shape[:2] == (height + sides[1] + sides[3], width + sides[0] + sides[2])
    assert region.top <= 0 and region.left <= 0
    assert region.top + region.height >= base.shape[0] and region.left + region.width >= base.shape[1]
    assert (plan.paste.weight == 0).sum() == height * width
    assert plan.known.any() and min(plan.canvas.shape[:2]) >= 8


def test_a_panorama_keeps_the_picture_on_every_side():
    picture = drawn_pictures(1)[0]
    one = edited(PLAIN, Outpaint(left=20, right=11, top=5, bottom=9, overlap=0.4, method="Replacement"), picture)
    assert one.answers.shape == (2, 22, 39, 1)
    np.testing.assert_array_equal(one.answers[:, 5:13, 20:28], np.repeat(picture[None], 2, axis=0))
    large = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    one = edited(PLAIN, Outpaint(left=3, top=1, method="Replacement"), large)
    assert one.answers.shape == (2, 17, 27, 3) and one.about["scale"] == 0.5
    np.testing.assert_array_equal(one.answers[:, 1:, 3:], np.repeat(large[None], 2, axis=0))


# Every measured edit against the exact posterior.


def blocks(height, width, factor, channels=1):
    """Return the matrix of block means of images (height, width, channels)."""
    matrix = np.zeros((height // factor, width // factor, channels, height, width, channels))
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                matrix[i // factor, j // factor, c, i, j, c] = 1 / factor**2
    return matrix.reshape(height * width * channels // factor**2, -1)


def gaussian_blur(height, width, std):
    """Return the matrix of scipy's Gaussian filter with reflection about the last pixel."""
    from scipy.ndimage import gaussian_filter

    basis = np.eye(height * width).reshape(-1, height, width)
    return np.stack([gaussian_filter(one, std, mode="mirror").ravel() for one in basis], axis=1)


def cases():
    shown = np.eye(16)[[i for i in range(16) if i not in (5, 6, 9, 10)]]
    grey = np.kron(np.eye(4), np.full((1, 3), 1 / math.sqrt(3)))
    return {
        "inpaint": (Inpaint(mask=(1, 1, 3, 3), noise_std=0.05, method=EXACT), (4, 4, 1), shown, 0.05),
        "sharpen": (Sharpen(factor=2, noise_std=0.05, method=EXACT), (4, 4, 1), blocks(4, 4, 2), 0.05),
        "deblur": (Deblur(std=0.7, noise_std=0.2, method=EXACT), (4, 4, 1), gaussian_blur(4, 4, 0.7), 0.2),
        "enlarge": (SuperResolve(factor=2, noise_std=0.05, method=EXACT), (4, 4, 1), blocks(4, 4, 2), 0.05),
        "colour": (Colourise(noise_std=0.05, method=EXACT), (2, 2, 3), grey, 0.05),
    }


@pytest.mark.parametrize("name", cases())
def test_measured_edits_draw_the_posterior(name):
    edit, shape, matrix, noise = cases()[name]
    size, n = math.prod(shape), 3000
    rng = np.random.default_rng(6)
    mean, cov = rng.standard_normal(size), random_covariance(rng, size)
    truth = rng.multivariate_normal(mean, cov)
    y = matrix @ truth
    if name == "deblur":
        y, picture = truth, truth.reshape(shape)  # the picture itself is the blurred one
    elif name == "enlarge":
        picture = y.reshape(2, 2, 1)
    elif name == "colour":
        picture = (y / math.sqrt(3)).reshape(2, 2, 1)  # a grey picture
        y = matrix @ picture.repeat(3, axis=2).ravel()
    else:
        picture = truth.reshape(shape)
    one = edited(editor(mean, cov, shape, steps=40, batch_size=n), edit, picture, n=n)
    expected_mean, expected_cov = posterior_law(mean, cov, matrix, y, noise**2 * np.eye(len(y)))
    if name == "inpaint":  # known pixels come back exactly
        known = matrix.astype(bool).any(axis=0)
        expected_mean = np.where(known, truth, expected_mean)
        expected_cov = np.where(known[:, None] | known[None, :], 0, expected_cov)
    if name == "colour":  # the grey comes back exactly
        off = np.eye(size) - matrix.T @ matrix
        expected_mean, expected_cov = matrix.T @ y + off @ expected_mean, off @ expected_cov @ off
    found = one.answers.reshape(n, size)
    scale = np.sqrt(np.diag(expected_cov).max())
    np.testing.assert_allclose(found.mean(axis=0), expected_mean, atol=5 * scale / math.sqrt(n) + 0.01)
    np.testing.assert_allclose(np.cov(found.T), expected_cov, atol=0.1 * scale**2)


def test_the_grey_of_a_colourised_picture_is_that_of_the_file():
    rng = np.random.default_rng(7)
    codec = ss.QuantizedCodec((4, 4, 3), 255)
    model = editor(np.zeros(48), 0.3 * np.eye(48), (4, 4, 3), codec, steps=4)
    for channels in (1, 3):
        picture = rng.integers(0, 256, (9, 7, channels)).astype(np.uint8)
        picture[0], picture[1] = 0, 255
        one = edited(model, Colourise(), picture)
        grey = np.round(picture.astype(float).mean(axis=2))
        assert one.answers.shape == (2, 9, 7, 3)
        # Each channel is rounded, so that their mean moves by at most half a level.
        assert np.abs(one.answers.astype(float).mean(axis=3) - grey)[:, 1:8].max() <= 0.5
        assert one.answers[:, 2:8].std(axis=3).max() > 5
        np.testing.assert_array_equal(one.answers[:, :2, 1:6], np.repeat(picture[None, :2, 1:6], 2, 0).repeat(
            4 - 1 if channels == 1 else 1, axis=3))  # fmt: skip


# Independence.


def test_answers_do_not_depend_on_the_other_pictures():
    first, second, third = drawn_pictures(3)
    edit = Inpaint(mask=(2, 2, 6, 6))
    together = edited(PLAIN, edit, [first, second, third])
    batched = edited(dataclasses.replace(PLAIN, batch_size=4), edit, [first, second, third])
    for picture, one, other in zip((first, second, third), together, batched):
        alone = edited(PLAIN, edit, picture)
        assert np.abs(alone.answers.astype(int) - one.answers).max() <= 1
        assert np.abs(alone.answers.astype(int) - other.answers).max() <= 1
    again = edited(PLAIN, edit, first, n=5)
    assert np.abs(again.answers[:2].astype(int) - together[0].answers).max() <= 1
    other_seed = edited(dataclasses.replace(PLAIN, seed=1), edit, first)
    assert np.abs(other_seed.answers.astype(int) - together[0].answers).max() > 5


def test_an_edit_asks_for_a_class():
    means = np.stack([np.full((4, 4, 1), -0.7), np.full((4, 4, 1), 0.7)])
    mixture = ss.GaussianMixture(SDE, [0.5, 0.5], means, 0.1)
    model = Editor(mixture, ss.QuantizedCodec((4, 4, 1), 255), ss.Heun(), ss.time_grid.log_snr(SDE, 20))
    dark = np.full((6, 4, 1), 38, np.uint8)
    bright = edited(model, ChangeClass(label=1, strength=0.9), dark)
    assert bright.answers[:, 1:5].mean() > 200
    np.testing.assert_array_equal(bright.answers[:, [0, 5]], 38)  # outside of the part that the model sees
    assert edited(model, ImageToImage(strength=0.3), dark, label=0).answers.mean() < 60
    with pytest.raises(ss.InputError, match="asks for 'label', which the model does not read; it reads nothing"):
        edited(PLAIN, ChangeClass(label=1), dark)
    with pytest.raises(ss.InputError, match="a label is 2; expected a whole number from 0 to 1"):
        edited(model, ChangeClass(label=2), dark)


# Pictures of people's kinds.


def test_pictures_are_read_upright_with_their_alpha(tmp_path):
    rng = np.random.default_rng(8)
    pixels = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert (read_picture(tmp_path / "turned.png").pixels == np.rot90(pixels, -1)).all()
    alpha = rng.integers(0, 256, (5, 7)).astype(np.uint8)
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "alpha.png")
    found = read_picture(tmp_path / "alpha.png")
    np.testing.assert_array_equal(found.pixels, pixels)  # not mixed with a background
    np.testing.assert_array_equal(found.alpha, alpha)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ss.InputError, match=r"bad.png (is not a picture|cannot be)"):
        read_picture(tmp_path / "bad.png")
    with pytest.raises(ss.InputError, match=r"none.png cannot be read: No such file"):
        read_picture(tmp_path / "none.png")


def test_the_transparent_part_is_painted_and_becomes_opaque():
    picture = drawn_pictures(1)[0]
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2:5, 3:6], alpha[7] = 0, 200
    one = edited(PLAIN, Inpaint(mask="alpha"), Picture(picture, 255, alpha))
    out = one.with_alpha(0)
    assert out.shape == (8, 8, 4)
    assert (out[2:5, 3:6, 3] == 255).all() and (out[7, :, 3] == 200).all()
    hole = alpha < 128
    np.testing.assert_array_equal(out[~hole][:, :3], picture[~hole].repeat(3, axis=1))
    wide = edited(PLAIN, Outpaint(right=2, top=1), Picture(picture, 255, alpha)).with_alpha(1)
    assert wide.shape == (9, 10, 4)
    np.testing.assert_array_equal(wide[1:, :8, 3], alpha)
    assert (wide[0, :, 3] == 255).all()


def test_pixels_of_16_levels_keep_their_bytes():
    """The digits have 17 levels; a file has 256. Known bytes come back, and answers are scaled."""
    codec = ss.QuantizedCodec((8, 8, 1), 16)
    model = editor(np.zeros(64), smooth_cov(8, 8, 0.8)[0], (8, 8, 1), codec, steps=4)
    picture = Picture(drawn_pictures(1)[0], 255)
    one = edited(model, Inpaint(mask=(2, 2, 6, 6)), picture)
    known = one.weight == 0
    np.testing.assert_array_equal(one.answers[:, known], np.repeat(picture.pixels[known][None], 2, axis=0))
    assert one.answers[:, ~known].max() > 16


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_region_contains_the_hole_and_has_the_proportions_of_the_model(data):
    size = tuple(data.draw(st.integers(1, 40)) for _ in range(2))
    shape = tuple(data.draw(st.integers(1, 12)) for _ in range(2))
    hole = np.zeros(size, bool)
    rows, columns = (sorted(data.draw(st.integers(0, side - 1)) for _ in range(2)) for side in size)
    hole[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    padding = data.draw(st.integers(0, 10))
    region = around(hole, padding, shape)
    there = inside(size, region)
    assert there.sum() > 0
    covered = np.zeros(size, bool)
    covered[max(0, region.top) : region.top + region.height, max(0, region.left) : region.left + region.width] = True
    assert covered[hole].all()
    for place, length, side in zip(region[:2], region[2:], size):
        if length <= side:
            assert place >= 0 and place + length <= side
    assert abs(region.height / shape[0] - region.width / shape[1]) <= 0.5 / min(shape) + 1e-9  # whole pixels
    everything = whole(size, shape)
    assert inside(size, everything).sum() == math.prod(size)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_what_fills_a_hole_comes_from_known_pixels(seed):
    rng = np.random.default_rng(seed)
    values, known = rng.random((9, 13, 2)), rng.random((9, 13)) < rng.random()
    result = filled(values, known)
    np.testing.assert_array_equal(result[known], values[known])
    if known.any():
        for channel in range(2):
            low, high = values[known][:, channel].min(), values[known][:, channel].max()
            assert result[..., channel].min() >= low - 1e-6 and result[..., channel].max() <= high + 1e-6  # float32
        other = values + (~known)[..., None] * 100
        np.testing.assert_array_equal(filled(other, known)[~known], result[~known])


def test_a_pixel_of_another_size_is_known_if_all_its_pixels_are():
    known = np.ones((6, 6), bool)
    known[2, 3] = False
    expected = np.ones((3, 3), bool)
    expected[1, 1] = False
    np.testing.assert_array_equal(known_at(known, (3, 3)), expected)
    large = known_at(known, (12, 12))
    assert not large[4:6, 6:8].any() and large.sum() == 140
    row = known_at(np.asarray([[True, False, True]]), (1, 8))  # pixel 2 is 0.75 to 1.125 of three pixels
    np.testing.assert_array_equal(row[0], [True, True, False, False, False, False, True, True])
    np.testing.assert_allclose(resized(np.full((5, 7, 2), 3.0), (9, 4)), 3.0, rtol=1e-6)


def test_the_comparison_and_the_model():
    """A model edits pictures and files, alone and in lists; the comparison has a column for each part."""
    model = ss.Model(PLAIN.denoiser, BYTES, digits.get_config(), 0)
    pictures = drawn_pictures(2)
    one = model.edit(pictures[0], "Inpaint(mask=(2, 2, 6, 6))", n=3)
    several = model.edit(pictures, Inpaint(mask=(2, 2, 6, 6)), n=3)
    assert len(several) == 2 and np.abs(several[0].answers.astype(int) - one.answers).max() <= 1
    assert one.comparison().shape == (52, 7 * 50 + 2, 3) and "3 answers" in repr(one)
    np.testing.assert_allclose(one.mean, one.answers.mean(axis=0))
    np.testing.assert_allclose(one.spread[3, 3], one.answers[:, 3, 3, 0].std(ddof=1))
    chain = ss.DDPM(n=100, beta_max=0.2)
    on_chain = Images(FullGaussian(chain, np.zeros(64), smooth_cov(8, 8, 0.8)[0]), (8, 8, 1))
    found = ss.Model(on_chain, BYTES, digits.get_config(), 0).edit(
        pictures[0], Sharpen(), n=1, grid=ss.time_grid.default(chain, 5)
    )
    assert found.answers.shape == (1, 8, 8, 1)


SMALL = np.zeros((8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    ("edit", "picture", "message"),
    [
        (lambda: ImageToImage(strength=1.5), SMALL, "strength of ImageToImage is 1.5; expected a number from 0"),
        (lambda: ImageToImage(strength=-0.1), SMALL, "strength of ImageToImage is -0.1"),
        (lambda: ImageToImage(strength=math.nan), SMALL, "ImageToImage got strength=nan; expected a number"),
        (lambda: Inpaint(mask=(0, 0, 9, 3)), SMALL, r"mask of Inpaint is \(0, 0, 9, 3\) for the picture of 8 x 8"),
        (lambda: Inpaint(mask=(2, 2, 2, 4)), SMALL, "expected .left, top, right, bottom. inside the picture"),
        (lambda: Inpaint(mask=3), SMALL, "mask of Inpaint is 3; expected .left, top"),
        (lambda: Inpaint(mask=np.zeros((8, 8))), SMALL, "The mask of the picture is empty"),
        (lambda: Inpaint(mask=np.ones((8, 8))), SMALL, "leaves no known pixel at the model's size, 8 x 8"),
        (lambda: Inpaint(mask=np.ones((4, 8))), SMALL, "The mask of the picture has 8 x 4 pixels; expected 8 x 8"),
        (lambda: Inpaint(mask=np.full((8, 8), 7)), SMALL, "mask of Inpaint is an array .* of True and False"),
        (lambda: Inpaint(mask="none.png"), SMALL, "mask of Inpaint is 'none.png', which does not exist"),
        (lambda: Inpaint(mask=""), SMALL, "mask of Inpaint is ''; expected"),
        (lambda: Inpaint(mask=(-1, 0, 3, 3)), SMALL, "as whole numbers of at least 0"),
        (lambda: Inpaint(mask=np.zeros((0, 8, 8))), SMALL, "mask of Inpaint is array"),
        (lambda: Inpaint(mask=(0, 0, 2, 1)), np.zeros((1, 4000, 1), np.uint8), "a smaller mask, or area='masked'"),
        (lambda: Outpaint(left=10**9), SMALL, "would have 1000000008 x 8 pixels; expected at most 80,000,000"),
        (lambda: Outpaint(top=1), np.zeros((1, 3000, 1), np.uint8), "the picture needs .* windows for each of 2"),
        (lambda: Deblur(std=9.0), SMALL, "std of Deblur is 9.0, which is 9 pixels of the model .* at most 4"),
        (lambda: ImageToImage(), np.ones((8, 8, 1), bool), "has dtype bool; expected whole numbers from 0 to 255"),
        (lambda: ImageToImage(), Picture(np.zeros((8, 8, 1)), None), "has real numbers as pixels, and the data have"),
        (lambda: ImageToImage(), Picture(np.zeros((8, 8, 2), np.uint8), 255), "has 2 channels; expected 1"),
        (lambda: Inpaint(mask="alpha"), SMALL, "is empty; expected at least one transparent pixel"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), area="all"), SMALL, "area of Inpaint is 'all'; expected whole, masked"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), masked_content="blur"), SMALL, "masked_content of Inpaint is 'blur'"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), blur=-1), SMALL, "blur of Inpaint is -1; expected a number of pixels"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), method="Nothing"), SMALL, "has no 'Nothing'"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), method="Clipped(low=0, high=1)"), SMALL, "is Clipped, which keeps no"),
        (lambda: Inpaint(mask=(0, 0, 2, 2), noise_std=-1.0), SMALL, "noise_std of Inpaint is -1.0"),
        (lambda: Outpaint(), SMALL, "Outpaint got left, top, right, bottom = .0, 0, 0, 0."),
        (lambda: Outpaint(left=2, overlap=1.0), SMALL, "overlap of Outpaint is 1.0; expected a share"),
        (lambda: SuperResolve(factor=2), SMALL, "has 8 x 8 pixels; SuperResolve with factor 2 expects 4 x 4"),
        (lambda: SuperResolve(factor=3), SMALL, "factor of SuperResolve is 3, and the model has 8 x 8 pixels"),
        (lambda: Sharpen(factor=1), SMALL, "factor of Sharpen is 1; expected a whole number, at least 2"),
        (lambda: Deblur(std=0.0), SMALL, "std of Deblur is 0.0"),
        (lambda: Colourise(), SMALL, "Colourise needs a model of colour images"),
        (lambda: ChangeClass(label=-1), SMALL, "label of ChangeClass is -1"),
        (lambda: ImageToImage(), np.zeros((8, 8)), r"the picture has the shape \(8, 8\); expected \(height, width"),
        (lambda: ImageToImage(), np.full((8, 8, 1), 0.5), "has values from 0.5 to 0.5; expected whole numbers"),
        (lambda: ImageToImage(), np.full((8, 8, 1), 256), "has values from 256 to 256; expected whole numbers"),
        (lambda: as_edit("Paint()"), SMALL, "editing has no 'Paint'; expected one of ChangeClass"),
        (lambda: as_edit("Sharpen(), Sharpen()"), SMALL, "expected one name with arguments"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(edit, picture, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ss.InputError, match=message) as caught:
        edited(PLAIN, edit(), picture)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_of_a_model_are_one_line():
    model = ss.Model(PLAIN.denoiser, BYTES, digits.get_config(), 0)
    for wrong in ([], 0.5, np.ones((2, 2)), "x", [1.0], np.linspace(0.001, 1.0, 5)):
        with pytest.raises(ss.InputError, match="grid"):
            model.edit(SMALL, ImageToImage(strength=0), grid=wrong)
    with pytest.raises(ss.InputError, match="n is True"):
        model.edit(SMALL, ImageToImage(), n=True)
    with pytest.raises(ss.InputError, match="clip is 'no'; expected True or False"):
        model.edit(SMALL, ImageToImage(), clip="no")
    with pytest.raises(ss.InputError, match="edit is 3; expected an edit, such as Inpaint"):
        model.edit(SMALL, 3)


def test_a_list_of_paths_and_arrays(tmp_path):
    picture = drawn_pictures(1)[0]
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    model = ss.Model(PLAIN.denoiser, BYTES, digits.get_config(), 0)
    found = model.edit([str(tmp_path / "a.png"), tmp_path / "a.png", picture], ImageToImage(strength=0), n=1)
    assert [one.answers.tolist() for one in found] == [picture[None].tolist()] * 3


def test_a_narrow_picture_is_painted():
    """Rows of a panorama lie on whole pixels of the model, so that some are known."""
    wide = np.random.default_rng(0).integers(0, 256, (28, 200, 1)).astype(np.uint8)
    one = edited(PLAIN, Inpaint(mask=(50, 5, 90, 20), method="Replacement"), wide, n=1)
    hole = np.zeros((28, 200), bool)
    hole[5:20, 50:90] = True
    np.testing.assert_array_equal(one.answers[0][~hole], wide[~hole])
    assert one.comparison().shape == (5 * 30 + 2, 204, 3)  # below each other
    narrow = edited(PLAIN, ImageToImage(strength=0.5), np.full((1, 40, 1), 9, np.uint8), n=1)
    assert narrow.answers.shape == (1, 1, 40, 1)


def test_the_opacity_of_an_enlarged_picture():
    picture = Picture(np.full((4, 4, 1), 99, np.uint8), 255, np.full((4, 4), 77, np.uint8))
    assert (edited(PLAIN, SuperResolve(factor=2), picture, n=1).with_alpha(0)[..., 3] == 77).all()


def test_the_noise_of_rounding():
    """The grey of a picture is rounded once for three channels; a measurement is its sum / sqrt 3."""
    codec = ss.QuantizedCodec((4, 4, 3), 255)
    grey = Picture(np.full((4, 4, 1), 100, np.uint8), 255)
    levels = np.random.default_rng(0).uniform(0, 255, 100_000)
    error = 2 / 255 * (np.round(levels) - levels)  # on the model's scale, equal in the three channels
    expected = np.std(3 * error / math.sqrt(3))
    assert Colourise().plan(grey, 0, codec).noise_std == pytest.approx(expected, rel=0.01)
    assert Inpaint(mask=(0, 0, 1, 1)).plan(grey, 0, codec).noise_std == pytest.approx(np.std(error), rel=0.01)


def test_an_editor_needs_images():
    with pytest.raises(ss.InputError, match=r"The model has examples of shape \(2,\); expected images"):
        Editor(ss.GaussianMixture(SDE, [1.0], [[0.0, 0.0]], 1.0), ss.ContinuousCodec((2,)), ss.Heun(), jnp.ones(2))
