"""This program prints the largest difference between log p on two devices and log p on one device.

XLA:CPU computed the rows at the edges of a device's part wrongly with convolutions of Eigen (docs/performance.md,
Convolutions on a CPU). The error needs as many threads as devices, as in a user's process. The process of the tests
has more threads, so a test starts this program in a process of its own.
"""

import jax
import numpy as np

import score_sde as ss
from configs import digits
from score_sde import parallel
from score_sde.experiment import Experiment


def main() -> None:
    experiment = Experiment.from_config(digits.get_config())
    draw = np.random.default_rng(0)

    def moved(leaf):  # the initial output is zero, which hides the error
        return leaf + 0.05 * draw.standard_normal(leaf.shape).astype("f")

    params = jax.tree.map(moved, experiment.init_state().params["network"])
    x = draw.standard_normal((48, 8, 8, 1)).astype("f")
    values = []
    for count in (1, 2):
        devices = parallel.Jit(jax.devices()[:count])
        placed = devices.place_sharded((x, jax.random.split(jax.random.key(0), len(x))))
        denoiser = experiment.denoiser(devices.place_state(params))
        values.append(np.asarray(ss.log_prob(denoiser, *placed, probes=2, rtol=0.01, atol=0.01).value))
    print(abs(values[1] - values[0]).max())


if __name__ == "__main__":
    main()
