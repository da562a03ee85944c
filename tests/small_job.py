"""The jobs of this config take seconds in a new process, because the network is a matrix.

The test split has 7 images; batch sizes from 2 to 6 do not divide 7.
"""

from configs import digits


def get_config(variant=""):
    config = digits.get_config(variant or "vp,conditional")
    config.network = dict(name="tests.few_digits.Affine")
    config.data.update(name="tests.few_digits.FewDigits", batch_size=16)
    config.optimizer.schedule.update(warmup_steps=2)
    config.train.update(steps=20, log_every=10, eval_every=20, sample_every=20, checkpoint_every=10)
    config.sample.update(n=11, batch_size=4, grid=dict(name="default", n=4))
    config.eval.update(batch_size=3, what="HeldOutLoss, Likelihood(rtol=1e-4, atol=1e-4)")
    return config
