"""The report of a run: one HTML file that shows what was run, what came of it, and of what each number is."""

from score_sde.jobs.report.job import Report, write_report

__all__ = ["Report", "write_report"]
