"""The command line: verbs that parse their arguments, call the rooms below and print.

Heavy imports stay inside each verb, so that `ccmc --help` starts at once. No list of surrogates, measures or
experiments belongs here. Start with `app.py`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command `ccmc`. A signal ends it with one line, from its first import to its exit."""
    from harness.cli import signals

    try:
        signals.install()
        from harness.cli import app

        code = app.main()
        signals.over()
    except BaseException:
        if signals.received() is None:
            raise
        signals.leave()
    sys.exit(code)
