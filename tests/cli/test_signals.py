"""The first signal lets a step end, the second does not wait, and no step is waited for too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dlgenome
from dlgenome.errors import Interrupted
from dlgenome.pipeline import StopRequest
from dlgenome_cli.signals import Stopped, stop_on_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]

STEPS = {
    "short": "time.sleep(0.01)",
    # In native code, as a step of a model is: Python's own handlers cannot run before its end.
    "long": "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
}
PROGRAM = """
import hashlib, importlib.util, sys, time

# Without the package around it, which imports torch.
spec = importlib.util.spec_from_file_location("stopping", sys.argv[1])
stopping = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stopping)
from dlgenome.errors import Interrupted
from dlgenome_cli import signals

signals.SECONDS_FOR_THE_STEP = float(sys.argv[2])
stop = stopping.StopRequest()
try:
    with signals.stop_on_signals(stop), stop.between_steps(lambda: print("unlocked", flush=True)):
        print("ready", flush=True)
        while True:
            {step}
            stop.check()
except Interrupted as problem:
    print(problem, flush=True)
    sys.exit(problem.exit_code)
"""


@contextmanager
def process(step: str, seconds_for_the_step: float) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of its steps."""
    assert dlgenome.__file__ is not None
    stopping = Path(dlgenome.__file__).parent / "pipeline" / "stopping.py"
    command = [
        sys.executable,
        "-c",
        PROGRAM.format(step=STEPS[step]),
        str(stopping),
        str(seconds_for_the_step),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_for_the_step_and_ends_with_75(number: signal.Signals) -> None:
    with process("short", 60) as running:
        running.send_signal(number)
        out, errors = running.communicate(timeout=20)
    assert running.returncode == 75
    assert (out, errors) == (f"Stopped by {number.name}\n", "")


def test_a_step_that_takes_too_long_is_given_up() -> None:
    with process("long", 0.2) as running:
        begun = time.monotonic()
        running.send_signal(signal.SIGTERM)
        out, errors = running.communicate(timeout=20)
        assert time.monotonic() - begun > 0.2
    assert running.returncode == 75
    assert out == "unlocked\n"
    assert "Error: Stopped without waiting (the step in hand took more than 0 seconds); run" in errors


def test_the_second_signal_ends_at_once() -> None:
    with process("long", 60) as running:
        running.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        out, errors = running.communicate(timeout=20)
    assert running.returncode == 75
    assert out == "unlocked\n"
    assert errors == "\nError: Stopped without waiting (asked twice); run again with --resume.\n"


def test_a_signal_between_steps_is_a_request() -> None:
    stop = StopRequest()
    with stop_on_signals(stop), pytest.raises(Interrupted, match="Stopped by SIGUSR1"), stop.between_steps():
        os.kill(os.getpid(), signal.SIGUSR1)


def test_a_signal_elsewhere_interrupts_on_the_spot() -> None:
    stop = StopRequest()
    with stop_on_signals(stop), pytest.raises(Stopped, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_afterwards_signals_are_what_they_were() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in SIGNALS]

    before = handlers()
    with stop_on_signals(StopRequest()):
        assert handlers() != before
    assert handlers() == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("action", [lambda: None, lambda: os.kill(os.getpid(), signal.SIGTERM)])
def test_nobody_is_waited_for_when_all_is_done(action: Callable[[], None]) -> None:
    begun = time.monotonic()
    with stop_on_signals(StopRequest()), suppress(Stopped):
        action()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_as_good_as_finished_is_not_interrupted(number: signal.Signals) -> None:
    stop = StopRequest()
    with stop_on_signals(stop):
        stop.refuse_from_here()
        os.kill(os.getpid(), number)
    assert not stop.requested


COMMAND = """
import atexit, importlib.util, os, sys
import click
from dlgenome_cli import main, signals

spec = importlib.util.spec_from_file_location("stopping", sys.argv[1])
stopping = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stopping)
number, moments = int(sys.argv[2]), sys.argv[3].split(",")

def moment(name):
    if name in moments:
        os.kill(os.getpid(), number)

@main.cli.command()
@click.option("--flag", callback=lambda *_: moment("flags"))
def work(flag):
    stop = stopping.StopRequest()
    with signals.stop_on_signals(stop):
        moment("before")
        stop.refuse_from_here()
        moment("named")
    moment("said")

atexit.register(moment, "exit")
sys.argv = ["dlgenome", "work"]
main.main()
"""


@pytest.mark.parametrize(
    ("moments", "status"),
    [
        ("named", 0),
        ("said", 0),
        ("exit", 0),
        ("named,said,exit", 0),
        ("flags", 75),
        ("before", 75),
        ("before,exit", 75),
        ("flags,exit", 75),
    ],
)
@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_status_says_whether_the_files_are_there(
    number: signal.Signals, moments: str, status: int
) -> None:
    assert dlgenome.__file__ is not None
    stopping = Path(dlgenome.__file__).parent / "pipeline" / "stopping.py"
    command = [sys.executable, "-c", COMMAND, str(stopping), str(int(number)), moments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == (status != 0)
    assert ("Error: Stopped by" in done.stderr) == (status != 0)
