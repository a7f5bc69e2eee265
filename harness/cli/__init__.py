"""The command line: verbs that parse their arguments, call the rooms below and print.

Heavy imports stay inside each verb, so that `ccmc --help` starts at once. No list of surrogates, measures or
experiments belongs here. Start with `app.py`.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the command `ccmc`."""
    from harness.cli import app

    app.main()
