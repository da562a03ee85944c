"""This package provides what JAX omits and all other packages use; no module here depends on diffusion models."""
