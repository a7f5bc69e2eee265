"""How fits move: passes over rows or along sequences, the solver that chooses the next point, Newton's steps.

The problem and its arrays come from the public files; imports `_data` only.
"""
