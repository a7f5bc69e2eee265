"""`python -m harness.cli` is the command `ccmc`."""

from harness.cli import main

main()
