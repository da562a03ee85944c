"""Log-densities and error bars of likelihoods agree with closed forms."""

import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from scipy import stats

import score_sde as ss
from score_sde.likelihood.density import _solve
from tests.closed_forms import FullGaussian, FullMixture, random_covariance

KEYS = jax.random.split(jax.random.key(0), 64)


def in_bits(nats, size):
    return np.asarray(nats, np.float64) / (size * math.log(2))


@pytest.mark.parametrize("size", [2, 64])
def test_log_prob_is_the_closed_form(sde, size):
    """With the true marginal as prior, log_prob of a user's Denoiser is within 1e-3 bits/dim of log p at t_min."""
    rng = np.random.default_rng(size)
    means = rng.standard_normal((3, size))
    covariances = np.stack([random_covariance(rng, size) for _ in means])
    for weights in ([1.0, 0.0, 0.0], [0.2, 0.3, 0.5]):  # a Gaussian and a mixture share one program
        denoiser = FullMixture(sde, np.asarray(weights), means, covariances)
        x = denoiser.marginal(sde.t_min).sample(rng, 32)
        out = ss.log_prob(denoiser, x, None, trace="exact", prior=denoiser.marginal(sde.t_max))
        error = in_bits(out.value - denoiser.marginal(sde.t_min).log_prob(x), size)
        assert np.abs(error).max() < 1e-3
        assert not np.asarray(out.status).any()
        np.testing.assert_allclose(out.value, out.prior + out.divergence, rtol=1e-6)


def test_the_sdes_own_prior_is_the_default_and_its_error_the_models(sde):
    """The difference to log p is the difference of the two priors at the latent."""
    denoiser = ss.GaussianMixture(sde, [0.3, 0.7], [[2.0, 0.0], [-1.0, 1.0]], [0.3, 0.5])
    x = denoiser.marginal(sde.t_min).sample(KEYS)
    own = ss.log_prob(denoiser, x, None, trace="exact")
    true = ss.log_prob(denoiser, x, None, trace="exact", prior=denoiser.marginal(sde.t_max))
    std = float(sde.prior_std)
    normal = stats.norm.logpdf(np.asarray(own.latent, np.float64), scale=std).sum(axis=1)
    np.testing.assert_allclose(own.prior, normal, atol=1e-4)
    np.testing.assert_allclose(own.divergence, true.divergence, atol=1e-5)


@pytest.mark.slow
def test_the_error_bars_cover_the_truth_at_their_nominal_rate():
    """Student's t intervals of 16 probes in 64 dimensions cover the exact trace at their rate in 200 repetitions."""
    sde, rng = ss.VP(), np.random.default_rng(0)
    denoiser = FullGaussian(sde, np.zeros(64), random_covariance(rng, 64))
    x = denoiser.marginal(sde.t_min).sample(rng, 1)
    truth = float(ss.log_prob(denoiser, x, None, trace="exact", rtol=1e-6, atol=1e-6).value[0])
    for probe in ("rademacher", "gaussian"):
        keys = jax.random.split(jax.random.key(5), 200)
        out = ss.log_prob(denoiser, np.repeat(x, 200, axis=0), keys, probes=16, probe=probe)
        t = np.abs(np.asarray(out.value) - truth) / np.asarray(out.stderr)
        for level in (0.5, 0.8, 0.95):
            covered = (t < stats.t.ppf((1 + level) / 2, df=15)).sum()
            assert abs(covered - 200 * level) < 3.5 * math.sqrt(200 * level * (1 - level)), (probe, level)


@pytest.mark.slow
def test_what_the_probes_say_of_their_error():
    sde = ss.VP()
    denoiser = FullGaussian(sde, np.zeros(8), random_covariance(np.random.default_rng(1), 8))
    x = np.ones((4, 8), np.float32)
    single = ss.log_prob(denoiser, x, KEYS[:4])
    exact = ss.log_prob(denoiser, x, None, trace="exact")
    many = ss.log_prob(denoiser, x, KEYS[:4], probes=64)
    assert np.isnan(single.stderr).all()
    assert (np.asarray(exact.stderr) == 0).all()
    assert (np.abs(many.value - exact.value) < 4 * many.stderr).all()
    assert (np.asarray(many.stderr) > 0).all()
    # Rademacher probes are exact if the Jacobian is diagonal; Gaussian probes are not exact.
    diagonal = ss.GaussianMixture(sde, [1.0], [np.zeros(8)], [0.5])
    sharp, blurred = (ss.log_prob(diagonal, x, KEYS[:4], probes=4, probe=name) for name in ("rademacher", "gaussian"))
    assert (np.asarray(sharp.stderr) < 1e-3).all()
    assert (np.asarray(blurred.stderr) > 1e-1).all()


def test_in_float64_the_closed_form_is_met_to_the_tolerance(x64):
    sde, rng = ss.SubVP(), np.random.default_rng(2)
    denoiser = FullGaussian(sde, rng.standard_normal(3), random_covariance(rng, 3))
    x = denoiser.marginal(sde.t_min).sample(rng, 8)
    assert x.dtype == np.float64
    errors = []
    for tolerance in (1e-5, 1e-7, 1e-9):
        out = ss.log_prob(
            denoiser, x, None, trace="exact", prior=denoiser.marginal(1.0), rtol=tolerance, atol=tolerance
        )
        errors.append(np.abs(out.value - denoiser.marginal(sde.t_min).log_prob(x)).max())
    assert errors[2] < 1e-7
    assert errors[0] > 30 * errors[1] > 900 * errors[2]


@pytest.mark.slow
def test_the_chunk_changes_nothing():
    denoiser = FullGaussian(ss.VP(), np.zeros(5), random_covariance(np.random.default_rng(3), 5))
    x = np.ones((3, 5), np.float32)
    values = [ss.log_prob(denoiser, x, None, trace="exact", chunk=chunk).value for chunk in (1, 2, 99)]
    np.testing.assert_allclose(values, np.broadcast_to(values[0], (3, 3)), atol=1e-4)


@pytest.mark.slow
def test_an_example_is_alone_in_its_batch(x64):
    """The value and the steps of an example depend on the example and its key, and not on its neighbours."""
    denoiser = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[1.0, 1.0], [-1.0, -1.0]], [0.05, 0.2])
    x = np.asarray([[1.0, 1.0], [-0.5, 3.0], [0.01, 0.0], [4.0, -4.0]])
    together = ss.log_prob(denoiser, x, KEYS[:4], probes=2)
    assert len(set(np.asarray(together.accepted).tolist())) > 1
    for i in range(4):
        alone = ss.log_prob(denoiser, x[i : i + 1], KEYS[i : i + 1], probes=2)
        np.testing.assert_allclose(alone.value[0], together.value[i], rtol=1e-9)
        assert int(alone.nfe[0]) == int(together.nfe[i])


class Counting(ss.Denoiser):
    """`Counting` counts its calls on the host."""

    calls: list = None

    def predict(self, x, t, cond=None, *, keys=None):
        if self.calls is not None:
            io_callback(lambda: self.calls.append(1), None)
        return ss.Prediction.from_x0(self.sde, x, t, jnp.tanh(x))


@jax.tree_util.register_static
class Calls(list):
    __hash__ = object.__hash__


def test_nfe_is_what_was_evaluated():
    """One network evaluation gives the drift and the divergence of all probes."""
    calls = Calls()
    denoiser = Counting(ss.VP(), calls=calls)
    x = np.asarray([[0.3, -0.2]], np.float32)
    for options in ({"probes": 3}, {"trace": "exact"}):
        calls.clear()
        out = ss.log_prob(denoiser, x, KEYS[:1], **options)
        jax.effects_barrier()
        assert len(calls) == int(out.nfe[0]), options
        assert int(out.nfe[0]) == 6 * int(out.accepted[0] + out.rejected[0]) + 1
    calls.clear()
    walked = ss.sample(denoiser, ss.ProbabilityFlow(1e-3, 1e-3), [1.0, 1e-3], (2,), n=1, seed=0, denoise=False)
    jax.effects_barrier()
    assert len(calls) == int(walked.nfe[0])


@pytest.mark.parametrize("grid", [None, np.linspace(1e-5, 1, 9)], ids=["adaptive", "fixed"])
def test_a_solve_is_one_program_without_the_host(compiles, grid):
    denoiser = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[1.0, 1.0], [-1.0, -1.0]], 0.3)
    x = jnp.ones((4, 2))
    grid = None if grid is None else jnp.asarray(grid, x.dtype)
    arguments = (x, KEYS[:4], None, jnp.asarray([1e-5, 1e-5]), grid)
    options = {"trace": "hutchinson", "probes": 2, "probe": "rademacher", "chunk": 4, "precision": "highest"}
    jax.block_until_ready(_solve(denoiser, *arguments, **options))
    # The floats of the module become arrays on the device first, so that later calls need no transfer.
    denoiser = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, denoiser)
    jax.block_until_ready(_solve(denoiser, *arguments, **options))
    del compiles[:]
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(_solve(denoiser, *arguments, **options))
    text = str(jax.make_jaxpr(lambda x: _solve(denoiser, x, *arguments[1:], **options))(x))
    assert "callback" not in text
    # Other data, tolerances and parameters of the model compile nothing.
    other = ss.GaussianMixture(ss.VP(beta_max=10.0), [0.4, 0.6], [[1.0, 2.0], [-1.0, -1.0]], 0.2)
    ss.log_prob(ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[1.0, 1.0], [0.0, -1.0]], 0.3), x, KEYS[:4], probes=2)
    del compiles[:]
    ss.log_prob(other, x, KEYS[4:8], probes=2, rtol=1e-4)
    assert compiles == []


class Broken(ss.Denoiser):
    """`Broken` returns NaN wherever the first coordinate is above 1."""

    def predict(self, x, t, cond=None, *, keys=None):
        x0 = jnp.where(x[:, :1] > 1, jnp.nan, 0.5 * x)
        return ss.Prediction.from_x0(self.sde, x, t, x0)


def test_a_failed_solve_is_an_error_that_names_its_examples():
    denoiser = Broken(ss.VP())
    x = np.zeros((5, 3), np.float32)
    x[[1, 4], 0] = 1.5
    with pytest.raises(ss.DivergenceError, match=r"2 of 5 examples was not solved \(numbers 1, 4\): the step size"):
        ss.log_prob(denoiser, x, KEYS[:5])
    with pytest.raises(ss.DivergenceError, match=r"numbers 1, 4"):
        ss.encode(denoiser, x)
    # A compiled program cannot raise, so the value is NaN and never a wrong number.
    out = jax.jit(lambda x: ss.log_prob(denoiser, x, KEYS[:5]))(x)
    assert np.isnan(out.value).tolist() == [False, True, False, False, True]
    assert np.asarray(out.status).tolist() == [0, 2, 0, 0, 2]
    with pytest.raises(ss.DivergenceError, match="not finite"):
        ss.sample(denoiser, ss.ProbabilityFlow(), [1.0, 1e-3], (3,), n=8, seed=0)


def test_a_condition_reaches_the_model():
    sde = ss.VP()
    mixture = ss.GaussianMixture(sde, [0.5, 0.5], [[1.0, 1.0], [-1.0, -1.0]], 0.3)
    x = np.asarray([[1.0, 1.2], [-1.0, -0.8], [1.0, 1.2]], np.float32)
    labels = {"label": np.asarray([0, 1, 1]), "absent": {"label": np.asarray([False, False, True])}}
    out = ss.log_prob(mixture, x, None, cond=labels, trace="exact")
    parts = np.asarray(mixture.marginal(sde.t_min).component_log_prob(jnp.asarray(x)))  # `parts` has the weights 1/2
    exact = [parts[0, 0] + np.log(2), parts[1, 1] + np.log(2), np.logaddexp(*parts[2])]
    np.testing.assert_allclose(out.value, exact, atol=2e-2)  # the prior differs from the marginal at t_max


PRIOR_OF_ANOTHER_SHAPE = type("P", (), {"log_prob": lambda self, x: jnp.zeros((len(x), 1))})()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((2, 3), np.uint8)}, "dtype uint8.*bits_per_dim"),
        ({"x": np.full((2, 3), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros(3, np.float32)}, r"\(batch, \*shape\)"),
        ({"trace": "exakt"}, "'exakt'; expected one of hutchinson, exact"),
        ({"probes": 0}, "probes is 0"),
        ({"probe": "uniform"}, "'uniform'; expected one of rademacher, gaussian"),
        ({"keys": None}, "keys is None"),
        ({"keys": KEYS[:3]}, r"keys have shape \(3,\).* for 2"),
        ({"rtol": -1.0}, "rtol is -1.0"),
        ({"rtol": 0.0, "atol": 0.0}, "both 0"),
        ({"atol": "small"}, "atol is 'small'"),
        ({"cond": {"label": np.zeros(5, int)}}, r"cond\['label'\] has shape \(5,\); expected leading axis 2"),
        ({"prior": PRIOR_OF_ANOTHER_SHAPE}, r"returned shape \(2, 1\); expected \(batch,\) = \(2,\)"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_bad_input_is_refused(change, words):
    denoiser = ss.GaussianMixture(ss.VP(), [1.0], [np.zeros(3)], 0.5)
    arguments = {"x": np.zeros((2, 3), np.float32), "keys": KEYS[:2]} | change
    with pytest.raises(ss.InputError, match=words):
        ss.log_prob(denoiser, arguments.pop("x"), arguments.pop("keys"), **arguments)


def products(jaxpr):
    """Yield the precisions of all matrix products and convolutions, at any depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


@pytest.mark.slow
def test_what_is_solved_is_solved_with_full_products():
    """Solvers ask for full float32 products on every platform; GPUs and TPUs use 10 or 8 bits by default."""
    network = ss.networks.DDPMpp((4, 4, 1), channels=4, multipliers=(1,), blocks=1, attention=(4,), dropout=0.0)
    params = network.init(jax.random.key(0))
    denoiser = ss.NetworkDenoiser(ss.VP(), ss.Noise(), network, params)
    x, keys = jnp.zeros((2, 4, 4, 1)), jax.random.split(jax.random.key(0), 2)
    grid = jnp.asarray([1.0, 1e-3])
    for name, function in {
        "log_prob": lambda x: ss.log_prob(denoiser, x, keys).value,
        "log_prob, exact": lambda x: ss.log_prob(denoiser, x, None, trace="exact").value,
        "encode": lambda x: ss.encode(denoiser, x).x,
        "ProbabilityFlow": lambda x: ss.ProbabilityFlow().step(keys, denoiser, x, grid[0], grid[1], ())[0],
    }.items():
        precisions = list(products(jax.make_jaxpr(function)(x).jaxpr))
        assert len(precisions) > 10, name
        assert all(precision == (jax.lax.Precision.HIGHEST,) * 2 for precision in precisions), (name, set(precisions))
    defaults = list(products(jax.make_jaxpr(lambda x: network.apply(params, x, jnp.ones(2)))(x).jaxpr))
    assert any(precision != (jax.lax.Precision.HIGHEST,) * 2 for precision in defaults)


@pytest.mark.slow
def test_what_two_devices_solve_is_what_one_solves():
    """Two devices give the values of one device in a process of its own; XLA has more threads than devices here."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    command = [sys.executable, "-m", "tests.sharded_likelihood"]
    run = subprocess.run(
        command,
        cwd=pathlib.Path(__file__).parent.parent,
        env=environment | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 2e-3
