"""This package checks an SDE, a sampler, a corrector or a parametrisation against distributions in closed form.

python -m score_sde.verify package.module:Name [name=VALUE ...] [--json]
"""

from score_sde.verify.report import Check, Report
from score_sde.verify.run import verify

__all__ = ["Check", "Report", "verify"]
