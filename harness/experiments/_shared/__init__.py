"""What several experiments share: continuations, claims and verdicts, tables and figures."""
