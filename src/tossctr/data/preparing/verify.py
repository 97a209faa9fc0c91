"""Verify a prepared data set completely, on demand."""

from __future__ import annotations

from pathlib import Path

from tossctr.artefact import read_artefact
from tossctr.data.encoder import Encoder
from tossctr.data.manifest import AGAIN, read_manifest
from tossctr.data.preparing.record import FILE, PrepareRecord
from tossctr.data.preparing.splits import SPLITS
from tossctr.data.verification import check_content
from tossctr.errors import UserError


def verify_prepared(folder: Path) -> dict[str, int]:
    """Read a prepared data set completely: hashes, values within their ranges, the same encoder.

    Returns:
        Rows by split.

    Raises:
        UserError: something is missing, or has changed since it was written.
    """
    made = read_artefact(folder / FILE, PrepareRecord, remedy=AGAIN)
    encoder = Encoder.load(folder)
    if encoder.hash != made.encoder:
        raise UserError("has changed since it was written", file=folder / "encoder.json",
                        remedy=AGAIN)  # fmt: skip
    rows = {}
    for split in SPLITS:
        manifest = read_manifest(folder / split)
        if manifest.encoder != made.encoder or manifest.features != encoder.features:
            raise UserError("was not made with encoder.json", file=folder / split, remedy=AGAIN)
        check_content(folder / split, manifest)
        rows[split] = manifest.rows
    return rows
