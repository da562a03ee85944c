"""This module tests `verify`: a right object passes, and a wrong object fails for the expected reason."""

import dataclasses
import importlib
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.verify import Check, laws, target, verify
from score_sde.verify import report as report_
from score_sde.verify.__main__ import main

QUICK = {"ClaimsTwo", "NotFinite", "OneKey", "Loose", "Raises", "Still", "WrongSign"}


def cases(rows, in_ci=5):
    """Return a case for each row, named after the first entry; one in `in_ci` of the slow cases is not long."""
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    late = [row for row in rows if type(row[0]).__name__ not in QUICK]
    marks = {id(row): [pytest.mark.long if place % in_ci else pytest.mark.slow] for place, row in enumerate(late)}
    return [pytest.param(*row, id=str(row[0]), marks=marks.get(id(row), [])) for row in rows]


def own(keys, x):
    """Return noise that is drawn with the key of each sample."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)


def once(x):
    return jnp.ones(len(x), jnp.int32)


class Reciprocal(ss.SDE):
    """`Reciprocal` is a right SDE: alpha = 1 / (1 + 9 t), and variance = 1 - alpha^2 without loss of digits."""

    def alpha(self, t):
        return 1 / (1 + 9 * t)

    def variance(self, t):
        return 9 * t * (2 + 9 * t) / (1 + 9 * t) ** 2


class FromNothing(ss.SDE):
    """`FromNothing` is a right SDE without noise at t_min = 0, with another t_max and fields that are no numbers."""

    kind: str = "ou"
    square: bool = True
    t_min = 0.0
    t_max = 5.0

    def log_alpha(self, t):
        t = jnp.asarray(t)
        return -(t**2 if self.square else t) / 4

    def variance(self, t):
        assert self.kind == "ou"
        return -jnp.expm1(2 * self.log_alpha(t))


class Cubic(ss.SDE):
    """`Cubic` is a right SDE with alpha = exp(-3 t^3) and variance = t^2; alpha rounds to 1 near the data."""

    def alpha(self, t):
        return jnp.exp(-3 * jnp.asarray(t) ** 3)

    def variance(self, t):
        return jnp.asarray(t) ** 2


RIGHT_SDES = [
    Reciprocal(),
    FromNothing(),
    Cubic(),
    ss.DiscreteVP(100),
    ss.Chain(alpha=[0.9, 0.7, 0.5, 0.3, 0.2], variance=[0.1, 0.3, 0.6, 0.8, 0.9]),
    ss.Chain(alpha=np.sqrt(np.linspace(0.999, 0.0, 100)), variance=np.linspace(0.001, 1.0, 100)),
]


class OtherDrift(ss.VP):
    def drift(self, x, t):
        return 1.2 * super().drift(x, t)


class OtherDriftRate(Reciprocal):
    def drift_rate(self, t):
        return -9 / (1 + 9 * t) ** 2


class OtherDiffusion(ss.VE):
    def diffusion(self, t):
        return self.sigma(t)


class OtherPrior(ss.VE):
    prior_std = 40.0


class OtherPriorDraws(ss.VP):
    def sample_prior(self, keys, shape):
        return 0.9 * super().sample_prior(keys, shape)


class OnePriorKey(ss.VP):
    def sample_prior(self, keys, shape):
        return jax.random.normal(keys[0], (len(keys), *shape))


class RisingSNR(ss.SDE):
    """`RisingSNR` has a signal that rises after t = 0.7."""

    def alpha(self, t):
        return 1 - 0.9 * jnp.sin(jnp.pi * t / 1.4)

    def variance(self, t):
        return jnp.asarray(t) ** 2 / 2


class NoSignalOnAStretch(ss.SDE):
    def alpha(self, t):
        return jnp.maximum(1 - 1.3 * jnp.asarray(t), 0)

    def variance(self, t):
        return jnp.asarray(t) ** 2


class LosesDigits(ss.SDE):
    """`LosesDigits` subtracts alpha^2 from 1, which leaves no digits in float32 near the data."""

    def alpha(self, t):
        return jnp.cos(1.5 * jnp.asarray(t))

    def variance(self, t):
        return 1 - self.alpha(t) ** 2


class OtherTimeOf(ss.VP):
    def time_of(self, log_snr):
        return 0.5 + 0 * jnp.asarray(log_snr)


class OtherRates(ss.VP):
    def velocity_rates(self, t):
        alpha_rate, sigma_rate = super().velocity_rates(t)
        return alpha_rate, 1.1 * sigma_rate


class CopiedPrior(ss.VP):
    """`CopiedPrior` draws one number for all dimensions."""

    def sample_prior(self, keys, shape):
        x = super().sample_prior(keys, (1,))
        return jnp.broadcast_to(x.reshape(-1, *[1] * len(shape)), (len(keys), *shape))


class NoDensity(ss.VP):
    def prior_log_prob(self, x):
        return jnp.nan * super().prior_log_prob(x)


class NegativeVariance(ss.VP):
    def variance(self, t):
        return super().variance(t) - 0.01


class OtherKernel(ss.VP):
    def transition(self, s, t):
        r, v = super().transition(s, t)
        return r, 2 * v


class Kinked(ss.SDE):
    """`Kinked` has a continuous log alpha with a corner at t = 0.5."""

    def log_alpha(self, t):
        return -4 * t - 4 * jnp.maximum(t - 0.5, 0)

    def variance(self, t):
        return -jnp.expm1(2 * self.log_alpha(t))


DRIFT, DIFFUSION = "drift is (log alpha)' x", "g^2 is variance' - 2 f variance"
VALID, FALLS, PRIOR = "alpha and variance are valid", "log-SNR falls", "prior draws and density"
DERIVED = "log_alpha, sigma, log_snr, kernel, perturb"
WRONG_SDES = [
    (OtherDrift(), {DRIFT}, {"g^2", "prior", "velocity"}),
    (OtherDriftRate(), {DRIFT}, {"prior", "log-SNR"}),
    (OtherDiffusion(), {DIFFUSION}, {"drift", "prior", "velocity"}),
    (OtherPrior(), {"prior_std is sigma(t_max)"}, {"drift", "g^2", "velocity", "float32"}),
    (OtherPriorDraws(), {PRIOR}, {"drift", "prior_std", "velocity"}),
    (CopiedPrior(), {PRIOR}, {"drift", "prior_std", "velocity"}),
    (NoDensity(), {PRIOR}, {"drift", "prior_std", "velocity"}),
    (RisingSNR(), {FALLS}, {"drift", "prior", "velocity"}),
    (NoSignalOnAStretch(), {FALLS}, {"drift", "prior"}),
    (NegativeVariance(), {VALID}, {"drift", "prior"}),
    (LosesDigits(), {"float32 keeps alpha and variance"}, {"drift", "g^2", "velocity", "prior_std"}),
    (OtherKernel(), {DERIVED}, {"drift", "g^2", "prior", "velocity"}),
    (OtherTimeOf(), {"time_of and the default grid"}, {"drift", "g^2", "prior", "velocity"}),
    (OtherRates(), {"velocity rates are alpha' and sigma'"}, {"drift", "g^2", "prior"}),
]
WRONG_IN_SIMULATION = [
    (OtherDrift(), {DRIFT}, {"g^2", "prior", "likelihood", "velocity"}),
    (OtherPrior(), {"prior_std is sigma(t_max)"}, {"drift", "g^2", "forward", "time reversal", "likelihood"}),
    (OnePriorKey(), {"sample i does not depend on the batch"}, {"drift", "forward", "time reversal", "prior"}),
    (Kinked(), {DRIFT, DIFFUSION, "velocity rates are alpha' and sigma'"}, {"prior", "float32", "log-SNR"}),
]


def check(thing, reasons, sound, **options):
    """Check that `thing` fails for the reasons, and that the sound checks were made and did not fail."""
    report = verify(thing, **options)
    assert not report.passed and reasons <= set(report.failed), report
    assert not [name for name in report.failed if name.startswith(tuple(sound))], report
    for prefix in sound:
        assert any(entry.name.startswith(prefix) for entry in report.checks), prefix
    return report


@pytest.mark.parametrize(("sde", "reasons", "sound"), WRONG_SDES, ids=lambda value: type(value).__name__)
def test_a_wrong_sde_fails_for_its_own_reason(sde, reasons, sound, monkeypatch):
    """The first failed check of a wrong SDE is an expected reason; simulations are omitted to save time."""
    monkeypatch.setattr(importlib.import_module("score_sde.verify.sde"), "_of_what_is_simulated", lambda *_: [])
    report = check(sde, reasons, sound)
    assert report.failed[0] in reasons, report


@pytest.mark.parametrize(("sde", "reasons", "sound"), cases(WRONG_IN_SIMULATION))
def test_a_wrong_sde_fails_for_no_other_reason(sde, reasons, sound):
    report = check(sde, reasons, sound)
    assert set(report.failed) == reasons, report


@pytest.mark.parametrize("sde", cases(RIGHT_SDES, in_ci=5))
def test_a_right_sde_passes(sde):
    report = verify(sde, mixture=ss.Mixture([1.0, 1.0, 2.0], [[0.5, 0, 1], [-1, 1, 0], [0, 0, -1]], [0.2, 0.4, 0.3]))
    assert report.passed, report


@dataclasses.dataclass(frozen=True)
class TwoDt(ss.Sampler):
    """`TwoDt` is Euler-Maruyama with noise of 2 dt in place of sqrt(2 dt), for g^2 = 2."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        sde, dt = denoiser.sde, t - s
        g2 = sde.diffusion_squared(t)
        mean = x - dt * (sde.drift(x, t) - g2 * denoiser.score(x, t))
        return mean + jnp.sqrt(g2 / 2) * 2 * dt * own(keys, x), state, once(x)


@dataclasses.dataclass(frozen=True)
class AlphaOfTheWrongTime(ss.Sampler):
    """`AlphaOfTheWrongTime` is DDIM with alpha(t) in place of alpha(s)."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        predicted = denoiser.predict(x, t, cond)
        x0, noise = predicted.x0, predicted.noise
        return denoiser.sde.alpha(t) * x0 + denoiser.sde.sigma(s) * noise, state, once(x)


@dataclasses.dataclass(frozen=True)
class OneKey(ss.Sampler):
    """`OneKey` is ancestral sampling with noise from one key for the whole batch."""

    def noise(self, keys, x):
        return jax.random.normal(keys[0], x.shape, x.dtype)

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        sde = denoiser.sde
        _, v = sde.transition(s, t)
        tau2 = v * sde.variance(s) / sde.variance(t)
        predicted = denoiser.predict(x, t, cond)
        x0, noise = predicted.x0, predicted.noise
        mean = sde.alpha(s) * x0 + jnp.sqrt(sde.variance(s) - tau2) * noise
        return mean + jnp.sqrt(tau2) * self.noise(keys, x), state, once(x)


class SharedNoise(OneKey):
    """`SharedNoise` draws the same noise for every sample."""

    def noise(self, keys, x):
        return jnp.broadcast_to(jax.random.normal(keys[0], x.shape[1:], x.dtype), x.shape)


class FixedNoise(OneKey):
    """`FixedNoise` draws the same noise in every call."""

    def noise(self, keys, x):
        return jax.random.normal(jax.random.key(3), x.shape[1:], x.dtype) + 0 * x


class Uncounted(OneKey):
    def noise(self, keys, x):
        return own(keys, x)

    def step(self, *args, **kwargs):
        x, state, nfe = super().step(*args, **kwargs)
        return x, state, 2 * nfe


@dataclasses.dataclass
class Loose(ss.Sampler):
    """`Loose` is not frozen."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return x, state, once(x)


@dataclasses.dataclass(frozen=True)
class Raises(ss.Sampler):
    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return jnp.concatenate([x, x[:, :0, None]]), state, once(x)


@dataclasses.dataclass(frozen=True)
class Single(ss.Sampler):
    """`Single` is DDIM that returns float32 for every dtype of x."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        out, state, nfe = ss.DDIM().step(keys, denoiser, x, t, s, state, cond)
        return out.astype(jnp.float32), state, nfe


@dataclasses.dataclass(frozen=True)
class ClaimsTwo(ss.DDIM):
    """`ClaimsTwo` has order 1 and declares order 2."""

    convergence_order = 2


@dataclasses.dataclass(frozen=True)
class NotFinite(ss.Sampler):
    """`NotFinite` is DDIM that divides by zero below a time."""

    below: float

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        x, state, nfe = ss.DDIM().step(keys, denoiser, x, t, s, state, cond)
        return x / jnp.where(s < self.below, 0, 1), state, nfe


STEP_X0, STEP_NOISE = "one step: factor on x_0", "one step: factor on the noise"
BATCH, APART = "sample i does not depend on the batch", "noise of different samples is independent"
WRONG_SAMPLERS = [
    (TwoDt(), {STEP_NOISE, "order of convergence"}, {STEP_X0, BATCH, APART, "nfe", "a step"}),
    (AlphaOfTheWrongTime(), {STEP_X0, "order of convergence"}, {STEP_NOISE, BATCH, APART, "nfe", "a step"}),
    (OneKey(), {BATCH}, {APART, STEP_X0, STEP_NOISE, "marginal", "nfe", "a step"}),
    (SharedNoise(), {BATCH, APART}, {STEP_X0, "nfe", "a step"}),
    (FixedNoise(), {STEP_NOISE}, {BATCH, STEP_X0, "nfe", "a step"}),
    (Uncounted(), {"nfe is the evaluation count"}, {STEP_X0, STEP_NOISE, BATCH, APART, "marginal", "order", "a step"}),
    (Loose(), {"frozen and hashable"}, {"marginal", "a step"}),
    (Raises(), {"a step keeps shape and dtype"}, {"frozen"}),
    (Single(), {"a step keeps shape and dtype"}, {STEP_X0, STEP_NOISE, BATCH, "marginal: energy"}),
    (ClaimsTwo(), {"order of convergence"}, {STEP_X0, STEP_NOISE, BATCH, "marginal", "a step"}),
    (NotFinite(2.0), {"a step of finite x is finite"}, {STEP_X0, STEP_NOISE, BATCH, "marginal", "order", "nfe"}),
]


@pytest.mark.parametrize(("sampler", "reasons", "sound"), cases(WRONG_SAMPLERS))
def test_a_wrong_sampler_fails_for_its_own_reason(sampler, reasons, sound):
    check(sampler, reasons, sound, on=["VP"])


@pytest.mark.slow
def test_what_is_not_finite_is_no_question_of_steps():
    report = verify(NotFinite(0.01), on=["VP"])
    notes = {entry.name: entry.note for entry in report.checks if entry.result == "FAIL"}
    assert {"marginal: moments", "marginal: energy distance"} <= notes.keys() and "use more steps" not in str(report)
    assert "not finite" in notes["marginal: moments"]


def test_an_order_that_is_claimed_from_outside():
    (order_check,) = [
        entry for entry in verify(ss.DDIM(), on=["VP"], order=1.5).checks if entry.name.startswith("order")
    ]
    assert order_check.result == "FAIL" and order_check.bound == pytest.approx(1.2) and 0.7 < order_check.figure < 1.2
    for thing, order in ((ss.VP(), 2), (ss.DDIM(), 0), (ss.DDIM(), float("nan")), (ss.DDIM(), "2"), (ss.Noise(), 1)):
        with pytest.raises(ss.InputError, match=r"^order is .*expected"):
            verify(thing, order=order)


def test_nothing_is_simulated_with_what_is_wrong():
    checks = {entry.name: entry for entry in verify(OtherKernel()).checks}
    assert checks[DERIVED].result == "FAIL"
    assert {checks[f"time reversal: {name}"].result for name in ("moments", "energy distance")} == {"-"}
    assert repr(DERIVED) in checks["time reversal: moments"].note


@dataclasses.dataclass(frozen=True)
class Unadjusted(ss.Corrector):
    """`Unadjusted` is a Langevin step of e = 0.02 sigma^2; a subclass may replace the noise."""

    def noise(self, e, keys, x):
        return jnp.sqrt(2 * e) * own(keys, x)

    def correct(self, keys, denoiser, x, t, cond=None):
        e = 0.02 * denoiser.sde.variance(t)
        return x + e * denoiser.score(x, t, cond) + self.noise(e, keys, x), once(x)


class TwoE(Unadjusted):
    def noise(self, e, keys, x):
        return 2 * e * own(keys, x)


class OneCorrectorKey(Unadjusted):
    def noise(self, e, keys, x):
        return jnp.sqrt(2 * e) * jax.random.normal(keys[0], x.shape, x.dtype)


class Still(Unadjusted):
    def correct(self, keys, denoiser, x, t, cond=None):
        return x, 0 * once(x)


class LessNoise(Unadjusted):
    """`LessNoise` adds noise that is 6 % too small."""

    def noise(self, e, keys, x):
        return jnp.sqrt(1.77 * e) * own(keys, x)


CALL = "one call: factor on the noise"
KEPT = {"keeps the marginal, mostly noise: moments", "keeps the marginal, mostly data: moments"}
WRONG_CORRECTORS = [
    (LessNoise(), {CALL}, {BATCH, APART, "nfe", "a call"}),
    (TwoE(), {CALL, *KEPT}, {BATCH, APART, "nfe", "a call"}),
    (OneCorrectorKey(), {BATCH}, {*KEPT, APART, "nfe", "a call", "converges"}),
    (Still(), {"converges from another distribution"}, {*KEPT, BATCH, "nfe", "a call"}),
    (ss.Langevin(norms="batch"), {BATCH}, {*KEPT, APART, "nfe", "a call", "converges"}),
    (ss.Langevin(norms="sample"), KEPT, {BATCH, APART, "nfe", "a call"}),
]


@pytest.mark.parametrize(("corrector", "reasons", "sound"), cases(WRONG_CORRECTORS))
def test_a_wrong_corrector_fails_for_its_own_reason(corrector, reasons, sound):
    check(corrector, reasons, sound, on=["VP"])


class WrongSign(ss.Noise):
    def coefficients(self, sde, t):
        (a, b), noise = super().coefficients(sde, t)
        return (a, -b), noise


class OneLabel(ss.X0):
    def label(self, sde, t):
        return 0 * t


HALVES = "alpha x_0 + sigma noise is x_t"
WRONG_PARAMETRIZATIONS = [
    (WrongSign(), {HALVES}, {"the label", "the input"}),
    (OneLabel(), {"the label is strictly monotone in t"}, {HALVES, "likelihood", "samples", "the input"}),
    (ss.Score(time_label=lambda sde, t: jnp.sin(9 * t)), {"the label is strictly monotone in t"}, {HALVES, "samples"}),
]


@pytest.mark.parametrize(("meaning", "reasons", "sound"), cases(WRONG_PARAMETRIZATIONS))
def test_a_wrong_parametrization_fails_for_its_own_reason(meaning, reasons, sound):
    check(meaning, reasons, sound, on=["VP"])


class Signal(ss.Parametrization):
    """`Signal` has F = alpha x_0, and does not check for alpha = 0."""

    def coefficients(self, sde, t):
        return (0.0, 1 / sde.alpha(t)), (1 / sde.sigma(t), -1 / sde.sigma(t))


@dataclasses.dataclass(frozen=True)
class Varying(ss.Sampler):
    """`Varying` is Heun's method with an Euler step at the end, which takes one network evaluation (as in EDM)."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        def heun(x):
            return ss.Heun().step(keys, denoiser, x, t, s, (), cond)[0], 2 * once(x)

        def euler(x):
            return ss.Euler().step(keys, denoiser, x, t, s, (), cond)[0], once(x)

        x, nfe = jax.lax.cond(s <= 1.01 * denoiser.sde.t_stop, euler, heun, x)
        return x, state, nfe


@dataclasses.dataclass(frozen=True)
class Forgets(ss.Sampler):
    """`Forgets` is DDIM that ignores the condition, which is right for a model without conditions."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return ss.DDIM().step(keys, denoiser, x, t, s, state)


RIGHT = [
    *(Unadjusted(), ss.AnnealedLangevin(0.1, 30), Signal()),
    *(ss.Heun(gamma=0.3), Varying(), Forgets()),
]


@pytest.mark.parametrize("thing", cases(RIGHT))
def test_what_is_right_passes_on_one_sde(thing):
    report = verify(thing, on=["VP"])
    assert report.passed, report


@pytest.mark.slow
def test_where_alpha_is_0_a_parametrization_may_not_serve():
    report = verify(Signal(), on=["RectifiedFlow", "VE"])
    assert report.passed and "alpha = 0" in report.checks[0].note, report


SAMPLERS = [
    *(ss.EulerMaruyama(), ss.EulerMaruyama(noise=0.4), ss.EulerMaruyama(noise=1.5), ss.ReverseDiffusion()),
    *(
        ss.Ancestral(),
        ss.Ancestral("forward"),
        ss.Ancestral("optimal"),
        ss.DDIM(),
        ss.DDIM(eta=0.6),
        ss.EulerAncestral(),
    ),
    *(ss.Euler(), ss.Heun(), ss.Heun(gamma=0.05), ss.DPMSolverPP(), ss.DPMSolverPP2S(), ss.LMS(), ss.DPM2()),
    *(ss.DPM2Ancestral(), ss.ProbabilityFlow(), ss.AdaptiveReverseSDE()),
    *(ss.DPMSolverPP(order=3), ss.DPMSolverPP(eta=1.0), ss.DPMSolverPP(order=3, eta=1.0), ss.DPMSolverPPSDE()),
    *(ss.UniPC(order=1), ss.UniPC(order=2, variant="bh1"), ss.UniPC(), ss.PNDM(), ss.SRA1(), ss.LMSAncestral()),
    *(ss.SASolver(), ss.SASolver(2, 0.5, corrector=2, s_min=0.05, s_max=1.0), ss.Restart()),
    ss.PredictorCorrector(ss.ReverseDiffusion(), ss.Langevin()),
]
OTHERS = [
    *(ss.Langevin(), ss.AnnealedLangevin()),
    *(ss.Noise(), ss.Score(), ss.X0(), ss.Velocity(), ss.VPrediction(), ss.Preconditioned(), ss.PreviousMean()),
    *(ss.VP(), ss.SubVP(), ss.VE(), ss.CosineVP(), ss.SigmoidVP(), ss.EDM(), ss.RectifiedFlow(), ss.LearnedVP()),
    *(ss.DDPM(), ss.CosineDDPM(), ss.DiscreteVP(), ss.SMLD(), ss.SMLD(250).smooth()),
]
SLOW = {f"{target.kind_of(thing)} {str(thing).split('(log_')[0]}": thing for thing in SAMPLERS + OTHERS}


# CI tests one object of each kind; the other tests are long.
IN_CI = [
    *("Heun(gamma=0.05", "corrector Langevin(", "Preconditioned(", "SDE RectifiedFlow("),
]


ON = {"PreviousMean": ["DiscreteVP"]}  # a built-in that needs a chain


def built_ins():
    in_ci = {name for name in SLOW if any(part in name for part in IN_CI)}
    return [pytest.param(name, marks=pytest.mark.slow if name in in_ci else pytest.mark.long) for name in SLOW]


@pytest.mark.parametrize("name", built_ins())
def test_built_ins_pass(name):
    """Every built-in passes on VP; `python tests/test_verify.py` tests every built-in on all SDEs."""
    report = verify(
        SLOW[name], on=ON.get(name.split("(")[0].split()[-1], ["VP"]) if not name.startswith("SDE") else None
    )
    jax.clear_caches()
    assert report.passed, report


def test_every_built_in_is_among_them():
    tested = {type(thing).__name__ for thing in SLOW.values()}
    public = [getattr(ss, name) for name in ss.__all__]
    kinds = (ss.SDE, ss.Sampler, ss.Corrector, ss.Parametrization)
    classes = {value.__name__ for value in public if isinstance(value, type) and issubclass(value, kinds)}
    assert classes - tested == {"SDE", "Chain", "Sampler", "Corrector", "Parametrization"}


@pytest.mark.slow
def test_the_command(capsys):
    assert main(["score_sde.sampling:DDIM", "--on=DiscreteVP"]) == 0
    text = capsys.readouterr().out
    assert "DDIM(eta=0.0), sampler" in text and "PASS: 12 passed, 0 failed" in text
    assert main([f"{__name__}:OneLabel", "--json", "--on=SubVP"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "parametrization" and result["passed"] is False
    failed = [check for check in result["checks"] if check["result"] == "FAIL"]
    assert [check["name"] for check in failed] == ["the label is strictly monotone in t"]
    assert failed[0]["figure"] > failed[0]["bound"] and "rise" in failed[0]["note"]


def test_a_condition_that_is_dropped_is_told():
    (condition_check,) = [
        entry for entry in verify(Forgets(), on=["RectifiedFlow"]).checks if entry.name.startswith("cond")
    ]
    assert condition_check.result == "-" and "as if it had no condition" in condition_check.note


class Outer:
    class Inner(ss.VP):
        """`Inner` has a path of three parts."""


def test_an_object_and_arguments(capsys):
    assert isinstance(target.resolve(f"{__name__}:Outer.Inner", ["beta_max=15"]), Outer.Inner)
    nested = ['predictor={"name": "DDIM"}', 'corrector={"name": "Langevin", "snr": 0.1}']
    pair = target.resolve("score_sde.sampling:PredictorCorrector", nested)
    assert pair == ss.PredictorCorrector(ss.DDIM(), ss.Langevin(0.1))

    assert main(["score_sde.sde:VP", "beta_max=0.01"]) == 2
    assert "beta_max=0.01" in capsys.readouterr().err
    mixture = '{"weights": [1], "means": [[0.0]], "stds": [0.5]}'
    assert main(["score_sde.sampling:AnnealedLangevin", "snr=0.1", "--on=VP", f"--mixture={mixture}"]) == 0
    assert "AnnealedLangevin(snr=0.1, steps=5), corrector" in capsys.readouterr().out


INSTANCE = ss.Heun()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score_sde"], ["'score_sde'", "package.module.Name"]),
        (["nosuch.module:Thing"], ["'nosuch.module:Thing'", "No module named"]),
        (["score_sde.sde:Nothing"], ["Nothing"]),
        (["score_sde.sde:SDE"], ["SDE"]),
        (
            ["json:loads"],
            ["expected an SDE, a Sampler, a Corrector, a Parametrization, a Guide, an Operator or a Variance"],
        ),
        (
            ["json:JSONDecoder"],
            ["expected an SDE, a Sampler, a Corrector, a Parametrization, a Guide, an Operator or a Variance"],
        ),
        (["score_sde.sde:VP", "gamma=1"], ["VP", "gamma", "beta_min=0.1"]),
        (["score_sde.sde:VP", "gamma"], ["'gamma'", "name=value"]),
        ([f"{__name__}:INSTANCE", "gamma=1"], ["object already"]),
        (["score_sde.sde:VP", "--on=VE"], ["checked alone"]),
        (["score_sde.sampling:DDIM", "--on=VQ"], ["VQ", "RectifiedFlow"]),
        (["score_sde.sampling:DDIM", "--order=two"], ["--order", "'two'", "such as 2"]),
        (["score_sde.sde:VP", "--order=2"], ["order is 2", "not the kind SDE"]),
        (["score_sde.sampling:DDIM", "--mixture={"], ["--mixture", "weights"]),
        (["score_sde.sampling:DDIM", "--mixture=[1]"], ["--mixture"]),
        (["score_sde.sampling:DDIM", '--mixture={"weights": [1], "means": [[0]], "stds": [-1]}'], ["positive"]),
        (["score_sde.sampling:PredictorCorrector"], ["predictor", "corrector"]),
        (["score_sde.sampling:Langevin", "snr=x"], ["Langevin got snr='x'; expected a number"]),
        (["score_sde.sde:VP", "beta_max=abc"], ["VP got beta_max='abc'; expected a number"]),
        (["raises_on_import:Thing"], ["raises_on_import", "ZeroDivisionError"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, capsys, tmp_path, monkeypatch):
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("error: ")
    assert all(word in err for word in words), err


def test_from_the_shell():
    run = subprocess.run([sys.executable, "-m", "score_sde.verify", "nosuch:Thing"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == "" and run.stderr.startswith("error: 'nosuch:Thing'")


def test_another_kind_is_refused():
    for thing in (ss.VP, 3, None, ss.GaussianMixture(ss.VP(), [1.0], [[0.0]], 1.0)):
        with pytest.raises(ss.InputError, match="expected an SDE"):
            verify(thing)


def asked(thing):
    module_name = {"SDE": "sde"}.get(target.kind_of(thing), target.kind_of(thing))
    module = importlib.import_module(f"score_sde.verify.{module_name}")
    return module.questions(thing, laws.default_mixture(), module.SDES)


def test_a_report_without_a_pass_is_no_pass():
    none = Check("a", "", None, 0.0, False, "skipped: why")
    good, bad = (dataclasses.replace(none, figure=figure) for figure in (-1.0, float("nan")))
    assert [check.result for check in (none, good, bad)] == ["-", "PASS", "FAIL"]
    assert not report_.Report("x", "SDE", (none,), 0.0).passed
    assert report_.Report("x", "SDE", (none, good), 0.0).passed
    assert not report_.Report("x", "SDE", (good, bad), 0.0).passed
    assert json.loads(report_.Report("x", "SDE", (bad,), 0.0).to_json())["checks"][0]["figure"] is None
    least = dataclasses.replace(none, at_least=True)
    assert [dataclasses.replace(least, figure=f).result for f in (-1.0, 0.0, 1.0)] == ["FAIL", "PASS", "PASS"]
    names = [
        question.name for thing in (ss.VP(), ss.Ancestral(), ss.Langevin(), ss.Noise()) for question in asked(thing)
    ]
    starts = {report_.rows(dataclasses.replace(good, name=name, on="RectifiedFlow"))[0].index("<=") for name in names}
    assert len(names) > 40 and len(starts) == 1  # The columns do not depend on the length of a name.


if __name__ == "__main__":
    for thing in SLOW.values():
        report = verify(thing)
        print(report if not report.passed else f"{thing!r}: {report_.summary(report)}", flush=True)
        jax.clear_caches()  # Many compiled programs would exhaust the memory maps of a process.
