"""Training with a variance: a head on frozen weights, loss-aware times with a state, a learned schedule."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import score_sde as ss
from configs import digits
from score_sde import parallel
from score_sde.core import keys as keys_
from score_sde.experiment import Experiment, load_trained, make_step
from score_sde.jobs import train
from score_sde.networks import Network
from tests.test_bound import tiny


def test_a_head_is_trained_on_weights_that_keep_their_bits(tmp_path):
    config = tiny("ddpm")
    train(config, tmp_path / "mean")
    config = tiny("ddpm,moments")
    config.objective.head_only = True
    with pytest.raises(ss.InputError, match=r"SecondMoment trains on frozen weights.*train\.start_from is empty"):
        train(config, tmp_path / "head")
    config.train.start_from = str(tmp_path / "mean")
    train(config, tmp_path / "head")
    before, after = (load_trained(tmp_path / name) for name in ("mean", "head"))
    jax.tree.map(np.testing.assert_array_equal, before.params["network"], after.params["network"])
    assert sorted(after.params) == ["network", "variance"]
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(after.params["variance"])) > 0
    both = ss.load(tmp_path / "head").denoiser
    x, t = jnp.ones((2, 8, 8, 1)), jnp.asarray([0.2, 0.7])
    alone = ss.load(tmp_path / "mean").denoiser.predict(x, t)
    np.testing.assert_array_equal(both.predict(x, t).x0, alone.x0)
    assert both.predict(x, t).variance is not None


def run(devices, steps=24, start=None):
    """Return the state of a run with loss-aware times after some steps on these devices."""
    config = tiny("ddpm,variational")
    config.sde.n, config.objective.times = 4, dict(name="LossAware", history=2)
    experiment = Experiment.from_config(config)
    strategy = parallel.Jit(devices)
    step, arrays = make_step(experiment, devices=strategy)
    state = strategy.place_state(experiment.init_state() if start is None else start)
    values = experiment.examples("train").batch(np.arange(16))
    compiled = strategy.compile(step, state)
    for _ in range(int(state.step), steps):
        batch = dict(values=values["values"], cond=None, index=np.arange(16, dtype=np.uint32))
        state, _ = compiled(state, strategy.place_batch(batch, 16), arrays)
    return jax.tree.map(np.asarray, state)


def test_the_history_of_losses_is_the_same_on_one_device_and_two_and_after_a_stop():
    one, two = run(jax.devices()[:1]), run(jax.devices()[:2])
    np.testing.assert_array_equal(one.objective.counts, two.objective.counts)
    assert one.objective.counts.min() >= 2
    assert one.objective.counts.sum() == 24 * 16
    np.testing.assert_allclose(one.objective.losses, two.objective.losses, rtol=2e-3)
    stopped = run(jax.devices()[:1], 24, start=run(jax.devices()[:1], 11))
    jax.tree.map(np.testing.assert_array_equal, one, stopped)
    # The times follow the losses: they are not those of even levels any more.
    assert np.ptp(one.objective.counts) > 0


class Ideal(Network):
    """`Ideal` predicts the noise of Gaussian data exactly; its label is the log signal-to-noise ratio."""

    shape = (2,)
    std = 0.5

    def init(self, key):
        return {"unused": jnp.zeros(())}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        alpha2 = jax.nn.sigmoid(time_label)[:, None]
        return jnp.sqrt(1 - alpha2) * x / (alpha2 * self.std**2 + 1 - alpha2) + 0 * params["unused"]


def log_snr(sde, t):
    return sde.log_snr(t)


def test_a_learned_schedule_has_the_least_variance_of_the_loss():
    """For N(0, S^2), noise - E[noise | x_t] ~ N(0, h), h = alpha^2 S^2 / v. With g = -log SNR and the loss

    L = g' |e|^2 / 2, E L^2 is the integral of g'^2 m / 4 over t, m(g) = E |e|^4 = D (D + 2) h^2; its least value
    between fixed ends is (integral of sqrt(m) / 2 over g)^2 (Cauchy-Schwarz), where g' sqrt(m) is constant.
    """
    std, size = Ideal.std, 2
    sde = ss.LearnedVP(log_snr_min=-6.0, log_snr_max=6.0)
    levels = np.linspace(-6, 6, 20001)
    alpha2 = 1 / (1 + np.exp(-levels))
    h = alpha2 * std**2 / (alpha2 * std**2 + 1 - alpha2)
    least = np.trapezoid(np.sqrt(size * (size + 2)) * h / 2, levels) ** 2

    codec = ss.ContinuousCodec((2,))
    parts = ss.losses.Parts(sde, ss.Noise(log_snr), Ideal(), codec, ss.Conditions(), 2048)
    objective = ss.losses.LearnedSchedule(parts)
    objective.check()
    params, state = objective.init(keys_.stream(0, "init"))
    values = jnp.asarray(std * np.random.default_rng(0).standard_normal((2048, 2)), jnp.float32)
    batch = dict(values=values, cond=None, index=jnp.arange(2048, dtype=jnp.uint32))

    def losses(schedule, key):
        out, _, _ = objective(
            params | {"schedule": schedule}, state, batch, key, step=0, averages={}, frozen={"codec": codec},
            across=ss.losses.WholeBatch(), train=True,
        )  # fmt: skip
        return out

    def of_schedule(schedule, key):
        return jnp.mean(losses(schedule, key)["schedule"])

    optimizer = optax.adam(0.05)

    @jax.jit
    def update(carry, key):
        schedule, memory = carry
        change, memory = optimizer.update(jax.grad(of_schedule)(schedule, key), memory)
        return optax.apply_updates(schedule, change), memory

    start = params["schedule"]
    carry = (start, optimizer.init(start))
    for key in jax.random.split(jax.random.key(5), 400):
        carry = update(carry, key)
    trained = carry[0]
    nats = (size * np.log(2)) ** 2
    of_each = {}
    for name, schedule in (("start", start), ("trained", trained)):
        found = [losses(schedule, key) for key in jax.random.split(jax.random.key(6), 20)]
        of_each[name] = [float(np.mean([one[group] for one in found])) for group in ("network", "schedule")]
    assert of_each["start"][0] == pytest.approx(of_each["trained"][0], rel=0.03)  # the mean does not depend on it
    assert of_each["start"][1] * nats > 1.3 * least
    assert least * 0.93 < of_each["trained"][1] * nats < 1.06 * least


def test_a_model_has_the_schedule_that_was_learned(tmp_path):
    config = tiny("learned")
    config.eval.what = "HeldOutLoss"
    train(config, tmp_path)
    model, trained = ss.load(tmp_path), load_trained(tmp_path)
    weights = trained.params["schedule"]["weights"]
    np.testing.assert_array_equal(model.denoiser.sde.weights, weights)
    assert np.abs(np.asarray(weights) - ss.LearnedVP().weights).max() > 0
    assert model.sample(2, sampler=ss.DDIM()).x.shape == (2, 8, 8, 1)


def test_the_schedule_has_its_ends_and_falls(x64):
    weights = np.random.default_rng(0).normal(size=9) * 3
    sde = ss.LearnedVP(log_snr_min=-5.0, log_snr_max=10.0, units=8, weights=weights)
    t = np.linspace(0, 1, 1001)
    level = np.asarray(sde.log_snr(t))
    np.testing.assert_allclose(level[[0, -1]], [10, -5], rtol=1e-6)
    assert np.all(np.diff(level) < 0)
    np.testing.assert_allclose(np.asarray(sde.alpha(t)) ** 2 + np.asarray(sde.variance(t)), 1, rtol=1e-12)
    for bad in (dict(units=0), dict(log_snr_min=3.0, log_snr_max=2.0), dict(weights=np.zeros(3))):
        with pytest.raises(ss.InputError, match="LearnedVP"):
            ss.LearnedVP(**bad)


def test_the_uncertainty_of_a_level_is_its_loss():
    """The minimiser of L exp(-u) + u is u = log L."""
    config = tiny("uncertainty")
    objective = Experiment.from_config(config).objective
    t = jnp.linspace(0.05, 0.95, 64)
    loss = jnp.exp(-2 * t)
    _, _ = objective.init(keys_.stream(0, "init"))
    weights = {"weights": jnp.zeros(129)}

    def total(weights):
        u = objective.uncertainty(weights, t)
        return jnp.mean(loss * jnp.exp(-u) + u)

    optimizer = optax.adam(0.03)
    memory = optimizer.init(weights)
    for _ in range(300):
        change, memory = optimizer.update(jax.grad(total)(weights), memory)
        weights = optax.apply_updates(weights, change)
    np.testing.assert_allclose(objective.uncertainty(weights, t), jnp.log(loss), atol=0.05)


def test_the_early_loss_has_the_variance_of_the_level_before(x64):
    """With the exact denoiser the loss at t is Var(x_s | x_t) / v, in closed form for Gaussian data."""

    class Exact(Network):
        shape = (2,)

        def init(self, key):
            return {"unused": jnp.zeros(())}

        def apply(self, params, x, time_label, cond=None, *, keys=None):
            t = (time_label + 1) / 20
            denoiser = ss.GaussianMixture(chain, [1.0], [[0.0, 0.0]], 0.6)
            return denoiser.predict(x, t).noise

    chain, n = ss.DDPM(20), 20_000
    codec = ss.ContinuousCodec((2,))
    parts = ss.losses.Parts(chain, ss.Noise("index"), Exact(), codec, ss.Conditions(), n)
    objective = ss.losses.PreviousSample(parts)
    values = 0.6 * np.random.default_rng(0).standard_normal((n, 2))
    batch = dict(values=jnp.asarray(values), cond=None, index=jnp.arange(n, dtype=jnp.uint32))
    params, _ = objective.init(keys_.stream(0, "init"))
    for t in (0.05, 0.5, 1.0):
        loss = np.asarray(objective.at_time(t, params, batch, keys_.stream(0, "train"), frozen={"codec": codec}))
        marginal = [float(chain.alpha(u)) ** 2 * 0.36 + float(chain.variance(u)) for u in (t - 0.05, t)]
        r, v = (float(part) for part in chain.transition(t - 0.05, t))
        expected = (marginal[0] - (r * marginal[0]) ** 2 / marginal[1]) / v
        assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(n)
    with pytest.raises(ss.InputError, match="PreviousSample needs the levels of a chain"):
        ss.losses.PreviousSample(dataclasses.replace(parts, sde=ss.VP()), times="uniform").check()


def test_the_mean_of_the_level_before_is_that_of_the_chain(x64):
    chain = ss.DDPM(20)
    t = jnp.asarray([0.05, 0.5, 1.0])
    x0, noise = (jnp.asarray(np.random.default_rng(i).standard_normal((3, 2))) for i in (0, 1))
    x = chain.perturb(x0, noise, t)
    s = t - 0.05
    r, v = chain.transition(s, t)
    pull, share = r * chain.variance(s) / chain.variance(t), chain.alpha(s) * v / chain.variance(t)
    predicted = ss.PreviousMean().predict(chain, x, t, pull[:, None] * x + share[:, None] * x0)
    np.testing.assert_allclose(predicted.x0, x0, rtol=1e-8)
    np.testing.assert_allclose(predicted.noise, noise, rtol=1e-8)
    with pytest.raises(ss.InputError, match="PreviousMean needs the level before t"):
        ss.NetworkDenoiser(ss.VP(), ss.PreviousMean(), Ideal(), {})


def test_frozen_parts_do_not_change_under_an_average():
    average = ss.Experiment.from_config(digits.get_config()).averages["ema"]
    params = {"a": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    kept = average.start(params)
    for step in range(20):
        kept = average.update(kept, params, step)
    np.testing.assert_array_equal(kept["a"], params["a"])
    assert not eqx.tree_equal(average.update(kept, {"a": params["a"] + 1}, 3), kept)
