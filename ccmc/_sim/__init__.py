"""Kernels of the simulation (random streams, walks) and of the mean field (flow); imports `_data` only."""
