"""One fit for several temperatures: weights as a polynomial in the temperature."""

from __future__ import annotations

import numpy as np

from harness.data.texts import FloatArray


def smooth_weights(temperatures: FloatArray, weights: FloatArray, curvatures: FloatArray, degree: int) -> FloatArray:
    """The joint fit of several temperatures, to second order.

    A joint fit minimises the sum of the losses of all temperatures over coefficients c, where the weights at T are
    sum_d T^d c[d]. Here each loss is replaced by its expansion around its own minimum, of which only the weights there
    and the curvature are needed: this is generalised least squares with the curvatures as precision. The larger the
    distance of the smooth weights from the fitted ones, in standard errors, the worse the expansion.

    Args:
        temperatures: [S], different, 0 for greedy decoding.
        weights: [S, W] fitted at each temperature alone.
        curvatures: [S, W, W] second derivatives of each loss there, of sums over choices.
        degree: of the polynomial, below S; with S - 1 it goes through all fitted weights.

    Returns:
        [degree + 1, W] coefficients. Where the curvatures determine none, the smallest.

    Raises:
        ValueError: there are too few temperatures for the degree.

    Source: Aitken 1936, On least squares and linear combination of observations.
    """
    if degree < 0 or len(np.unique(temperatures)) < degree + 1:
        raise ValueError(f"degree {degree} needs as many temperatures and one more, got {len(np.unique(temperatures))}")
    blocks, aims = [], []
    for temperature, fitted, curvature in zip(temperatures, weights, curvatures, strict=True):
        root = _root(curvature)
        blocks.append(np.kron(_powers(float(temperature), degree)[None, :], root))
        aims.append(root @ fitted)
    design = np.concatenate(blocks)
    scale = np.linalg.norm(design, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found = np.linalg.lstsq(design / scale, np.concatenate(aims), rcond=None)[0] / scale
    coefficients: FloatArray = found.reshape(degree + 1, -1)
    return coefficients


def weights_at(coefficients: FloatArray, temperature: float) -> FloatArray:
    """[W] weights at one temperature, from coefficients [degree + 1, W]."""
    found: FloatArray = _powers(temperature, len(coefficients) - 1) @ coefficients
    return found


def _powers(temperature: float, degree: int) -> FloatArray:
    return np.array([temperature**power for power in range(degree + 1)])


def _root(curvature: FloatArray) -> FloatArray:
    """[W, W] R with R^T R the curvature; features of different size are brought to one before."""
    size = np.sqrt(np.maximum(np.diag(curvature), 0.0))
    size = np.where(size > 0, size, 1.0)
    value, vector = np.linalg.eigh(curvature / np.outer(size, size))
    found: FloatArray = np.sqrt(np.maximum(value, 0.0))[:, None] * vector.T * size
    return found
