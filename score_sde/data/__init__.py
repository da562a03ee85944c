"""Data sets, the order in which they are read, and their transform to the model's scale."""

from score_sde.data.base import Dataset, Records, Source, all_examples, cache_dir, training_batches
from score_sde.data.digits import Digits
from score_sde.data.transform import QuantizedTransform, UniformDequantization

__all__ = [
    "Dataset",
    "Digits",
    "QuantizedTransform",
    "Records",
    "Source",
    "UniformDequantization",
    "all_examples",
    "cache_dir",
    "training_batches",
]
