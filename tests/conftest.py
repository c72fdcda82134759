"""What every test gets: the log settings of a fresh process, whatever commands ran before it."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _logging_as_in_a_fresh_process() -> None:
    for name in ("dlgenome", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
