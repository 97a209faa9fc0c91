"""Raw files -> encoder and training stores: fit on training rows, then transform, in batches."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tossctr.artefact import read_artefact
from tossctr.config.schema import DatasetConfig
from tossctr.data.encoded.source import require_vocabulary
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.encoding.statistics import Stats
from tossctr.data.executor import Executor
from tossctr.data.manifest import read_manifest
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.preparing.passes import LocalPasses, Passes, WorkerPasses
from tossctr.data.preparing.record import VERSION, FitRecord, PrepareRecord
from tossctr.data.preparing.splits import SPLITS, Splits
from tossctr.data.preparing.time_order import TimeOrders
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.base import BATCH_ROWS
from tossctr.data.sources.opening import open_source, require_format, say_order
from tossctr.data.store import StoreWriter, open_store
from tossctr.data.verification import Stamps, check_store, stamps_of
from tossctr.errors import UserError
from tossctr.files import locked, sync_folder, write_json, writing
from tossctr.folders import is_made, mark, refuse_foreign, remove_made
from tossctr.progress import say, track

FILE = "prepare.json"
PARTIAL = ".partial"
FIT = "fit.json"  # beside a fit encoder whose stores are not written yet
# Choices of training, and what only scoring needs: changing them leaves a store as it is.
_NOT_PREPARING = {"max_len", "truncating", "feature_encoder", "embedding_dim", "source", "active"}


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training.

    Attributes:
        folder: `<data_root>/<dataset_id>`, with `encoder.json`, `train/`, `valid/`, `prepare.json`.
        encoder: fit on the training rows.
        train, valid: memory-mapped rows; their features have the data set's lengths.
        report: for `train` and `valid`, the unseen tokens and missing values met.
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

    Nothing is done where the folder holds what the same inputs and config gave before. The inputs
    are the same where size and modification time are, or else the content's SHA-256.

    Stores are written in `.partial` and replace earlier ones when they are whole. After a kill, a
    fit that had been done is used. A second process waits for the first. Nothing is written where
    nothing has changed in a folder that may not be written to.

    Args:
        dataset: where the raw files are, and what their columns mean.
        force: prepare again even so.
        batch_rows: rows read at a time; the result does not depend on it.
        executor: workers to do it on, with the same result; None does it in this process.

    Raises:
        UserError: a missing file or column, a value that cannot be encoded, no usable rows, or a
            disk that refuses.
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
            earlier = _unchanged(folder, dataset, inputs)  # for reading it needs no lock
            if earlier is not None:
                say(f"{dataset.dataset_id}: nothing has changed, using {folder}")
                return earlier
        stack.enter_context(lock)
        if (folder / PARTIAL / FILE).exists():
            _put_in_place(folder)  # where the process that wrote it was killed
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
            encoder = _fit_kept(dataset, splits, passes, folder / PARTIAL, inputs, force)
            report = _transform(splits, passes, encoder, folder / PARTIAL)
            known = _stamps(folder / PARTIAL)
            made = {
                **_made_from(dataset, inputs),
                "encoder": encoder.hash,
                "report": {split: report[split].as_dict() for split in SPLITS},
                "stores": {split: of.model_dump() for split, of in known.items()},
                "seconds": time.monotonic() - started,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            }
            write_json(folder / PARTIAL / FILE, made)
        except UserError:
            # It is the input, or the disk, that has to change.
            remove_made(folder / PARTIAL, "store")
            raise
        _put_in_place(folder)
    _say_unseen(report)
    return _open(folder, dataset, encoder, report, known)


def _say_unseen(report: dict[str, EncodingReport]) -> None:
    report["valid"].say("valid")
    report["train"].say_nulls("train")


def open_prepared(dataset: DatasetConfig) -> Prepared:
    """What `prepare` made earlier, as it is; nothing is read but that, and nothing is written.

    Raises:
        UserError: nothing there, or nothing whole.
    """
    folder = dataset.data_root / dataset.dataset_id
    if not os.path.lexists(folder / FILE):
        raise UserError(
            "no prepared data here", file=folder, remedy="prepare, or name a file with --data"
        )
    made = read_artefact(folder / FILE, PrepareRecord, remedy="prepare again with --force")
    return _open(folder, dataset, Encoder.load(folder), _reports(made), made.stores)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a data set's folder in which other files have the names of ours."""
    for split in SPLITS:
        refuse_foreign(folder / split, "store")
    refuse_foreign(folder / PARTIAL, "store")
    for name in (FILE, "encoder.json"):
        if os.path.lexists(folder / name) and not is_made(folder, "store"):
            raise UserError(
                "is in the way, and not what prepare made",
                file=folder / name,
                remedy="move it, or choose another data_root",
            )


def _remember(folder: Path, inputs: Inputs) -> None:
    """Write down where the same inputs are now, and their times, so that they are not hashed again;
    not where that may not be written."""
    made = read_artefact(folder / FILE, PrepareRecord)
    now = made.model_copy(update={"inputs": inputs.as_dict(), "stores": _stamps(folder)})
    if now != made:
        with suppress(UserError):
            write_json(folder / FILE, now.model_dump(mode="json"))


def _fit_kept(
    dataset: DatasetConfig,
    splits: Splits,
    passes: Passes,
    folder: Path,
    inputs: Inputs,
    force: bool,
) -> Encoder:
    """The encoder, kept in the folder; one that a killed process left there, if it still fits."""
    try:
        if not force and _is_of(read_artefact(folder / FIT, FitRecord), dataset, inputs):
            return Encoder.load(folder)
    except UserError:
        pass  # none there, or damaged
    remove_made(folder, "store")
    mark(folder, "store")
    encoder = _fit(dataset, splits, passes)
    encoder.save(folder)
    write_json(folder / FIT, _made_from(dataset, inputs))
    return encoder


def _made_from(dataset: DatasetConfig, inputs: Inputs) -> dict[str, Any]:
    return {
        "version": VERSION,
        "config": _config_hash(dataset),
        "inputs": inputs.as_dict(),
        "group": _group(dataset),
    }


def _group(dataset: DatasetConfig) -> str | None:
    """The category whose raw values are kept."""
    return next((column.name for column in field_encodings(dataset) if column.grouped), None)


def _is_of(made: FitRecord, dataset: DatasetConfig, inputs: Inputs) -> bool:
    # A store with a group serves experiments without one.
    if made.config != _config_hash(dataset) or _group(dataset) not in (None, made.group):
        return False
    return inputs.same_as(made.inputs)


def _stamps(folder: Path) -> dict[str, Stamps]:
    return {split: stamps_of(folder / split, read_manifest(folder / split)) for split in SPLITS}


def _reports(made: PrepareRecord) -> dict[str, EncodingReport]:
    found = made.report.model_dump()
    return {split: EncodingReport.from_dict(found[split]) for split in SPLITS}


def _put_in_place(folder: Path) -> None:
    """Replace the earlier stores by the whole ones in `.partial`. After a kill, called again, it
    does the rest."""
    partial = folder / PARTIAL
    earlier = partial / "earlier"
    with writing(folder):
        earlier.mkdir(exist_ok=True)
        for name in (FILE, *SPLITS, "encoder.json"):  # without FILE, nobody opens the others
            if (partial / name).exists() and os.path.lexists(folder / name):
                os.replace(folder / name, earlier / name)
        for name in (*SPLITS, "encoder.json", FILE):  # FILE last: until then it is not done
            if (partial / name).exists():
                os.replace(partial / name, folder / name)
        sync_folder(folder)
    remove_made(partial, "store")


def _fit(dataset: DatasetConfig, splits: Splits, passes: Passes) -> Encoder:
    total = Stats.of(dataset)
    found = passes.statistics(total.like())
    with track("fit", splits.train_rows) as advance, closing(found):
        for stats, rows in found:
            total.merge(stats)
            advance(rows)
    file, label = dataset.train_data, dataset.label_col.name
    if not total.rows:
        raise UserError("no rows to train on", file=file, remedy="give a file with more rows")
    if not total.label_counts.all():
        only = int(total.label_counts[1] > 0)
        raise UserError(
            "every training row has the same label",
            file=file,
            column=label,
            value=only,
            remedy="training needs both 0 and 1: give more rows, or check label_col",
        )
    for name, events in total.longest.items():
        if events == 1 and total.rows > 1:
            splitter = next(c.splitter for c in total.columns if c.name == name)
            say(
                f"warning: column {name}: no row holds the splitter {splitter!r}, so that each"
                " history is one id; tossctr check names the splitter that it sees"
            )
    return Encoder.from_stats(dataset, total)


def _transform(
    splits: Splits, passes: Passes, encoder: Encoder, folder: Path
) -> dict[str, EncodingReport]:
    reports = {split: EncodingReport() for split in SPLITS}
    order = TimeOrders(splits.dataset, encoder)
    with writing(folder), ExitStack() as stack:
        writers = {
            split: stack.enter_context(StoreWriter(folder / split, encoder.features, encoder.hash))
            for split in SPLITS
        }
        advance = stack.enter_context(track("transform", splits.rows))
        done = stack.enter_context(closing(passes.encoded(encoder, folder)))
        for encoded in done:
            for split, (rows, report) in encoded.items():
                writers[split].append(rows)
                reports[split].merge(report)
                order.update(rows)
                advance(len(rows))
        if not writers["valid"].rows:
            raise UserError(
                "no rows to validate on",
                file=splits.sources["valid" if "valid" in splits.sources else "train"].path,
                remedy="give more rows, or raise valid_split.fraction",
            )
    warning = order.warning(splits.sources["train"].file)
    if warning is not None:
        say(warning)
    return reports


def _config_hash(dataset: DatasetConfig) -> str:
    """Of what the stores depend on, the files' content apart."""
    config: dict[str, Any] = {
        "version": VERSION,
        "features": [f.model_dump(mode="json", exclude=_NOT_PREPARING) for f in dataset.features],
        **dataset.model_dump(
            mode="json",
            include={
                "dataset_id",
                "max_rows",
                "min_categr_count",
                "valid_split",
                "label_col",
                "na_values",
            },
        ),
    }
    if dataset.drop_redundant:  # only then, so that stores made before there was the key stay
        config["drop_redundant"] = True
    if dataset.valid_data is not None:
        config["valid_split"] = "a file"
    if dataset.vocabulary is not None:
        config["vocabulary"] = dataset.vocabulary
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _unchanged(folder: Path, dataset: DatasetConfig, inputs: Inputs) -> Prepared | None:
    """What the folder holds, if it is whole and made from the same."""
    if not os.path.lexists(folder / FILE):
        return None
    try:
        made = read_artefact(folder / FILE, PrepareRecord)
        if not _is_of(made, dataset, inputs):
            return None
        return _open(folder, dataset, Encoder.load(folder), _reports(made), made.stores)
    except UserError as error:  # the raw files are there to make it again
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
        store = open_store(folder / split, manifest, verify=False)
        if store.features != encoder.features or manifest.encoder != encoder.hash:
            raise UserError(
                "not of the encoder beside it", file=folder / split, remedy="prepare again"
            )
        rows[split] = replace(store, features=store.features.with_lengths(dataset))
    return Prepared(folder, encoder, rows["train"], rows["valid"], report)
