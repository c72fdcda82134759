"""Files of several runs joined into the files of the one run that they could have been."""

from dlgenome.merging.run import MergeConfig, MergeSummary, Progress, merge, merged_paths

__all__ = ["MergeConfig", "MergeSummary", "Progress", "merge", "merged_paths"]
