"""Handwritten digits of 8 x 8 pixels, the smallest real data set: minutes on two CPU cores.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample

Variants, joined by commas: vp (the default), subvp, ve; conditional.
"""

import ml_collections

from score_sde.core.errors import InputError

SDES = {
    "vp": dict(name="VP", beta_min=0.1, beta_max=20.0),
    "subvp": dict(name="SubVP", beta_min=0.1, beta_max=20.0),
    "ve": dict(name="VE", sigma_min=0.01, sigma_max=15.0),
}


def get_config(variant: str = "vp") -> ml_collections.ConfigDict:
    words = [word for word in variant.split(",") if word]
    unknown = [word for word in words if word not in (*SDES, "conditional")]
    sdes = [word for word in words if word in SDES]
    if unknown or len(sdes) > 1:
        raise InputError(
            f"configs/digits.py has no variant {variant!r}; expected one of {', '.join(SDES)}, "
            "and 'conditional' if wanted, joined by commas."
        )
    conditional = "conditional" in words
    return ml_collections.ConfigDict(
        dict(
            seed=0,
            data=dict(name="Digits", dir="", batch_size=64, flip=False, labels=conditional),
            sde=SDES[sdes[0] if sdes else "vp"],
            parametrization=dict(name="Noise", time_label="scaled_time", data_std=0.75),
            network=dict(name="DDPMpp", channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0),
            loss=dict(
                target="noise",
                weight="unit",
                times="uniform",
                stratified=False,
                reduction="mean",
                label_dropout=0.1,
            ),
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
                keep=dict(last=2, every=1000),
            ),
            sample=dict(
                sampler=dict(name="Ancestral"),
                grid=dict(name="default", n=250),
                n=100,
                seed=0,
                batch_size=100,
                denoise=True,
                guidance=1.0,
            ),
            eval=dict(
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
