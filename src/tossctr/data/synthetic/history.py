"""Synthetic `history_*` columns, which resemble a platform's earlier estimates for a user.

Each is a function of the true logit and independent noise. Given the other columns, which determine
the logit, they are independent of the click.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.schema import HISTORY

Array = NDArray[Any]

LOGIT_MEAN, LOGIT_SD = -4.8, 1.32  # of the click model over rows

# Correlation with the logit and scale of history_a_*. A correlation of 0.39 here is one of 0.073
# with the click.
HISTORY_A = (
    (0.15, 1.0),
    (-0.40, 3.0),
    (0.39, 0.5),
    (0.25, 12.0),
    (-0.2, 1.0),
    (0.1, 40.0),
    (0.05, 0.1),
)
HISTORY_B_CORRELATION = 0.25  # of the latent value behind all history_b_*
HISTORY_B_NOISE = 0.02  # relative and independent per column: the columns are nearly collinear


def draw_history(rng: np.random.Generator, logit: Array, user_known: Array) -> dict[str, Array]:
    """The 37 columns by name, (rows,) float64, NaN if the user is unknown."""
    z = (logit - LOGIT_MEAN) / LOGIT_SD

    def proxy(correlation: float) -> Array:
        noise = rng.standard_normal(len(z))
        return np.asarray(correlation * z + np.sqrt(1 - correlation**2) * noise)

    shared = np.exp(0.8 * proxy(HISTORY_B_CORRELATION))  # positive, with a long tail
    columns = [scale * proxy(correlation) for correlation, scale in HISTORY_A]
    for column in range(len(HISTORY) - len(HISTORY_A)):
        noise = 1 + HISTORY_B_NOISE * rng.standard_normal(len(z))
        columns.append(shared * noise * (1 + column))
    return {
        name: np.where(user_known, values, np.nan)
        for name, values in zip(HISTORY, columns, strict=True)
    }
