"""Units of work and their identity, execution, and the run directory: write, resume, read, verify.

No experiment is known here. Start with `units.py`.
"""
