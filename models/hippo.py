"""HiPPO-LegS, the initial system of state space models (Gu et al., 2020, arXiv:2008.07669; 2022, arXiv:2206.11893)."""

from __future__ import annotations

import numpy as np


def legs(state: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal part of HiPPO-LegS, diagonalised, for the eigenvalues with imaginary part above 0.

    The matrix A of HiPPO-LegS is this part minus a matrix of rank 1, p p^T with p_n = sqrt(n + 1/2).

    Args:
      state: number of states N, even

    Returns:
      eigenvalues:  complex [N/2]; the others are their conjugates
      eigenvectors: complex [N, N/2], of length 1; their first entry is real and positive
      b:            real [N], the input vector of HiPPO-LegS
    """
    b = np.sqrt(2 * np.arange(state) + 1)
    below = np.tril(np.outer(b, b), -1)  # A + p p^T = -1/2 + (below^T - below) / 2, which is normal
    frequencies, vectors = np.linalg.eigh(0.5j * (below - below.T))
    vectors = vectors * (vectors[0].conj() / np.abs(vectors[0]))
    return -0.5 + 1j * frequencies[state // 2 :], vectors[:, state // 2 :], b
