"""Runs `dlgenome` again and again without importing torch again and again: a process that forks.

Says that it is ready, then reads one JSON list of arguments a line, with the file that takes stderr in front;
answers with the number of the process, then, when it has ended, with its exit status (negative for a signal).
"""

import json
import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def main() -> None:
    import torch  # noqa: F401

    import dlgenome.pipeline  # noqa: F401
    import dlgenome_cli.main

    print("ready", flush=True)
    for line in sys.stdin:
        stderr, *arguments = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # or one could arrive before it has its default
        process = os.fork()
        if process == 0:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            errors = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            sys.argv = ["dlgenome", *arguments]
            try:
                dlgenome_cli.main.main()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else 1)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


main()
