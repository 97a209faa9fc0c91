"""Convert columns to the few Arrow types that the encoder reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as of

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_UUID_GROUPS = np.r_[0:8, 9:13, 14:18, 19:23, 24:36]  # positions of the digits between the hyphens


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """The type that `plain` converts a column of this type to.

    Text becomes `string` (`large_string` is kept), bytes `binary`, a UUID its text, lists `list` or
    `large_list`, times are in microseconds, and dates `date32`. Only dictionaries of text are kept.
    Structs, maps and unions are unchanged.
    """
    if isinstance(dtype, pa.UuidType):
        return pa.string()
    if isinstance(dtype, pa.BaseExtensionType):
        return plain_type(dtype.storage_type)
    if of.is_dictionary(dtype):
        value = plain_type(dtype.value_type)
        texts = of.is_string(value) or of.is_large_string(value)
        return pa.dictionary(dtype.index_type, value) if texts else value
    if of.is_list(dtype) or of.is_fixed_size_list(dtype) or of.is_list_view(dtype):
        return pa.list_(plain_type(dtype.value_type))
    if of.is_large_list(dtype) or of.is_large_list_view(dtype):
        return pa.large_list(plain_type(dtype.value_type))
    if of.is_string_view(dtype):
        return pa.string()
    if of.is_binary_view(dtype) or of.is_large_binary(dtype) or of.is_fixed_size_binary(dtype):
        return pa.binary()
    if of.is_timestamp(dtype):
        return pa.timestamp("us", dtype.tz)
    if of.is_time(dtype):
        return pa.time64("us")
    if of.is_duration(dtype):
        return pa.duration("us")
    if of.is_date(dtype):
        return pa.date32()
    if of.is_decimal32(dtype) or of.is_decimal64(dtype):
        return pa.decimal128(dtype.precision, dtype.scale)
    return dtype


def plain(array: pa.Array) -> pa.Array:
    """Convert a column to its `plain_type`; nanoseconds are truncated to microseconds.

    Raises:
        ArrowInvalid: a time is out of range for int64 microseconds.
    """
    if isinstance(array.type, pa.UuidType):
        return _uuid_texts(array)
    if isinstance(array.type, pa.BaseExtensionType):
        return plain(array.storage)
    dtype = plain_type(array.type)
    if array.type == dtype:
        return array
    if isinstance(array, pa.FixedSizeListArray | pa.ListViewArray | pa.LargeListViewArray):
        return _lists(array)
    return array.cast(dtype, safe="[ns" not in str(array.type))


def _lists(array: pa.Array) -> pa.Array:
    """Convert fixed-size lists and list views (Arrow's cast of a list view is not always valid)."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(np.append(0, lengths))
    missing = array.is_null() if array.null_count else None
    values = plain(array.flatten())
    if isinstance(array, pa.LargeListViewArray):
        return pa.LargeListArray.from_arrays(ends, values, mask=missing)
    return pa.ListArray.from_arrays(ends.astype(np.int32), values, mask=missing)


def _uuid_texts(array: pa.Array) -> pa.Array:
    storage = array.storage
    present = storage.drop_null()
    data = np.frombuffer(b"".join(present.to_pylist()), np.uint8).reshape(-1, 16)
    text = np.full((len(data), 36), ord("-"), np.uint8)
    text[:, _UUID_GROUPS] = _HEX[np.stack([data >> 4, data & 15], axis=2).reshape(len(data), 32)]
    offsets = np.arange(len(data) + 1, dtype=np.int32) * 36
    texts = pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(text))
    if not storage.null_count:
        return texts
    known = storage.is_valid().to_numpy(zero_copy_only=False)
    places = pa.array(np.cumsum(known) - 1, pa.int64(), mask=~known)
    return texts.take(places)


def to_single_values(dtype: pa.DataType) -> str:
    """The remedy for a nested column where a single value per row is expected."""
    if of.is_struct(dtype):
        return "write each of its fields as a separate column"
    if (of.is_list(dtype) or of.is_large_list(dtype)) and not of.is_nested(dtype.value_type):
        return "declare it as type: sequence, or write one value a row"
    return "write one value, or one list of values, a row"
