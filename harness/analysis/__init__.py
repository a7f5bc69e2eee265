"""What crosses runs: pivots, comparisons, gates, leaderboards and revisions.

Figures come from `stats.pooling`, directions from the declarations. Start with `pivot.py`.
"""
