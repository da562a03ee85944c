"""This package writes the report of a run: one HTML file with the settings, the results, and each number's source."""

from score_sde.jobs.report.job import Report, write_report

__all__ = ["Report", "write_report"]
