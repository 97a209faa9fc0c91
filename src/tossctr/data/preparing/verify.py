"""Verify all of what `prepare` made, on demand."""

from __future__ import annotations

from pathlib import Path

from tossctr.artefact import read_artefact
from tossctr.data.encoder import Encoder
from tossctr.data.manifest import AGAIN, read_manifest
from tossctr.data.preparing.record import PrepareRecord
from tossctr.data.preparing.splits import SPLITS
from tossctr.data.verification import check_content
from tossctr.errors import UserError

FILE = "prepare.json"


def verify_prepared(folder: Path) -> dict[str, int]:
    """Read a prepared data set whole: hashes, values within the fields, one encoder for all.

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
            raise UserError("not of the encoder beside it", file=folder / split, remedy=AGAIN)
        check_content(folder / split, manifest)
        rows[split] = manifest.rows
    return rows
