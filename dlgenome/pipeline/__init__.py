"""The main job: regions and a checkpoint in, contribution scores out.

The only room that sees every other: regions -> encoding -> references -> attribution -> writers.
"""

from dlgenome.pipeline.finishing import RunSummary
from dlgenome.pipeline.job import Job
from dlgenome.pipeline.outputs import output_files, output_paths
from dlgenome.pipeline.run import attribute
from dlgenome.pipeline.scoring import Progress
from dlgenome.pipeline.stopping import StopRequest

__all__ = ["Job", "Progress", "RunSummary", "StopRequest", "attribute", "output_files", "output_paths"]
