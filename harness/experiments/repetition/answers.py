"""Placeholder."""


def answers(*a):
    return []
