"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; a test that needs it skips without it."""
    if not SHARED.is_dir():
        pytest.skip("no reference data: there is no folder 'shared' beside the project")
    return SHARED
