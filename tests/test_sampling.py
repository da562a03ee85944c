"""This module tests `sample`, and the samplers on Gaussians and mixtures, whose distributions are known."""

import dataclasses
import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SDES

import score_sde as ss
from score_sde.parallel import Jit
from tests.closed_forms import mixture

SAMPLERS = [ss.EulerMaruyama(), ss.Ancestral(), ss.Ancestral("forward"), ss.Heun()]
IDS = ["euler_maruyama", "ancestral", "ancestral_forward", "heun"]
N = 40_000


def draw(sde, sampler, steps, n=N, model=None, **options):
    model = mixture(sde) if model is None else model
    grid = ss.time_grid.uniform(sde, steps)
    return ss.sample(model, sampler, grid, (2,), n=n, seed=0, batch_size=n, **options)


def gaussian_variance(sde, t, std=0.5):
    """Return Var x_t for data N(0, std^2)."""
    return float(sde.alpha(t)) ** 2 * std**2 + float(sde.variance(t))


def mean_error(sde, sampler, steps):
    """Return the relative error of E[x_{t_stop} | x_{t_max}] for data N(0, 0.5^2); the temperature removes all noise.

    Steps are affine on a Gaussian, so the samples without noise are the mean. The mean is r V_s / V_t x_t under the
    reverse SDE, with V the marginal variances, and sqrt(V_s / V_t) x_t under the probability flow.
    """
    model, start = ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], 0.5), np.full((1, 2), float(sde.prior_std))
    x = draw(sde, sampler, steps, n=1, model=model, x=start, denoise=False, temperature=1e-12).x
    v_s, v_t = gaussian_variance(sde, sde.t_stop), gaussian_variance(sde, sde.t_max)
    r = float(sde.transition(sde.t_stop, sde.t_max)[0])
    exact = np.sqrt(v_s / v_t) if isinstance(sampler, ss.Heun) else r * v_s / v_t
    return (x / (exact * start)).ravel()[0] - 1


@pytest.mark.parametrize(("sampler", "order"), [(ss.EulerMaruyama(), 1), (ss.Heun(), 2)])
def test_order_of_convergence_of_the_mean(x64, sde, sampler, order):
    coarse, fine = (mean_error(sde, sampler, steps) for steps in (256, 512))
    assert abs(np.log2(coarse / fine) - order) < 0.1


def test_ancestral_has_the_exact_mean_on_a_gaussian(x64, sde):
    """E[x_s | x_t] is linear in E[x_0 | x_t], so no step size biases the mean."""
    for sampler in (ss.Ancestral(), ss.Ancestral("forward")):
        assert abs(mean_error(sde, sampler, 4)) < 1e-7


def variance_error(sde, sampler, steps):
    """Return the exact relative error of the variance of samples of N(0, 0.5^2); a step on a Gaussian is a x + b z."""
    model = ss.GaussianMixture(sde, [1.0], [[0.0]], 0.5)
    key = jnp.repeat(jax.random.key(0)[None], 2)
    z = jax.random.normal(key[0], (1,))

    @jax.jit
    def coefficients(t, s):
        at_0, at_1 = sampler.step(key, model, jnp.asarray([[0.0], [1.0]]), t, s, sampler.init(jnp.zeros((2, 1))))[0]
        return (at_1 - at_0)[0], (at_0 / z)[0]

    grid = np.linspace(0.8, 0.2, steps + 1) * sde.t_max
    variance = gaussian_variance(sde, grid[0])
    for t, s in itertools.pairwise(grid):
        a, b = coefficients(jnp.asarray(t), jnp.asarray(s))
        variance = float(a) ** 2 * variance + float(b) ** 2
    return variance / gaussian_variance(sde, grid[-1]) - 1


STOCHASTIC = [
    (ss.EulerMaruyama(), 1),
    (ss.EulerMaruyama(noise=0.6), 1),
    (ss.ReverseDiffusion(), 1),
    (ss.Ancestral(), 1),
    (ss.Ancestral("forward"), 1),
    (ss.DDIM(eta=0.5), 1),
    (ss.DPM2Ancestral(), 2),
]


@pytest.mark.parametrize(("sampler", "order"), STOCHASTIC, ids=[str(sampler) for sampler, _ in STOCHASTIC])
def test_order_of_convergence_of_the_variance(x64, sde, sampler, order):
    # The first-order error of Euler-Maruyama on VE is small, and dominates at many steps only.
    late = isinstance(sde, ss.VE) and sampler == ss.EulerMaruyama()
    coarse, fine = (variance_error(sde, sampler, steps) for steps in ((8192, 16384) if late else (128, 256)))
    assert abs(np.log2(coarse / fine) - order) < 0.15


def test_one_step_of_each_by_hand(x64, sde):
    """A step agrees with the formula of the sampler's docstring, for the exact score of a Gaussian, in float64."""
    t, s, std = 0.6, 0.55, 0.7
    model = ss.GaussianMixture(sde, [1.0], [[0.3]], std)
    x = jnp.asarray([[0.4], [-1.2]])
    keys = jax.random.split(jax.random.key(0), 2)
    z = jnp.stack([jax.random.normal(key, (1,)) for key in keys])
    alpha, sigma, alpha_s, sigma_s = (float(f(u)) for u in (t, s) for f in (sde.alpha, sde.sigma))
    v_t = alpha**2 * std**2 + sigma**2
    score = -(x - alpha * 0.3) / v_t
    f, g2 = float(sde.drift_rate(t)), float(sde.diffusion_squared(t))
    euler = x - (f * x - g2 * score) * (t - s) + np.sqrt(g2 * (t - s)) * z

    r, x0 = alpha / alpha_s, (x + sigma**2 * score) / alpha
    v = sigma**2 - r**2 * sigma_s**2
    posterior = (r * sigma_s**2 * x + alpha_s * v * x0) / sigma**2  # Ho et al. 2020, Eq. (7), for any SDE
    ancestral = posterior + np.sqrt(v) * sigma_s / sigma * z

    def slope(x, u):
        a, var = float(sde.alpha(u)), float(sde.variance(u))
        score = -(x - a * 0.3) / (a**2 * std**2 + var)
        return float(sde.drift_rate(u)) * x - float(sde.diffusion_squared(u)) * score / 2

    guess = x + (s - t) * slope(x, t)
    heun = x + (s - t) / 2 * (slope(x, t) + slope(guess, s))
    cases = [
        (ss.EulerMaruyama(), euler, 1),
        (ss.Ancestral(), ancestral, 1),
        (ss.Ancestral("forward"), posterior + np.sqrt(v) * z, 1),
        (ss.Heun(), heun, 2),
    ]
    for sampler, expected, evaluations in cases:
        after, memory, nfe = sampler.step(keys, model, x, jnp.asarray(t), jnp.asarray(s), sampler.init(x))
        np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-10)
        assert memory == () and nfe.dtype == jnp.int32 and nfe.tolist() == [evaluations] * 2


# The independence of samples is no property of the pair, so each sampler and each SDE occurs once or more.
ALONE = [("vp", 0), ("vp", 1), ("vp", 2), ("vp", 3), ("subvp", 1), ("ve", 0)]


@pytest.mark.parametrize(("name", "index"), ALONE)
def test_sample_i_is_a_function_of_seed_and_i(name, index):
    sde, sampler = SDES[name], SAMPLERS[index]
    model, grid = mixture(sde), ss.time_grid.uniform(sde, 12)

    def run(**options):
        return ss.sample(model, sampler, grid, (2,), seed=0, **options).x

    together = run(n=16)
    np.testing.assert_allclose(run(n=5, first=3, batch_size=16), together[3:8], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(n=5, first=3, batch_size=2), together[3:8], rtol=1e-5, atol=1e-5)
    two_devices = Jit().sharded
    np.testing.assert_allclose(run(n=16, sharding=two_devices), together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        run(n=5, first=3, batch_size=16, sharding=two_devices), together[3:8], rtol=1e-5, atol=1e-5
    )
    assert jax.device_count() == 2
    other = ss.sample(model, sampler, grid, (2,), seed=1, n=16).x
    assert np.abs(other - together).min(axis=1).max() > 1e-3


class _Weighted(ss.Guide):
    weight: jax.Array

    def __init__(self, denoiser, weight):
        super().__init__(denoiser)
        self.weight = weight

    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x, t, cond)
        return ss.Prediction(inner.x0 * self.weight, inner.noise)


def test_a_guide_with_weights_on_one_device_guides_a_model_on_two():
    devices = Jit()
    model = _Weighted(mixture(ss.VP()), devices.place_state(jnp.ones(2)))
    guided = _Weighted(model, jax.device_put(jnp.asarray([0.5, 1.0]), jax.devices()[0]))
    options = dict(n=4, seed=0)
    alone = ss.sample(guided.denoiser.denoiser, ss.DDIM(), [1.0, 0.5], (2,), **options).x
    spread = ss.sample(guided, ss.DDIM(), [1.0, 0.5], (2,), sharding=devices.sharded, **options).x
    whole = ss.sample(_Weighted(mixture(ss.VP()), jnp.asarray([0.5, 1.0])), ss.DDIM(), [1.0, 0.5], (2,), **options).x
    np.testing.assert_allclose(spread, whole, rtol=1e-5, atol=1e-6)
    assert np.abs(spread - alone).max() > 0.01


def test_samples_have_the_numbers_that_are_asked_for():
    model, grid = mixture(ss.VP()), ss.time_grid.uniform(ss.VP(), 5)
    whole = ss.sample(model, ss.Ancestral(), grid, (2,), n=8, seed=0).x
    numbers = [5, 0, 5, 7, 2]
    found = ss.sample(model, ss.Ancestral(), grid, (2,), n=5, seed=0, numbers=numbers, batch_size=2).x
    np.testing.assert_allclose(found, whole[numbers], rtol=1e-5, atol=1e-6)
    for wrong in ([1, 2], [0.5] * 5, [-1] * 5, [2**32] * 5):
        with pytest.raises(ss.InputError, match="numbers"):
            ss.sample(model, ss.Ancestral(), grid, (2,), n=5, seed=0, numbers=wrong)


def test_the_keys_are_those_that_are_promised():
    """The prior uses fold_in(key_i, 0) and step k uses fold_in(key_i, k + 1); the keys are threefry under any flag."""
    sde = ss.VP()
    step_keys = []

    class Spy(ss.Sampler):
        def step(self, keys, denoiser, x, t, s, state, cond=None):
            jax.debug.callback(lambda keys: step_keys.append(np.asarray(keys)), jax.random.key_data(keys), ordered=True)
            return x, state, jnp.zeros(len(x), jnp.int32)

    grid = ss.time_grid.uniform(sde, 2)
    with jax.default_prng_impl("rbg"):
        out = ss.sample(mixture(sde), Spy(), grid, (2,), n=3, first=4, seed=9, denoise=False)
    jax.effects_barrier()
    purpose = int.from_bytes(hashlib.blake2b(b"sample", digest_size=4).digest(), "little")
    root = jax.random.fold_in(jax.random.key(9, impl="threefry2x32"), purpose)
    for row, i in enumerate((4, 5, 6)):
        key = jax.random.fold_in(root, i)
        prior = jax.random.normal(jax.random.fold_in(key, 0), (2,)) * sde.prior_std
        np.testing.assert_allclose(out.x[row], prior, rtol=1e-6)
        for k in range(2):
            np.testing.assert_array_equal(step_keys[k][row], jax.random.key_data(jax.random.fold_in(key, k + 1)))


def test_another_seed_or_other_parameters_compile_nothing(compiles):
    draw(ss.VP(), ss.EulerMaruyama(), 7, n=16)
    model = ss.GaussianMixture(ss.VP(beta_max=15.0), [0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [0.2, 0.2])
    grid = ss.time_grid.uniform(model.sde, 7)
    before = len(compiles)
    ss.sample(model, ss.EulerMaruyama(), grid, (2,), n=16, seed=123, first=100, batch_size=16, temperature=0.9)
    assert len(compiles) == before


def test_names_and_callables_in_a_users_denoiser(compiles):
    class Mine(ss.Denoiser):
        scale: float
        kind: str
        function: object

        def predict(self, x, t, cond=None, *, keys=None):
            assert self.kind == "shrink"
            return ss.Prediction.from_x0(self.sde, x, t, self.function(x) * self.scale)

    def run(scale):
        return draw(ss.VP(), ss.Ancestral(), 5, n=4, model=Mine(ss.VP(), scale, "shrink", jnp.tanh)).x

    first = run(0.5)
    before = len(compiles)
    assert not np.allclose(run(0.9), first)
    assert len(compiles) == before


def test_evaluations_denoising_and_trajectory():
    sde = ss.SubVP()
    for sampler, per_step in ((ss.Ancestral(), 1), (ss.Heun(), 2)):
        plain = draw(sde, sampler, 6, n=10, denoise=False, trajectory=True)
        last = draw(sde, sampler, 6, n=10, denoise=True)
        assert plain.nfe.tolist() == [6 * per_step] * 10 and last.nfe.tolist() == [6 * per_step + 1] * 10
        assert plain.trajectory.shape == (10, 7, 2) and last.trajectory is None
        np.testing.assert_array_equal(plain.trajectory[:, -1], plain.x)
        np.testing.assert_allclose(mixture(sde).denoise(jnp.asarray(plain.x), sde.t_stop), last.x, rtol=1e-4, atol=1e-5)
        assert abs(plain.trajectory[:, 0].std() / float(sde.prior_std) - 1) < 0.6


def test_a_walk_may_start_anywhere(sde):
    """A sampling loop that starts from exact draws at t = 0.5 gives the known covariance at t = 0.2."""
    model = mixture(sde)
    x = model.marginal(0.5).sample(jax.random.split(jax.random.key(2), N))
    out = ss.sample(model, ss.Heun(), np.linspace(0.5, 0.2, 21), (2,), n=N, seed=0, x=x, denoise=False, batch_size=N).x
    exact = np.asarray(model.marginal(0.2).covariance())
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.abs(np.cov(out.T) - exact) < (4 * np.sqrt(3 / N) + 0.01) * scale)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_temperature_scales_the_noise_of_a_gaussian(sde, sampler):
    """Steps are affine on a Gaussian, so the temperature multiplies the deviations from the mean."""
    model = ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], 0.5)
    warm, cool = (draw(sde, sampler, 10, n=50, model=model, temperature=tau).x for tau in (1.0, 0.25))
    np.testing.assert_allclose(cool, 0.25 * warm, rtol=1e-3, atol=1e-5)


def test_starting_points_in_half_precision(sde):
    """The sampling loop runs in float32, since a time grid in half precision would be coarse."""
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.ones((4, 2), dtype)
        half = draw(sde, ss.Heun(), 20, n=4, x=x).x
        np.testing.assert_array_equal(half, draw(sde, ss.Heun(), 20, n=4, x=x.astype(jnp.float32)).x)


def test_a_sampler_that_is_not_frozen_is_told_so():
    @dataclasses.dataclass
    class Loose(ss.Sampler):
        scale: float = 1.0

        def step(self, keys, denoiser, x, t, s, state, cond=None):
            raise AssertionError

    with pytest.raises(ss.InputError, match=r"Loose is not hashable.*frozen=True"):
        draw(ss.VP(), Loose(), 3, n=2)


@pytest.mark.slow
def test_a_conditional_network_under_guidance(compiles):
    """Samples 3..7 do not depend on the batch and the devices, and other weights compile nothing."""
    from score_sde.core import keys

    network = ss.networks.DDPMpp(
        (4, 4, 1), conditions={"label": ss.Label(3)}, channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.1
    )
    params = jax.tree.map(lambda p: p + 0.05, network.init(keys.stream(0, "init")))
    label = np.arange(16) % 3
    grid = ss.time_grid.uniform(ss.VP(), 6)

    def run(params, weight, rows, **options):
        rows = np.arange(16)[rows]
        model = ss.ClassifierFree(ss.NetworkDenoiser(ss.VP(), ss.Noise(data_std=0.5), network, params), weight)
        cond = {"label": label[rows]}
        options = {"n": len(rows), "first": int(rows[0]), "seed": 4, "batch_size": 16} | options
        return ss.sample(model, ss.Ancestral(), grid, (4, 4, 1), cond=cond, **options).x

    whole = run(params, 2.0, slice(None))
    bound = 1e-5 * np.abs(whole).max()  # Guidance makes large values, with large rounding errors.
    for part in (run(params, 2.0, slice(3, 8)), run(params, 2.0, slice(3, 8), batch_size=5)):
        np.testing.assert_allclose(part, whole[3:8], atol=bound)
    np.testing.assert_allclose(run(params, 2.0, slice(None), sharding=Jit().sharded), whole, atol=bound)
    other = jax.tree.map(lambda p: p * 1.1, params)
    before = len(compiles)
    assert not np.allclose(run(other, 3, slice(None), seed=5), whole)
    assert len(compiles) == before


def test_multistep_memory_is_carried():
    class Counting(ss.Sampler):
        def init(self, x):
            return jnp.zeros(x.shape[:1], jnp.int32)

        def step(self, keys, denoiser, x, t, s, state, cond=None):
            return x, state + 1, state

    out = draw(ss.VP(), Counting(), 5, n=3, denoise=False)
    assert out.nfe.tolist() == [0 + 1 + 2 + 3 + 4] * 3


def test_samplers_are_frozen_and_equal_by_value():
    assert ss.Ancestral() == ss.Ancestral("posterior") != ss.Ancestral("forward")
    assert hash(ss.Heun()) == hash(ss.Heun())
    with pytest.raises(dataclasses.FrozenInstanceError):
        ss.Ancestral().variance = "forward"


def test_time_grids(sde):
    grid = ss.time_grid.uniform(sde, 4)
    np.testing.assert_allclose(grid, np.linspace(1, 1e-5 if isinstance(sde, ss.VE) else 1e-3, 5))
    np.testing.assert_array_equal(ss.time_grid.default(sde, 4), grid)
    for n in (0, -3, 2.5, "many"):
        with pytest.raises(ss.InputError, match="whole number"):
            ss.time_grid.default(sde, n)


GRID = np.linspace(1, 1e-3, 5)
BAD = [
    ({"n": 0}, ["n is 0", "at least 1"]),
    ({"seed": 1.5}, ["seed is 1.5"]),
    ({"seed": -1}, ["seed is -1", "2**32 - 1"]),
    ({"seed": 2**32}, ["seed is 4294967296"]),
    ({"first": -1}, ["first is -1"]),
    ({"batch_size": 0}, ["batch_size is 0"]),
    ({"temperature": 0.0}, ["temperature is 0.0", "positive"]),
    ({"shape": (2, 0)}, ["(2, 0)"]),
    ({"grid": GRID[::-1]}, ["decreasing"]),
    ({"grid": [1.0, 0.5, 0.5 - 1e-12]}, ["from 0.5 to 0.5 in step 1"]),
    ({"grid": [1.0]}, ["(1,)"]),
    ({"grid": [1.0, np.nan]}, ["NaN"]),
    ({"grid": [1.0, -0.5]}, ["-0.5", "[t_min, t_max]"]),
    ({"grid": [2.0, 0.5]}, ["2", "[t_min, t_max]"]),
    ({"grid": [0.7, 0.5]}, ["0.7", "t_max = 1"]),
    ({"x": np.zeros((3, 2))}, ["(3, 2)", "(2, 2)"]),
    ({"x": np.full((2, 2), np.nan)}, ["NaN"]),
    ({"x": np.zeros((2, 2), int)}, ["int64"]),
    ({"cond": {"lable": np.zeros(2, int)}}, ["cond has 'lable'", "conditions read: label"]),
    ({"cond": np.zeros(2, int)}, ["cond is a ndarray", "dictionary"]),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[str(c)[:40] for c, _ in BAD])
def test_bad_input_is_refused(change, words):
    options = {"grid": GRID, "shape": (2,), "n": 2, "seed": 0} | change
    with pytest.raises(ss.InputError) as caught:
        ss.sample(mixture(ss.VP()), ss.Heun(), options.pop("grid"), options.pop("shape"), **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_walk_that_runs_away_is_an_error_naming_samples():
    class Broken(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            bad = jnp.where(x[:, :1] > 0, jnp.nan, 0.0)
            return ss.Prediction(x + bad, x)

    with pytest.raises(ss.DivergenceError, match=r"of 8 samples are not finite \(numbers \d+"):
        draw(ss.VP(), ss.Ancestral(), 3, n=8, model=Broken(ss.VP()), first=20)


def test_euler_maruyama_says_where_it_is_not_defined():
    class Straight(ss.SDE):
        def alpha(self, t):
            return 1 - t

        def variance(self, t):
            return t**2

    sde = Straight()
    model = ss.GaussianMixture(sde, [1.0], [[0.5, -0.5]], 0.4)
    with pytest.raises(ss.InputError, match="t = 1"):
        draw(sde, ss.EulerMaruyama(), 10, n=4, model=model)
    x = draw(sde, ss.Ancestral(), 200, n=N, model=model).x
    np.testing.assert_allclose(x.mean(axis=0), [0.5, -0.5], atol=0.02)
    np.testing.assert_allclose(x.std(axis=0), 0.4, rtol=0.04)
