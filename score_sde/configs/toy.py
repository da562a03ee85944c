"""This config trains on points in the plane in under a minute on two CPU cores, to compare SDEs and parametrisations.

python main.py --config=configs/toy.py:checkerboard,rectified_flow --workdir=runs/toy --mode=train,eval,sample

Variants, joined by commas: a distribution (mixture, the default, checkerboard, swiss_roll, two_moons), an SDE (vp, the
default, or another word of configs/variants.py), a parametrisation (noise, score, x0, velocity, v, preconditioned),
conditional, likelihood (likelihood weighting with its sampling of times; not for chains and rectified_flow, where g^2
does not exist at every time), pc (sample with predictor and corrector).
"""

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants

LAWS = {"mixture": "GaussianRing", "checkerboard": "Checkerboard", "swiss_roll": "SwissRoll", "two_moons": "TwoMoons"}
DATA_STD = 1.0


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/toy.py", variant, law=LAWS)
    sde = variants.sde_of(words, "vp")
    model = variants.model(sde, words["parametrization"], DATA_STD, words["loss"])
    return config_.complete(
        dict(
            data=variants.data(words, name=LAWS[words["law"] or "mixture"], dir="", batch_size=256),
            **model,
            network=dict(
                name="MLP",
                width=64,
                blocks=3,
                octaves=3,
                dropout=0.0,
                dtype="float32",
                remat="none",
                **variants.embedding(sde),
            ),
            objective=variants.objective(sde, model["parametrization"]["name"], words["loss"], DATA_STD)
            | dict(stratified=True),
            optimizer=dict(
                name="adam",
                schedule=dict(
                    name="warmup_cosine_decay_schedule",
                    init_value=0.0,
                    peak_value=1e-2,
                    warmup_steps=100,
                    decay_steps=2000,
                ),
                clip=1.0,
            ),
            averages=dict(ema=dict(name="WarmedUp", decay=0.995)),
            train=dict(
                steps=2000,
                log_every=100,
                eval_every=1000,
                sample_every=0,
                keep=dict(last=2),
            ),
            sample=dict(
                **variants.sampling(
                    sde, model["parametrization"]["name"], words["sampler"], steps=100, loss=words["loss"]
                ),
                n=5000,
                batch_size=5000,
            ),
            eval=dict(what="HeldOutLoss, LossPerLevel, Likelihood(probes=2, rtol=1e-4, atol=1e-4)", batch_size=2000),
        )
    )
