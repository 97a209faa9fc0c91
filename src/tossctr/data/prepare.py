"""Prepare a data set: fit the encoder on training rows, then write the rows as stores."""

from __future__ import annotations

import os
import resource
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tossctr.artefact import read_artefact
from tossctr.config.schema import DatasetConfig
from tossctr.data.encoded.source import require_vocabulary
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.executor import Executor
from tossctr.data.manifest import read_manifest
from tossctr.data.preparing.build import fit_encoder, write_stores
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.preparing.passes import LocalPasses, Passes, WorkerPasses
from tossctr.data.preparing.record import FILE, FitRecord, PrepareRecord, made_from
from tossctr.data.preparing.splits import SPLITS, Splits
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.base import BATCH_ROWS
from tossctr.data.sources.opening import open_source, require_format, say_order
from tossctr.data.store import open_store
from tossctr.data.verification import Stamps, check_store, stamps_of
from tossctr.errors import UserError
from tossctr.files import locked, sync_folder, write_json, writing
from tossctr.folders import is_made, mark, refuse_foreign, remove_made
from tossctr.progress import say

PARTIAL = ".partial"
FIT = "fit.json"  # in PARTIAL, once the encoder is fit


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training.

    Attributes:
        folder: `<data_root>/<dataset_id>`, with `encoder.json`, `train/`, `valid/`, `prepare.json`.
        encoder: fit on the training rows.
        train, valid: memory-mapped rows; their features have the data set's lengths.
        report: unseen tokens and missing values, for `train` and `valid`.
    """

    folder: Path
    encoder: Encoder
    train: EncodedRows
    valid: EncodedRows
    report: dict[str, EncodingReport]


def prepare(
    dataset: DatasetConfig,
    *,
    force: bool = False,
    batch_rows: int = BATCH_ROWS,
    executor: Executor | None = None,
) -> Prepared:
    """Encode a data set's training and validation rows, in bounded memory.

    An earlier result is reused if its inputs and config are unchanged. Inputs are unchanged if size
    and modification time are, else if the content's SHA-256 is.

    Stores are written to `.partial` and replace earlier ones once complete. After a kill, the
    encoder that was already fit is reused. A second process waits for the first. A read-only folder
    with an unchanged result is used as it is.

    Args:
        dataset: the raw files and their columns.
        force: prepare again even if nothing has changed.
        batch_rows: rows read at a time; the result does not depend on it.
        executor: workers that read and encode, with the same result; None: this process.

    Raises:
        UserError: a missing file or column, a value that cannot be encoded, no usable rows, or a
            full disk.
    """
    folder = dataset.data_root / dataset.dataset_id
    paths = {"train": dataset.train_data}
    if dataset.valid_data is not None:
        paths["valid"] = dataset.valid_data
    for path in paths.values():
        require_format(path, dataset.data_format)
    types = {c.name: c.read_as for c in field_encodings(dataset)} | {dataset.label_col.name: "str"}
    sources = {
        split: open_source(path, types, encoded=dataset.encoded, na_values=dataset.na_values)
        for split, path in paths.items()
    }
    for source in sources.values():
        require_vocabulary(source, dataset.vocabulary)
    _refuse_foreign(folder)
    lock = locked(folder.with_name(f".{folder.name}.lock"), f"the data set {folder}", wait=True)
    with ExitStack() as stack:
        inputs = stack.enter_context(Inputs(paths))
        writable = os.access(folder, os.W_OK) and os.access(folder.parent, os.W_OK)
        if not writable and not force:
            earlier = _unchanged(folder, dataset, inputs)  # reading needs no lock
            if earlier is not None:
                say(f"{dataset.dataset_id}: nothing has changed, using {folder}")
                return earlier
        stack.enter_context(lock)
        if (folder / PARTIAL / FILE).exists():
            _put_in_place(folder)  # a killed process wrote it
        if not force:
            earlier = _unchanged(folder, dataset, inputs)
            if earlier is not None:
                remove_made(folder / PARTIAL, "store")
                _remember(folder, inputs)
                say(f"{dataset.dataset_id}: nothing has changed, using {folder}")
                _say_unseen(earlier.report)
                return earlier
        mark(folder, "store", among_others=True)
        inputs.start_hashing()
        for source in sources.values():
            say_order(source)
        started = time.monotonic()
        try:
            splits = Splits.of(dataset, sources)
            passes: Passes = LocalPasses(splits, batch_rows)
            if executor is not None:
                passes = WorkerPasses(splits, batch_rows, executor)
            encoder = _encoder(dataset, splits, passes, folder / PARTIAL, inputs, force)
            report = write_stores(splits, passes, encoder, folder / PARTIAL)
            known = _stamps(folder / PARTIAL)
            made = {
                **made_from(dataset, inputs),
                "encoder": encoder.hash,
                "report": {split: report[split].as_dict() for split in SPLITS},
                "stores": {split: of.model_dump() for split, of in known.items()},
                "seconds": time.monotonic() - started,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            }
            write_json(folder / PARTIAL / FILE, made)
        except UserError:
            # The same encoder cannot help: the input or the disk has to change.
            remove_made(folder / PARTIAL, "store")
            raise
        _put_in_place(folder)
    _say_unseen(report)
    return _open(folder, dataset, encoder, report, known)


def _say_unseen(report: dict[str, EncodingReport]) -> None:
    report["valid"].say("valid")
    report["train"].say_nulls("train")


def open_prepared(dataset: DatasetConfig) -> Prepared:
    """Open what `prepare` made earlier, without looking at the raw files.

    Raises:
        UserError: it is missing, incomplete or damaged.
    """
    folder = dataset.data_root / dataset.dataset_id
    if not os.path.lexists(folder / FILE):
        raise UserError(
            "has no prepared data", file=folder, remedy="prepare, or give a file with --data"
        )
    made = read_artefact(folder / FILE, PrepareRecord, remedy="prepare again with --force")
    return _open(folder, dataset, Encoder.load(folder), _reports(made), made.stores)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files named like those of `prepare` that it did not make."""
    for split in SPLITS:
        refuse_foreign(folder / split, "store")
    refuse_foreign(folder / PARTIAL, "store")
    for name in (FILE, "encoder.json"):
        if os.path.lexists(folder / name) and not is_made(folder, "store"):
            raise UserError(
                "already exists, and prepare did not make it",
                file=folder / name,
                remedy="move it, or choose another data_root",
            )


def _remember(folder: Path, inputs: Inputs) -> None:
    """Record the present paths and times of unchanged inputs, so that they are not hashed again. A
    read-only folder stays as it is."""
    made = read_artefact(folder / FILE, PrepareRecord)
    now = made.model_copy(update={"inputs": inputs.as_dict(), "stores": _stamps(folder)})
    if now != made:
        with suppress(UserError):
            write_json(folder / FILE, now.model_dump(mode="json"))


def _encoder(
    dataset: DatasetConfig,
    splits: Splits,
    passes: Passes,
    folder: Path,
    inputs: Inputs,
    force: bool,
) -> Encoder:
    """Fit the encoder and save it in the folder, or reuse the one that a killed process saved."""
    try:
        if not force and read_artefact(folder / FIT, FitRecord).matches(dataset, inputs):
            return Encoder.load(folder)
    except UserError:
        pass  # missing or damaged
    remove_made(folder, "store")
    mark(folder, "store")
    encoder = fit_encoder(dataset, splits, passes)
    encoder.save(folder)
    write_json(folder / FIT, made_from(dataset, inputs))
    return encoder


def _stamps(folder: Path) -> dict[str, Stamps]:
    return {split: stamps_of(folder / split, read_manifest(folder / split)) for split in SPLITS}


def _reports(made: PrepareRecord) -> dict[str, EncodingReport]:
    found = made.report.model_dump()
    return {split: EncodingReport.from_dict(found[split]) for split in SPLITS}


def _put_in_place(folder: Path) -> None:
    """Replace the earlier stores by the complete ones in `.partial`. Safe to call again after a
    kill."""
    partial = folder / PARTIAL
    earlier = partial / "earlier"
    with writing(folder):
        earlier.mkdir(exist_ok=True)
        for name in (FILE, *SPLITS, "encoder.json"):  # first FILE, without which nothing is opened
            if (partial / name).exists() and os.path.lexists(folder / name):
                os.replace(folder / name, earlier / name)
        for name in (*SPLITS, "encoder.json", FILE):  # FILE last: it marks the stores as complete
            if (partial / name).exists():
                os.replace(partial / name, folder / name)
        sync_folder(folder)
    remove_made(partial, "store")


def _unchanged(folder: Path, dataset: DatasetConfig, inputs: Inputs) -> Prepared | None:
    """What the folder holds, if it is complete and was made from the same inputs and config."""
    if not os.path.lexists(folder / FILE):
        return None
    try:
        made = read_artefact(folder / FILE, PrepareRecord)
        if not made.matches(dataset, inputs):
            return None
        return _open(folder, dataset, Encoder.load(folder), _reports(made), made.stores)
    except UserError as error:  # damaged: it can be made again from the raw files
        say(f"{error.file}: {error.problem}: preparing again")
        return None


def _open(
    folder: Path,
    dataset: DatasetConfig,
    encoder: Encoder,
    report: dict[str, EncodingReport],
    known: dict[str, Stamps],
) -> Prepared:
    rows = {}
    for split in SPLITS:
        manifest = read_manifest(folder / split)
        check_store(folder / split, manifest, known[split])
        store = open_store(folder / split, manifest)
        if store.features != encoder.features or manifest.encoder != encoder.hash:
            raise UserError(
                "was not made with encoder.json", file=folder / split, remedy="prepare again"
            )
        rows[split] = replace(store, features=store.features.with_lengths(dataset))
    return Prepared(folder, encoder, rows["train"], rows["valid"], report)
