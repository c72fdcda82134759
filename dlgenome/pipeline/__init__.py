"""The main job: regions and a checkpoint in, contribution scores out.

The only room that sees every other: regions -> encoding -> references -> attribution -> writers.
"""

from dlgenome.pipeline.job import Job
from dlgenome.pipeline.run import Progress, RunSummary, attribute, output_files, output_paths

__all__ = ["Job", "Progress", "RunSummary", "attribute", "output_files", "output_paths"]
