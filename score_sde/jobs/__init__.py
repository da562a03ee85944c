"""This package defines the jobs: prepare, train, evaluate, sample, edit, report, import and describe.

A job that was stopped can resume. All jobs share one policy for results (`score_sde.jobs.results`).
"""

from score_sde.jobs.actions import Action, Moment
from score_sde.jobs.base import Job
from score_sde.jobs.checkpoints import check_shared
from score_sde.jobs.classifier import TrainClassifier, train_classifier
from score_sde.jobs.describe import Describe, describe
from score_sde.jobs.edit import EditPictures, edit_pictures
from score_sde.jobs.evaluate import Evaluate, evaluate
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.import_weights import Import
from score_sde.jobs.prepare import Prepare, prepare
from score_sde.jobs.report import Report, write_report
from score_sde.jobs.sample import Sample, draw_samples
from score_sde.jobs.stats import Stats, write_statistics
from score_sde.jobs.train import Train, Trainer, train

__all__ = [
    "Action",
    "Context",
    "Describe",
    "EditPictures",
    "Evaluate",
    "Evaluation",
    "Import",
    "Job",
    "Moment",
    "Prepare",
    "Report",
    "Sample",
    "Stats",
    "Train",
    "TrainClassifier",
    "Trainer",
    "check_shared",
    "describe",
    "draw_samples",
    "edit_pictures",
    "evaluate",
    "prepare",
    "train",
    "train_classifier",
    "write_report",
    "write_statistics",
]
