"""This module defines `NetworkClassifier`, the probabilities of the classes given x_t, made from a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, to_time
from score_sde.core.conditions import Cond, Conditions, Label, is_absent
from score_sde.core.errors import InputError
from score_sde.denoisers.inputs import as_points, check_times
from score_sde.denoisers.parametrization import Parametrization
from score_sde.sde import SDE

LABEL = "label"
_FAR = 1e3  # a log-SNR beyond that of any SDE


class NetworkClassifier(eqx.Module):
    """`NetworkClassifier` computes log p(label | x_t) with a network; `ClassifierGuided` takes it as log_prob.

    The network receives input_scale x + input_shift and the time label of the parametrisation, and returns logits.

    Attributes:
        sde: the SDE whose x_t the network was trained on.
        parametrization: the scale of the input, and the time label.
        apply: the network, (params, x, time_label, cond=None, *, keys=None) -> logits, (batch, classes).
        params: parameters of the network, a pytree of arrays.
        classes: the number of classes.
    """

    sde: SDE
    parametrization: Parametrization
    apply: Callable[..., Array] = eqx.field(static=True)
    params: Any
    classes: int = eqx.field(static=True)

    @property
    def conditions(self) -> Conditions:
        """Return the condition that `__call__` reads: the class `label`, which may be absent."""
        return Conditions({LABEL: Label(self.classes)})

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the shape of one example, or None if the network states none."""
        shape = getattr(self.apply, "shape", None)
        return None if shape is None else tuple(shape)

    def logits(self, x: Array, t: ArrayLike, *, keys: Array | None = None) -> Array:
        """Return the logits of the classes, (batch, classes), for x_t of shape (batch, *shape); nothing is checked."""
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        given = self.parametrization.network_input(self.sde, x, t)
        return self.apply(self.params, given, self.parametrization.label(self.sde, t), None, keys=keys).astype(x.dtype)

    def log_probs(self, x: ArrayLike, t: ArrayLike) -> Array:
        """Return the log-probabilities of all classes, (batch, classes), for x_t on the model's scale.

        Args:
            x: x_t, shape (batch, *shape).
            t: time, shape () or (batch,), within [t_min, t_max] of the SDE.
        """
        points = as_points(x)
        if self.shape is not None and points.shape[1:] != self.shape:
            raise InputError(f"x has shape {points.shape}; expected (batch, *shape) = {('batch', *self.shape)}.")
        times = check_times(t, "t")
        self.sde.check_times(times, "t")
        if times.shape not in ((), points.shape[:1]):
            raise InputError(f"t has shape {times.shape}; expected () or ({len(points)},), one time per example.")
        return jax.nn.log_softmax(self.logits(points, t))

    def __call__(self, x: Array, t: Array, cond: Cond) -> Array:
        """Return log p(label | x_t) of each example's own label, (batch,); 0 for an example without a label."""
        absent = is_absent(cond, LABEL, len(x))
        label = jnp.zeros(len(x), jnp.int32) if cond is None or LABEL not in cond else cond[LABEL]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(self.logits(x, t)), label[:, None], axis=1)[:, 0]
        return jnp.where(absent, 0, log_p)

    def on(self, sde: SDE) -> NetworkClassifier | OnAnotherSDE:
        """Return the classifier of x_t of another SDE, by its noise level sigma / alpha."""
        same = type(sde) is type(self.sde) and bool(eqx.tree_equal(sde, self.sde))
        return self if same else OnAnotherSDE(self, sde)


class OnAnotherSDE(eqx.Module):
    """`OnAnotherSDE` gives a classifier the x_t of another SDE.

    x_t / alpha = x_0 + (sigma / alpha) noise has the same law for all SDEs at the same sigma / alpha. The classifier
    therefore receives alpha'(t') x_t / alpha(t) at its own time t' with the same log-SNR. Noise levels outside the
    classifier's range get its nearest time.

    Attributes:
        classifier: the classifier, on its own SDE.
        sde: the SDE of x_t.
    """

    classifier: NetworkClassifier
    sde: SDE

    @property
    def conditions(self) -> Conditions:
        return self.classifier.conditions

    def __call__(self, x: Array, t: Array, cond: Cond) -> Array:
        own, t = self.classifier.sde, to_time(t)
        alpha = self.sde.alpha(t)
        time = own.time_of(jnp.clip(self.sde.log_snr(t), -_FAR, _FAR))
        scale = own.alpha(time) / jnp.where(alpha > 0, alpha, 1)  # where alpha is 0, the guide adds nothing
        return self.classifier(expand(scale, x) * x, time, cond)


def check_fits(classifier: NetworkClassifier, reads: Conditions, shape: tuple[int, ...] | None, name: str) -> None:
    """Raise InputError unless a classifier has the examples and the classes of a denoiser; `name` names its source."""
    if None not in (shape, classifier.shape) and shape != classifier.shape:
        raise InputError(f"{name} classifies examples of shape {classifier.shape}; expected {shape}, as the model has.")
    label = reads.get(LABEL)
    if isinstance(label, Label) and label.classes != classifier.classes:
        raise InputError(
            f"{name} has {classifier.classes} classes, and the model reads {label.classes}; expected the same classes."
        )


__all__ = ["NetworkClassifier", "OnAnotherSDE", "check_fits"]
