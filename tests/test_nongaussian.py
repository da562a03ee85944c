"""This module tests diffusion without Gaussian noise against enumeration, closed forms and identities."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import score_sde as ss
from score_sde import config as config_
from score_sde import nongaussian as ng
from score_sde import sampling
from score_sde.configs import digits
from score_sde.core import keys as keys_
from score_sde.experiment import Experiment
from score_sde.jobs import draw_samples, evaluate, train
from score_sde.losses.objective import WholeBatch

KEYS = jax.random.split(jax.random.key(0), 20_000)


def all_images(d):
    return np.asarray(list(itertools.product([-1.0, 1.0], repeat=d)))


def weights_of(d, seed=0):
    """Return probabilities of all images of d pixels that favour equal neighbours."""
    images = all_images(d)
    share = np.exp(0.8 * (images[:, :-1] * images[:, 1:]).sum(axis=1) + 0.3 * images[:, 0])
    return share / share.sum()


def kernel(d, level, counted):
    """Return p(x_t | x_0) for all pairs (x_0, x_t) by enumeration of the pixels that are set and their colours."""
    images = all_images(d)
    index = {tuple(image): number for number, image in enumerate(images)}
    table = np.zeros((2**d, 2**d))
    for touched in itertools.product([False, True], repeat=d):
        count = sum(touched)
        if counted:
            chance = (count == level) / math.comb(d, level)
        else:
            chance = (level / d) ** count * (1 - level / d) ** (d - count)
        if chance == 0:
            continue
        places = np.flatnonzero(touched)
        for colours in itertools.product([-1.0, 1.0], repeat=count):
            for number, image in enumerate(images):
                changed = image.copy()
                changed[places] = colours
                table[number, index[tuple(changed)]] += chance / 2**count
    return table


def numbers_of(x):
    """Return the number of each binary image in the order of `all_images`."""
    return ((np.asarray(x) > 0) @ (2 ** np.arange(x.shape[1])[::-1])).astype(int)


def assert_frequencies(x, wanted):
    """The frequencies of the images in x agree with their probabilities, by chi-squared within 5 sigma."""
    counts, expected = np.bincount(numbers_of(x), minlength=len(wanted)), len(x) * wanted
    used = expected > 0
    assert counts[~used].sum() == 0
    statistic, freedom = np.sum((counts[used] - expected[used]) ** 2 / expected[used]), used.sum() - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def process_of(d, counted):
    return ng.PixelNoise(d if counted else None)


@pytest.mark.parametrize("counted", [True, False])
def test_pixels_are_set_with_the_enumerated_probabilities(counted):
    d, level = 4, 3
    x0 = np.tile(all_images(d)[5], (len(KEYS), 1))
    noise = keys_.normal(KEYS, (d,))
    x = process_of(d, counted).perturb(jnp.asarray(x0, jnp.float32), noise, level / d)
    table = kernel(d, level, counted)
    assert_frequencies(x, table[5])
    alpha, variance = 1 - level / d, 1 - (1 - level / d) ** 2
    np.testing.assert_allclose(table @ all_images(d), alpha * all_images(d), atol=1e-12)
    np.testing.assert_allclose(process_of(d, counted).alpha(level / d), alpha, rtol=1e-6)
    np.testing.assert_allclose(process_of(d, counted).variance(level / d), variance, rtol=1e-6)
    np.testing.assert_allclose(table[5] @ (all_images(d) - alpha * all_images(d)[5]) ** 2, variance, atol=1e-12)


def test_what_is_set_stays_set():
    process, x0 = ng.PixelNoise(9), jnp.zeros((50, 3, 3, 1))
    noise = keys_.normal(KEYS[:50], (3, 3, 1))
    pictures = [np.asarray(process.perturb(x0, noise, level / 9)) for level in range(10)]
    for level, (before, after) in enumerate(itertools.pairwise(pictures)):
        assert np.all(after[before != 0] == before[before != 0])
        assert np.all((after != 0).sum(axis=(1, 2, 3)) == level + 1)


@pytest.mark.parametrize(("d", "counted"), [(4, True), (4, False), (6, True), (6, False)])
def test_the_exact_denoiser_is_the_enumerated_posterior_mean(x64, d, counted):
    images, weights = all_images(d), weights_of(d)
    denoiser = ng.BinaryImages(process_of(d, counted), images, weights)
    for level in (1, d // 2, d):
        joint = weights[:, None] * kernel(d, level, counted)
        possible = joint.sum(axis=0) > 0
        mean = (joint.T @ images)[possible] / joint.sum(axis=0)[possible, None]
        found = denoiser.denoise(jnp.asarray(images[possible]), level / d)
        np.testing.assert_allclose(found, mean, atol=1e-10)


def test_the_exact_denoiser_of_twelve_pixels():
    """4,096 images: the mean over p(x_t) of E[x_0 | x_t] is the mean of the data, and E[x_0 | x_T] is it too."""
    images, weights = all_images(12), weights_of(12)
    denoiser = ng.BinaryImages(ng.PixelNoise(12), images, weights)
    np.testing.assert_allclose(denoiser.denoise(images[:3].astype(np.float32), 1.0), [weights @ images] * 3, atol=1e-5)
    drawn = images[np.random.default_rng(0).choice(4096, size=4000, p=weights)].astype(np.float32)
    x = denoiser.sde.perturb(jnp.asarray(drawn), keys_.normal(KEYS[:4000], (12,)), 5 / 12)
    error = np.asarray(denoiser.denoise(x, 5 / 12)) - drawn
    assert np.all(np.abs(error.mean(axis=0)) < 5 * error.std(axis=0) / np.sqrt(4000))
    # The error of a posterior mean is uncorrelated with every function of x_t.
    product = error * np.asarray(x)
    assert np.all(np.abs(product.mean(axis=0)) < 5 * product.std(axis=0) / np.sqrt(4000))


@pytest.mark.parametrize(("d", "k", "counted"), [(4, 1, True), (4, 2, True), (6, 2, False), (12, 4, True)])
def test_drawn_renoising_has_its_exact_marginals(d, k, counted):
    """The walk of algorithm 2 with drawn pixels is a Markov chain of 2^d states, whose end is computed exactly."""
    images, weights = all_images(d), weights_of(d)
    denoiser = ng.BinaryImages(process_of(d, counted), images, weights)
    grid = ng.every(ng.PixelNoise(d), k)
    state = np.full(2**d, 2.0**-d)
    for t, s in itertools.pairwise(grid):
        with jax.enable_x64(True):
            exact = ng.BinaryImages(process_of(d, counted), images, weights)
            mean = np.asarray(exact.denoise(jnp.asarray(images), t))
        share = np.nan_to_num(np.prod((1 + mean[:, None] * images[None]) / 2, axis=-1))
        after = state @ share
        state = after if s == 0 else after @ kernel_between(d, round(s * d), counted)
    x = ss.sample(denoiser, ng.Renoise(draws=True), grid, (d,), n=len(KEYS), seed=1, batch_size=len(KEYS)).x
    assert set(np.unique(x)) == {-1.0, 1.0}
    if d < 12:
        assert_frequencies(x, state)
    else:  # most of the 4,096 images are never drawn: compare the moments
        error = x.mean(axis=0) - state @ images
        assert np.all(np.abs(error) < 5 / np.sqrt(len(x)))
        pairs = (x[:, 1:] * x[:, :-1]).mean(axis=0) - state @ (images[:, 1:] * images[:, :-1])
        assert np.all(np.abs(pairs) < 5 / np.sqrt(len(x)))


def kernel_between(d, level, counted):
    """Return `kernel` by its closed form, checked against the enumeration for small d."""
    differing = (d - all_images(d) @ all_images(d).T) / 2
    t = level / d
    if not counted:
        return (t / 2) ** differing * (1 - t / 2) ** (d - differing)
    chance = [math.comb(d - k, level - k) / math.comb(d, level) / 2**level if k <= level else 0 for k in range(d + 1)]
    return np.asarray(chance)[differing.astype(int)]


@pytest.mark.parametrize("counted", [True, False])
def test_the_closed_form_of_the_kernel(counted):
    np.testing.assert_allclose(kernel_between(5, 2, counted), kernel(5, 2, counted), atol=1e-12)


def test_grey_renoising_has_its_exact_marginals():
    """Algorithm 2 with means: all walks of 3 pixels are enumerated, and the mean and the squares at the end agree."""
    d, images, weights = 3, all_images(3), weights_of(3)
    process = ng.PixelNoise()
    denoiser = ng.BinaryImages(process, images, weights)
    grid = np.asarray([1.0, 2 / 3, 1 / 3, 0.0])
    states, chances = images, np.full(8, 1 / 8)
    for t, s in itertools.pairwise(grid):
        x0 = np.asarray(denoiser.denoise(jnp.asarray(states, jnp.float32), t), float)
        if s == 0:
            states = x0
            break
        branches, shares = [], []
        for colour in itertools.product([0.0, -1.0, 1.0], repeat=d):
            new = np.asarray(colour)
            branches.append(np.where(new == 0, x0, new))
            shares.append(chances * np.prod(np.where(new == 0, 1 - s, s / 2)))
        states, chances = np.concatenate(branches), np.concatenate(shares)
    assert chances.sum() == pytest.approx(1)
    x = ss.sample(denoiser, ng.Renoise(), grid, (d,), n=len(KEYS), seed=2, batch_size=len(KEYS)).x
    for power in (1, 2):
        moment, spread = chances @ states**power, np.sqrt(chances @ states ** (2 * power))
        assert np.all(np.abs((x**power).mean(axis=0) - moment) < 5 * spread / np.sqrt(len(x)))


@pytest.mark.parametrize("counted", [True, False])
def test_a_step_back_is_the_enumerated_one(x64, counted):
    """E[x_s | x_t] by enumeration of x_0, of the pixels set at s and at t, and of their colours."""
    d, s, t = 4, 1, 3
    images, weights = all_images(d), weights_of(d)
    denoiser = ng.BinaryImages(process_of(d, counted), images, weights)
    mass, mean = np.zeros(16), np.zeros((16, d))
    for when in itertools.product([0, 1, 2], repeat=d):  # 0: set before s, 1: set between s and t, 2: not set at t
        before, between = when.count(0), when.count(1)
        chance = 1 / math.comb(d, t) / math.comb(t, s) if counted else (s / d) ** before * ((t - s) / d) ** between
        chance *= (before == s and between == t - s) if counted else (1 - t / d) ** when.count(2)
        if not chance:
            continue
        for colours in images:
            for weight, image in zip(weights, images, strict=True):
                x_t = np.where(np.asarray(when) < 2, colours, image)
                x_s = np.where(np.asarray(when) < 1, colours, image)
                number = numbers_of(x_t[None])[0]
                mass[number] += weight * chance / 16
                mean[number] += weight * chance / 16 * x_s
    assert mass.sum() == pytest.approx(1)
    a, b = denoiser.sde.previous(jnp.asarray(s / d), jnp.asarray(t / d))
    found = a * denoiser.denoise(jnp.asarray(images), t / d) + b * images
    np.testing.assert_allclose(found, mean / mass[:, None], atol=1e-10)


def test_algorithm_1_has_its_exact_marginals_and_drawn_steps_converge_to_the_data():
    d, images, weights = 4, all_images(4), weights_of(4)
    process = ng.PixelNoise()
    denoiser = ng.BinaryImages(process, images, weights)
    grid = np.linspace(1, 0, d + 1)
    # With means the walk is a function of its start: all 2^d starts are walked.
    starts = ss.sample(denoiser, ng.Stepwise(), grid, (d,), n=16, seed=0, x=images.astype(np.float32)).x
    x = ss.sample(denoiser, ng.Stepwise(), grid, (d,), n=4000, seed=3, batch_size=4000).x
    distances = np.abs(x[:, None] - starts[None]).max(axis=-1)
    assert distances.min(axis=1).max() < 1e-5
    counts = np.bincount(distances.argmin(axis=1), minlength=16)
    assert np.abs(counts - 250).max() < 6 * np.sqrt(250)
    state = np.asarray(starts, float)
    for t, s in itertools.pairwise(grid):  # the walk itself, by the formula of the posterior
        state = images if t == 1 else state
        x0 = np.asarray(denoiser.denoise(jnp.asarray(state, jnp.float32), t), float)
        state = (1 - s / t) * x0 + s / t * state
    np.testing.assert_allclose(starts, state, atol=1e-4)
    # Drawn pixels: a chain of 2^d states, and its distance from the data falls with the steps.
    gaps = []
    for steps in (8, 64):
        chain = np.full(16, 1 / 16)
        for t, s in itertools.pairwise(np.linspace(1, 0, steps + 1)):
            x0 = np.asarray(denoiser.denoise(jnp.asarray(images, jnp.float32), t), float)
            mean = (1 - s / t) * x0 + s / t * images
            chain = chain @ np.prod((1 + mean[:, None] * images[None]) / 2, axis=-1)
        gaps.append(np.abs(chain - weights).sum())
        grid = np.linspace(1, 0, steps + 1)
        x = ss.sample(denoiser, ng.Stepwise(draws=True), grid, (d,), n=len(KEYS), seed=4, batch_size=len(KEYS)).x
        assert_frequencies(x, chain)
    assert gaps[1] < gaps[0] / 5


class Line(ng.Process):
    """`Line` is the degradation x + t v, with a given v."""

    direction: tuple = (1.0, -2.0, 0.5)

    def alpha(self, t):
        return 1 - jnp.asarray(t, float)

    def variance(self, t):
        return jnp.asarray(t, float) ** 2

    def perturb(self, x0, noise, t):
        return x0 + jnp.asarray(t) * jnp.asarray(self.direction)


class Any(ss.Denoiser):
    """`Any` restores badly: a function without relation to the degradation."""

    def predict(self, x, t, cond=None, *, keys=None):
        return ss.Prediction(jnp.sin(3 * x) + jnp.asarray(t), x)


def test_improved_sampling_is_exact_on_a_line_with_any_restoration():
    process = Line()
    x0 = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    start = np.asarray(process.perturb(jnp.asarray(x0), None, 1.0))
    options = {"n": 5, "seed": 0, "x": start}
    improved = ss.sample(Any(process), ng.Cold(), np.linspace(1, 0, 9), (3,), **options).x
    np.testing.assert_allclose(improved, x0, atol=1e-5)
    naive = ss.sample(Any(process), ng.Cold(improved=False), np.linspace(1, 0, 9), (3,), **options).x
    assert np.abs(naive - x0).max() > 0.5


@pytest.mark.parametrize("sde", [ss.VP(), ss.EDM(), ss.RectifiedFlow(), ss.DDPM(20)], ids=["vp", "edm", "line", "ddpm"])
def test_with_gaussian_noise_cold_sampling_is_ddim(x64, sde):
    model = ss.GaussianMixture(sde, [0.3, 0.7], [[1.5, 0.0], [-0.8, 0.6]], [0.3, 0.5])
    grid = ss.time_grid.default(sde, 10)
    walks = [ss.sample(model, sampler, grid, (2,), n=8, seed=0).x for sampler in (ng.Cold(), ss.DDIM())]
    np.testing.assert_allclose(*walks, atol=1e-9)
    naive = ss.sample(model, ng.Cold(improved=False), grid, (2,), n=8, seed=0).x
    np.testing.assert_allclose(naive, walks[1], atol=1e-9)


def test_the_noise_of_the_first_step_may_be_kept(x64):
    """With one picture as data x_0 is known: the kept noise is that of x_T, and x_s = alpha x_0 + sigma e."""
    process = ng.Mixing()
    model = ss.GaussianMixture(process, [1.0], [[0.5, -0.25]], [1e-9])
    x = ss.sample(model, ng.Cold(keeps=True), [1.0, 0.5, 0.25], (2,), n=4, seed=0, denoise=False, trajectory=True)
    e = x.trajectory[:, 0]
    for place, t in ((1, 0.5), (2, 0.25)):
        wanted = np.cos(np.pi * t / 2) * np.asarray([0.5, -0.25]) + np.sin(np.pi * t / 2) * e
        np.testing.assert_allclose(x.trajectory[:, place], wanted, atol=1e-7)
    bad = Any(process)
    pair = [ss.sample(bad, ng.Cold(keeps=k), [1.0, 0.6, 0.3, 0.0], (2,), n=4, seed=0).x for k in (True, False)]
    assert np.abs(pair[0] - pair[1]).max() > 0.1


PICTURES = np.random.default_rng(3).uniform(-1, 1, (5, 8, 8, 1)).astype(np.float32)


def test_blur_multiplies_cosines_and_is_a_gaussian_filter():
    process, t = ng.Blurring(std_max=4.0), 0.5
    i, j, (y, x) = 2, 3, np.mgrid[:8, :6]
    mode = (np.cos(np.pi * i * (y + 0.5) / 8) * np.cos(np.pi * j * (x + 0.5) / 6))[None, ..., None]
    factor = np.exp(-(np.pi**2) * ((i / 8) ** 2 + (j / 6) ** 2) * 2.0**2 / 2)
    np.testing.assert_allclose(process.perturb(jnp.asarray(mode), None, t), factor * mode, atol=1e-5)
    big = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 1)).astype(np.float32)
    filtered = ndimage.gaussian_filter(big[0, ..., 0].astype(float), 2.0, mode="reflect", truncate=8)
    np.testing.assert_allclose(process.perturb(jnp.asarray(big), None, t)[0, ..., 0], filtered, atol=1e-4)


def test_pixelating_takes_means_of_blocks():
    process, x = ng.Pixelating(2), jnp.asarray(PICTURES)
    means = {size: PICTURES.reshape(5, 8 // size, size, 8 // size, size).mean(axis=(2, 4)) for size in (2, 4)}
    blocks = {size: np.kron(mean, np.ones((1, size, size)))[..., None] for size, mean in means.items()}
    np.testing.assert_allclose(process.perturb(x, x, 0.5), blocks[2], atol=1e-6)
    np.testing.assert_allclose(process.perturb(x, x, 1.0), blocks[4], atol=1e-6)
    np.testing.assert_allclose(process.perturb(x, x, 0.75), (blocks[2] + blocks[4]) / 2, atol=1e-6)


def test_masking_fades_to_its_value_from_the_middle():
    process, x = ng.Masking(radius=2.0, fill=0.25), jnp.asarray(PICTURES[:, :7, :7])
    y = np.asarray(process.perturb(x, x, 0.5))
    np.testing.assert_allclose(y[:, 3, 3], 0.25, atol=1e-6)
    share = 1 - np.exp(-(1**2 + 2**2) / 2)
    np.testing.assert_allclose(y[:, 4, 1], 0.25 + share * (x[:, 4, 1] - 0.25), atol=1e-6)


@pytest.mark.parametrize("process", [ng.Blurring(), ng.Pixelating(), ng.Masking(), ng.Mixing(PICTURES)])
def test_nothing_is_degraded_at_time_0(process):
    x = jnp.asarray(PICTURES)
    np.testing.assert_allclose(process.perturb(x, process.draw(KEYS[:5], (8, 8, 1)), 0.0), x, atol=1e-6)


def test_where_walks_start():
    """A walk starts from one of the starts, with a little noise, or from another picture; each about equally often."""
    for process in (ng.Blurring(starts=PICTURES), ng.Mixing(PICTURES)):
        x = np.asarray(process.sample_prior(KEYS[:1000], (8, 8, 1)))
        distances = np.abs(x[:, None] - PICTURES[None]).max(axis=(2, 3, 4))
        assert distances.min(axis=1).max() < 0.02
        counts = np.bincount(distances.argmin(axis=1), minlength=5)
        assert np.abs(counts - 200).max() < 5 * np.sqrt(200)
    noisy = np.asarray(ng.Blurring(starts=PICTURES[:1], start_noise=0.5).sample_prior(KEYS[:500], (8, 8, 1)))
    assert np.std(noisy - PICTURES[0]) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("word", ["naive", "one_step", "cold"])
@pytest.mark.slow
def test_the_digits_are_trained_measured_and_sampled_by_the_usual_jobs(tmp_path, word):
    config = digits.get_config(word)
    config.network.update(channels=8, multipliers=(1,), attention=())
    config.data.batch_size = 16
    config.train.update(steps=6, eval_every=0, checkpoint_every=3, sample_every=3)
    config.sample.update(n=4, batch_size=4)
    config.sample.grid.n = 4
    train(config, tmp_path)
    evaluate(config, tmp_path)
    draw_samples(config, tmp_path)
    levels = json.loads((tmp_path / "eval" / "loss_per_level.json").read_text())
    assert np.isfinite(levels["loss"]).all()
    model = ss.load(tmp_path)
    sampler = config_.build(sampling, config.sample.sampler, base=sampling.Sampler)
    x = model.sample(4, sampler=sampler, grid=ss.time_grid.default(model.denoiser.sde, 4)).x
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        np.testing.assert_allclose(arrays["images"].reshape(x.shape), x, atol=1)
    for call in (model.bits_per_dim, model.variational_bound):
        with pytest.raises(ss.InputError, match=r"score_sde\.nongaussian|bound in continuous time is not finite"):
            call(x)
    with pytest.raises(ss.InputError, match=r"Heun needs times|no probability flow"):
        model.sample(2)
    if word == "cold":
        starts = np.asarray(model.denoiser.sde.starts)
        values = Experiment.from_config(config).examples("train").batch(np.arange(1500))["values"]
        x0, _ = model.codec.encode(values, None)
        degraded = np.asarray(model.denoiser.sde.perturb(x0, None, 1.0))
        nearest = np.abs(starts[:96, None] - degraded[None]).max(axis=(2, 3, 4)).min(axis=1)
        assert starts.shape == (1024, 8, 8, 1)
        assert nearest.max() < 1e-4


def test_restoration_keeps_the_last_degraded_pictures():
    config = digits.get_config("cold")
    config.network.update(channels=8, multipliers=(1,), attention=())
    config.objective.starts = 6
    config.data.batch_size = 4
    experiment = Experiment.from_config(config)
    objective, process = experiment.objective, experiment.sde
    params, state = objective.init(jax.random.key(0))
    examples, degraded = experiment.examples("train"), []
    for step in range(3):
        batch = examples.batch(np.arange(4 * step, 4 * step + 4)) | {"index": np.arange(4)}
        options = {"averages": {}, "frozen": experiment.frozen(), "across": WholeBatch(), "train": True}
        losses, state, _ = objective(params, state, batch, jax.random.key(step), step=jnp.asarray(step), **options)
        x0, _ = experiment.codec.encode(batch["values"], None)
        degraded = [*np.asarray(process.perturb(x0, None, 1.0)), *degraded]
        assert losses["network"].shape == (4,)
    np.testing.assert_allclose(state["starts"], degraded[:6], atol=1e-6)


FREE = ng.BinaryImages(ng.PixelNoise(), all_images(4), weights_of(4))
BINARY = ng.BinaryImages(ng.PixelNoise(4), all_images(4), weights_of(4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ng.every(ng.PixelNoise(64), 65), "k is 65; expected a whole number from 1 to T, the 64 levels"),
        (lambda: ng.every(ng.PixelNoise(), 2), "from 1 to T, the 0 levels"),
        (lambda: ng.PixelNoise(0), "pixels of PixelNoise is 0"),
        (lambda: ss.time_grid.default(ng.PixelNoise(4), 9), r"9 steps were asked of .*expected at most 4 steps"),
        (lambda: ng.PixelNoise(4).perturb(jnp.ones((2, 3)), jnp.ones((2, 3)), 1.0), "expected pixels=3"),
        (lambda: ng.BinaryImages(ng.PixelNoise(4), [[0.0, 1.0, 1.0, 1.0]], [1.0]), "expected binary images"),
        (lambda: ng.BinaryImages(ng.PixelNoise(4), all_images(4), [1.0]), "expected one share for each"),
        (lambda: ng.BinaryImages(ss.VP(), all_images(4), weights_of(4)), "expected PixelNoise"),
        (lambda: ss.log_prob(BINARY, np.ones((2, 4), np.float32), KEYS[:2]), "PixelNoise has no probability flow"),
        (lambda: ss.variational_bound(BINARY, np.ones((2, 4), np.float32), KEYS[:2]), "PixelNoise has no Gaussian"),
        (lambda: ss.encode(BINARY, np.ones((2, 4), np.float32)), "PixelNoise has no probability flow"),
        (lambda: ss.sample(FREE, ss.Heun(), [1.0, 0.5], (4,), n=2, seed=0), "PixelNoise has no probability flow"),
        (lambda: ss.sample(BINARY, ss.Heun(), [1.0, 0.5], (4,), n=2, seed=0), "Heun needs times between the levels"),
        (lambda: ss.sample(BINARY, ss.Ancestral(), [1.0, 0.5], (4,), n=2, seed=0), "PixelNoise has no Gaussian"),
        (lambda: ss.sample(BINARY, ng.Renoise(), [1.0, 0.5], (4,), n=2, seed=0, temperature=0.5), "temperature is 0.5"),
        (lambda: ng.Stepwise().check(ss.VP(), None), "Stepwise got the SDE VP; expected PixelNoise"),
        (lambda: ng.Renoise(draws=True).check(ss.VP(), None), "Renoise got the SDE VP; expected PixelNoise"),
        (lambda: ng.PreviousState().check(ng.PixelNoise()), "with its number of pixels"),
        (lambda: ng.Blurring(-1.0), "std_max of Blurring is -1"),
        (lambda: ng.Pixelating(0), "halvings of Pixelating is 0"),
        (lambda: ng.Masking(0.0), "radius of Masking is 0"),
        (lambda: ng.Pixelating(2).perturb(jnp.ones((1, 6, 6, 1)), None, 1.0), "sides that 2.halvings divides"),
        (lambda: ng.Blurring().perturb(jnp.ones((1, 6)), None, 1.0), "expected .height, width, channels"),
        (lambda: ng.Blurring().sample_prior(KEYS[:1], (8, 8, 1)), "has no starting pictures"),
    ],
)
def test_wrong_input_is_one_line(call, words):
    with pytest.raises(ss.InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "words"), [("naive,vp", "'naive' beside 'vp'"), ("cold,pc", "'cold' beside 'pc'"), ("colt", "cold")]
)
def test_words_that_do_not_fit(variant, words):
    with pytest.raises(ss.InputError, match=words):
        digits.get_config(variant)
