"""Fit the encoder on the training rows, and write the stores of both splits."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.encoding.statistics import Stats
from tossctr.data.preparing.passes import Passes
from tossctr.data.preparing.splits import SPLITS, Splits
from tossctr.data.preparing.time_order import TimeOrders
from tossctr.data.store import StoreWriter
from tossctr.errors import UserError
from tossctr.files import writing
from tossctr.progress import say, track


def fit_encoder(dataset: DatasetConfig, splits: Splits, passes: Passes) -> Encoder:
    """Fit on all training rows.

    Raises:
        UserError: a value that cannot be encoded, no rows, or only one label.
    """
    total = Stats.of(dataset)
    found = passes.statistics(total.like())
    with track("fit", splits.train_rows) as advance, closing(found):
        for stats, rows in found:
            total.merge(stats)
            advance(rows)
    file = dataset.train_data
    if not total.rows:
        raise UserError("no rows to train on", file=file, remedy="give a file with more rows")
    if not total.label_counts.all():
        raise UserError(
            "every training row has the same label",
            file=file,
            column=dataset.label_col.name,
            value=int(total.label_counts[1] > 0),
            remedy="training needs both 0 and 1: give more rows, or check label_col",
        )
    for name, events in total.longest.items():
        if events == 1 and total.rows > 1:
            splitter = next(c.splitter for c in total.columns if c.name == name)
            say(
                f"warning: column {name}: no row contains the splitter {splitter!r}, so every"
                " history is a single id; tossctr check detects the splitter"
            )
    return Encoder.from_stats(dataset, total)


def write_stores(
    splits: Splits, passes: Passes, encoder: Encoder, folder: Path
) -> dict[str, EncodingReport]:
    """Write `train/` and `valid/`, and report unseen and missing values of each.

    Raises:
        UserError: a value that cannot be encoded, no validation rows, or a full disk.
    """
    reports = {split: EncodingReport() for split in SPLITS}
    order = TimeOrders(splits.dataset, encoder)
    with writing(folder), ExitStack() as stack:
        writers = {
            split: stack.enter_context(StoreWriter(folder / split, encoder.features, encoder.hash))
            for split in SPLITS
        }
        advance = stack.enter_context(track("transform", splits.rows))
        for encoded in stack.enter_context(closing(passes.encoded(encoder, folder))):
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
