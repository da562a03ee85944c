"""This module makes the published configurations of Song et al. 2021 for FFHQ, faces of 1024 or 256 pixels.

python main.py --config=configs/ffhq.py:256,ve,ncsnpp --mode=describe

Words: see configs/published.py, and 1024 (the default) or 256. Data: images in train/ and test/ of ffhq/.
"""

import ml_collections

from score_sde.configs import faces

DATA_SET = faces.data_set(
    "ffhq",
    {
        "ve/ffhq_ncsnpp_continuous": "1024,ve,ncsnpp",
        "ve/ffhq_256_ncsnpp_continuous": "256,ve,ncsnpp",
    },
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    # At 1024 pixels the loss is a mean over dimensions for FFHQ, and half a sum for CelebA-HQ.
    return faces.config(DATA_SET, variant, reduction="mean")
