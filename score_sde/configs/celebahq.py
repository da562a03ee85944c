"""This module makes the published configurations of Song et al. 2021 for CelebA-HQ, faces of 1024 or 256 pixels.

python main.py --config=configs/celebahq.py:256,vp,ddpm,discrete --mode=describe

Words: see configs/published.py, and 1024 (the default) or 256. Data: images in train/ and test/ of celebahq/.
"""

import ml_collections

from score_sde.configs import faces

DATA_SET = faces.data_set(
    "celebahq",
    {
        "ve/celebahq_ncsnpp_continuous": "1024,ve,ncsnpp",
        "ve/celebahq_256_ncsnpp_continuous": "256,ve,ncsnpp",
        "vp/ddpm/celebahq": "256,vp,ddpm,discrete",
    },
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    return faces.config(DATA_SET, variant, reduction="half_sum")
