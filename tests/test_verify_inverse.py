"""`verify` accepts operators, guides and posteriors: right ones pass, and wrong ones fail for the expected reason."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde import inverse
from score_sde.verify import verify
from score_sde.verify.__main__ import main

MODEL = ss.GaussianMixture(ss.VP(), [0.3, 0.7], [[1.5, 0.0], [-0.8, 0.6]], 0.4)


class Shift(inverse.Operator):
    """`Shift` is a right operator of one's own: differences of neighbours."""

    def __call__(self, x, cond=None):
        return x[..., 1:] - x[..., :-1]

    def input_shape(self, shape):
        return (*shape[:-1], shape[-1] + 1)


class WrongAdjoint(Shift):
    def adjoint(self, y, cond=None):
        return 2 * super().adjoint(y, cond)


class NotAffine(Shift):
    def __call__(self, x, cond=None):
        return super().__call__(x) ** 2


class Mixed(Shift):
    def __call__(self, x, cond=None):
        return super().__call__(x - x.mean(axis=0))


class NoInputShape(Shift):
    def input_shape(self, shape):
        return shape


class WrongScale(inverse.Gray):
    def scale(self, shape):
        return 2.0


class WrongResidual(inverse.Mask):
    def residual(self, x, y, cond=None):
        return y - self(x, cond)


class WrongRange(inverse.Blur):
    def range_of(self, low, high):
        return low / 2, high / 2


@pytest.mark.parametrize(
    ("operator", "failed"),
    [
        (Shift(), ()),
        (inverse.Mask(), ()),
        (inverse.Chain(inverse.Blur(0.7), inverse.Downsample(2, "bicubic")), ()),
        (inverse.Function(lambda x: x**2, (3,), affine=False), ()),
        (WrongAdjoint(), ("<A x, y> is <x, A^T y>",)),
        (NotAffine(), ("A is affine", "<A x, y> is <x, A^T y>")),
        (Mixed(), ("example i does not depend on the batch", "<A x, y> is <x, A^T y>")),
        (NoInputShape(), ("<A x, y> is <x, A^T y>", "input_shape inverts measured_shape")),
        (WrongScale(), ("A A^T is scale I",)),
        (WrongResidual(), ("residual is y - A x where y is measured",)),
        (WrongRange(1.0), ("A x lies within range_of",)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, inverse.Operator) else "",
)
def test_operators(operator, failed):
    report = verify(operator)
    assert set(report.failed) == set(failed) and report.kind == "operator", str(report)


class OneHalf(ss.Guide):
    """`OneHalf` changes x_0 and not the noise."""

    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x, t, cond)
        return ss.Prediction(0.9 * inner.x0, inner.noise)


class Twice(ss.Guide):
    """`Twice` evaluates the denoiser twice, and states one evaluation."""

    def predict(self, x, t, cond=None, *, keys=None):
        self.denoiser.predict(x, t, cond)
        return self.denoiser.predict(x, t, cond)


class PassesOn(ss.Guide):
    """`PassesOn` hands its own condition to the denoiser."""

    @property
    def reads(self):
        return ss.Conditions(dict(self.denoiser.reads) | {"strength": ss.Condition(required=True)})

    def predict(self, x, t, cond=None, *, keys=None):
        return self.denoiser.predict(x, t, cond)


class DividesByAlpha(ss.Guide):
    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x, t, cond)
        return ss.Prediction(inner.x0 * (self.sde.alpha(t) / self.sde.alpha(t)), inner.noise)


@pytest.mark.parametrize(
    ("guide", "failed"),
    [
        (ss.Rescaled(ss.ClassifierFree(MODEL, 3.0, interval=(0.3, 5.0))), ()),
        (ss.Guided(MODEL, MODEL, 2.0), ()),
        (OneHalf(MODEL), ("alpha x_0 + sigma noise is x_t",)),
        (Twice(MODEL), ("evaluations is the evaluation count",)),
        (PassesOn(MODEL), ("its own conditions are removed",)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ss.Guide) else "",
)
def test_guides(guide, failed):
    report = verify(guide, on=["VP"])
    assert report.failed == failed and report.kind == "guide", str(report)


def test_a_guide_that_divides_by_alpha_is_found_where_alpha_is_0():
    report = verify(DividesByAlpha(MODEL), on=["RectifiedFlow"])
    assert report.failed == ("a prediction of finite x is finite",), str(report)


class Half(inverse.Moments):
    """`Half` moves x_0 half as far as it should."""

    def shift(self, problem):
        return super().shift(problem) / 2


@pytest.mark.slow
def test_posteriors_and_variances():
    laws = {f"Gaussian data: {what}" for what in ("guided x_0", "spread of samples", "bias of samples")}
    right = inverse.Posterior(MODEL, inverse.Linear(np.eye(2)), 0.2)
    assert verify(right, on=["VP"]).passed
    assert set(verify(Half(), on=["VP"]).failed) >= laws
    zero = verify(inverse.Zero(), on=["VP"])
    assert {"Gaussian data: guided x_0", "Gaussian data: spread of samples"} <= set(zero.failed)


def test_the_command_line_makes_guides_and_posteriors(capsys):
    assert main(["score_sde.ClassifierFree", "weight=2", "--on=VP", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "guide"
    assert main(["score_sde.inverse.Downsample", "factor=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "operator"
    for path, message in (
        ("score_sde.inverse.Downsample", "missing a required argument: 'factor'"),
        ("score_sde.inverse.Operator", "is abstract"),
        ("score_sde.ClassifierGuided", "log_prob"),
    ):
        assert main([path]) == 2
        assert message in capsys.readouterr().err


def test_shapes_that_are_not_known():
    odd = inverse.Function(lambda x: jnp.fft.rfft(x)[:1].real, (7,))
    assert verify(odd).passed
    report = verify(inverse.Linear(np.eye(11)[:4]))
    assert report.passed, str(report)
