"""The one reader of finished ``scores.h5`` files, and what their completeness numbers mean."""

from dlgenome.scores.completeness import (
    CompletenessSummary,
    completeness_error,
    completeness_floor,
    summarize_completeness,
)
from dlgenome.scores.file import AttributeValue, ScoresFile
from dlgenome.scores.structure import (
    FORMAT_VERSION,
    PROVENANCE_ATTRIBUTES,
    QC_FIELDS,
    REGION_FIELDS,
    find_structure_problems,
)

__all__ = [
    "FORMAT_VERSION",
    "PROVENANCE_ATTRIBUTES",
    "QC_FIELDS",
    "REGION_FIELDS",
    "AttributeValue",
    "CompletenessSummary",
    "ScoresFile",
    "completeness_error",
    "completeness_floor",
    "find_structure_problems",
    "summarize_completeness",
]
