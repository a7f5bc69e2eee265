"""Walks and the flow of their frequencies: kernels of the simulation and of the mean field."""
