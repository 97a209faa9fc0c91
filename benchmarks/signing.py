"""Corrects the hashes in the folders of a mutated project, for `fuzz_folders.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tossctr.artefact import sealed
from tossctr.files import sha256_of

NOT_READ = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            StopIteration, pa.ArrowException)  # fmt: skip


def sign(project: Path) -> None:
    """Correct all hashes, starting with those of single files."""
    checkpoints = project / "checkpoints"
    for manifest in (project / "data" / "few").glob("*/manifest.json"):
        edit(manifest, sign_store)
    for marker in sorted(checkpoints.rglob("run.json")):
        edit(marker, sign_run)
        sign_predictions(marker.parent / "validation.parquet", marker)
    for marker in [*checkpoints.rglob("folds.json"), *checkpoints.rglob("blend.json")]:
        edit(marker, sign_several)
    for kept in checkpoints.rglob("calibration_*.json"):
        edit(kept, sign_calibration)
    for made_from in checkpoints.rglob("made_from.json"):
        edit(made_from, sign_itself)


def sign_store(folder: Path, about: Any) -> None:
    for stored in about["arrays"].values():
        data = plain(folder / stored["file"]).read_bytes()
        stored["sha256"] = hashlib.sha256(data[128:]).hexdigest()


def sign_run(folder: Path, about: Any) -> None:
    for name in about["sha256"]:
        about["sha256"][name] = sha256_of(plain(folder / name))


def sign_several(folder: Path, about: Any) -> None:
    about["out_of_fold"] = sha256_of(plain(folder / "oof.parquet"))
    for name in about.get("runs", ()):
        about["runs"][name] = sha256_of(plain(folder / name / "run.json"))
    for member in about.get("members", ()):
        member["sha256"] = sha256_of(plain(folder / member["marker"]))


def sign_calibration(folder: Path, about: Any) -> None:
    held = [folder / name for name in ("oof.parquet", "validation.parquet")]
    about["held_out"] = sha256_of(plain(next(path for path in held if path.exists())))
    sign_itself(folder, about)


def sign_itself(folder: Path, about: Any) -> None:
    about.pop("sha256", None)
    about.update(sealed(about))


def sign_predictions(path: Path, marker: Path) -> None:
    with contextlib.suppress(*NOT_READ):
        if pq.read_metadata(plain(path)).num_rows > 100_000:
            return
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"tossctr"])
        about["run"] = sha256_of(plain(marker))
        table = table.replace_schema_metadata({b"tossctr": json.dumps(about)})
        pq.write_table(table, path, compression="none", use_dictionary=False)


def edit(path: Path, change: Callable[[Path, Any], None]) -> None:
    """Change a JSON file, if it can be read."""
    with contextlib.suppress(*NOT_READ):
        content = json.loads(plain(path).read_bytes())
        with contextlib.suppress(*NOT_READ):
            change(path.parent, content)
        path.write_text(json.dumps(content))


def plain(path: Path) -> Path:
    """The path, if it is a regular file that is not too large to read."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 24:
        raise OSError(f"{path} is not read")
    return path
