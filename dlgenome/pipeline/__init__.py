"""The main job: regions and a checkpoint in, contribution scores out.

The only room that sees every other: regions -> encoding -> references -> attribution -> writers.
"""

from dlgenome.pipeline.job import Job, build_program, window_length
from dlgenome.pipeline.run import Progress, RunSummary, attribute, output_paths

__all__ = ["Job", "Progress", "RunSummary", "attribute", "build_program", "output_paths", "window_length"]
