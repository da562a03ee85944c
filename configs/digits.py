"""Handwritten digits of 8 x 8 pixels, the smallest real data set: minutes on two CPU cores.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample

Variants, joined by commas: an SDE (vp, the default, or another word of configs/variants.py), a parametrisation
(noise, score, x0, velocity, v, preconditioned), conditional, likelihood (that weighting and its times; not on
chains and straight, which have no g^2 everywhere), pc (sample by predictor and corrector).
"""

import ml_collections

from configs import variants

DATA_STD = 0.75


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/digits.py", variant)
    sde = words["sde"] or "vp"
    model = variants.model(sde, words["parametrization"], DATA_STD)
    return ml_collections.ConfigDict(
        dict(
            seed=0,
            data=dict(name="Digits", dir="", batch_size=64, flip=False, labels=words["labels"] is not None),
            **model,
            network=dict(
                name="DDPMpp",
                channels=32,
                multipliers=(1, 2),
                blocks=1,
                attention=(4,),
                dropout=0.0,
                dtype="float32",
                remat="none",
                **variants.embedding(sde),
            ),
            loss=variants.loss(sde, model["parametrization"]["name"], words["loss"], DATA_STD),
            optimizer=dict(
                name="adam",
                schedule=dict(name="warmup_constant_schedule", init_value=0.0, peak_value=2e-3, warmup_steps=100),
                clip=1.0,
            ),
            ema=0.997,
            train=dict(
                steps=2000,
                log_every=100,
                eval_every=500,
                sample_every=1000,
                checkpoint_every=500,
                fused=1,
                microbatches=1,
                keep=dict(last=2, every=1000),
            ),
            sample=dict(
                **variants.sampling(sde, model["parametrization"]["name"], words["sampler"], steps=250),
                n=100,
                seed=0,
                batch_size=100,
                denoise=True,
                guidance=1.0,
                checkpoints="newest",
            ),
            eval=dict(
                checkpoints="newest",
                what=("loss", "loss_per_level", "likelihood"),
                probes=2,
                rtol=1e-4,
                atol=1e-4,
                dequantisations=1,
                batch_size=150,
                seed=0,
            ),
            parallel="jit",
        )
    )
