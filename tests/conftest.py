"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

# Several tests run at once, and torch's threads wait for each other: one each is the fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No timed asserts: these machines are shared.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data next to the project; a test that needs it skips without it."""
    if not SHARED.is_dir():
        pytest.skip("no reference data: there is no folder 'shared' beside the project")
    return SHARED
