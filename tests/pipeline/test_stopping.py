"""How a run is asked to end."""

from __future__ import annotations

import pytest

from dlgenome.errors import Interrupted
from dlgenome.pipeline import StopRequest


def test_nothing_is_asked_at_first() -> None:
    stop = StopRequest()
    stop.check()
    assert not stop.requested
    with stop.between_steps():
        stop.check()


def test_the_first_cause_counts() -> None:
    stop = StopRequest()
    stop.request("SIGUSR1")
    stop.request("SIGTERM")
    assert stop.requested
    with pytest.raises(Interrupted, match=r"^Stopped by SIGUSR1$"):
        stop.check()


def test_only_between_steps_a_request_is_waited_for() -> None:
    stop = StopRequest()
    assert not stop.waits_for_step
    with stop.between_steps():
        assert stop.waits_for_step
    assert not stop.waits_for_step
    with pytest.raises(ZeroDivisionError), stop.between_steps():
        raise ZeroDivisionError
    assert not stop.waits_for_step


def test_a_request_after_the_last_look_is_not_forgotten() -> None:
    stop = StopRequest()
    with pytest.raises(Interrupted, match="Stopped by SIGTERM"), stop.between_steps():
        stop.request("SIGTERM")


def test_another_error_is_not_hidden_by_a_request() -> None:
    stop = StopRequest()
    stop.request("SIGTERM")
    with pytest.raises(ZeroDivisionError), stop.between_steps():
        raise ZeroDivisionError


def test_last_words_are_said_when_the_process_gives_up() -> None:
    stop, said = StopRequest(), list[str]()
    stop.give_up()
    with stop.between_steps(lambda: said.append("unlocked"), lambda: said.append("told")):
        pass
    assert said == []
    stop.give_up()
    assert said == ["unlocked", "told"]
