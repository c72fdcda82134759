"""Finished files checked, and compared with each other."""

from dlgenome.checking.comparing import Correlation, Difference, RegionDifference, compare
from dlgenome.checking.findings import Problem
from dlgenome.checking.verifying import Verdict, VerifyConfig, verify

__all__ = [
    "Correlation",
    "Difference",
    "Problem",
    "RegionDifference",
    "Verdict",
    "VerifyConfig",
    "compare",
    "verify",
]
