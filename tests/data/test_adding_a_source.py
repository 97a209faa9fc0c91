"""Another file format: a `Source` class and an entry in `FORMATS`, as CONTRIBUTING.md says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from frames import FEATURES, dataset, raw_table, write

from tossctr.config.schema import Dtype
from tossctr.data.prepare import prepare
from tossctr.data.sources.base import Source
from tossctr.data.sources.bounded import bounded
from tossctr.data.sources.opening import open_source
from tossctr.data.sources.registry import FORMATS, FileFormat
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.location import Location

TABLE = raw_table(120, seed=4)


class JsonLinesSource(Source):
    """One JSON object a line."""

    def __init__(
        self, path: Location, types: Mapping[str, Dtype], na_values: Sequence[str]
    ) -> None:
        self.path = path
        with Path(path).open() as file:
            self.names = tuple(json.loads(next(file)))
        self.columns = tuple(types) or self.names

    @property
    def num_rows(self) -> None:
        return None

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        with Path(self.path).open() as file:
            lines = islice(file, start, stop)
            while rows := [json.loads(line) for line in islice(lines, batch_rows)]:
                batch = pa.RecordBatch.from_pydict({c: [r[c] for r in rows] for c in columns})
                yield from bounded(batch, batch_rows, Where(start, self.path))
                start += len(rows)


@pytest.fixture(autouse=True)
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl = FileFormat(f"{__name__}:JsonLinesSource", (".jsonl",))
    monkeypatch.setitem(FORMATS, "jsonl", jsonl)


def as_json_lines(table: pa.Table, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def test_it_prepares_to_the_store_of_the_same_rows_in_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    as_json_lines(TABLE.slice(0, 50), folder / "part-1.jsonl")
    as_json_lines(TABLE.slice(50), folder / "part-2.jsonl")
    paths = [
        write(TABLE, tmp_path / "rows.parquet"),
        as_json_lines(TABLE, tmp_path / "rows.jsonl"),
        folder,
    ]
    expected, *others = [
        prepare(dataset(tmp_path / str(i), path, *FEATURES)) for i, path in enumerate(paths)
    ]
    for found in others:
        assert found.encoder.hash == expected.encoder.hash
        for split in ("train", "valid"):
            ours, theirs = getattr(found, split), getattr(expected, split)
            np.testing.assert_array_equal(ours.categorical, theirs.categorical)
            np.testing.assert_array_equal(ours.numeric, theirs.numeric)
            np.testing.assert_array_equal(ours.label, theirs.label)


def test_errors_name_the_file_and_the_column(tmp_path: Path) -> None:
    path = as_json_lines(TABLE, tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl: no column 'other'"):
        open_source(path, {"other": "str"})
    with pytest.raises(UserError, match="is read as jsonl by its name"):
        prepare(dataset(tmp_path, path, *FEATURES, data_format="parquet"))
