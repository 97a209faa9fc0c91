"""The raw files of the Toss NEXT ML Challenge: 119 columns in order, with Arrow types.

The last column of train is `clicked`; test has `ID` as its first column instead.
"""

from __future__ import annotations

import pyarrow as pa

ID = "ID"
LABEL = "clicked"
SEQUENCE = "seq"  # event ids joined by commas, oldest first
CATEGORICAL = ("gender", "age_group", "inventory_id", "day_of_week", "hour")


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}_{i}" for i in range(1, count + 1))


L_FEATURES = _numbered("l_feat", 27)
E_FEATURES = _numbered("feat_e", 10)
D_FEATURES = _numbered("feat_d", 6)
C_FEATURES = _numbered("feat_c", 8)
B_FEATURES = _numbered("feat_b", 6)
A_FEATURES = _numbered("feat_a", 18)
NUMERIC = L_FEATURES + E_FEATURES + D_FEATURES + C_FEATURES + B_FEATURES + A_FEATURES
HISTORY = _numbered("history_a", 7) + _numbered("history_b", 30)
FEATURES = (*CATEGORICAL, SEQUENCE, *NUMERIC, *HISTORY)

FEATURE_SCHEMA = pa.schema(
    [
        (name, pa.string() if name in CATEGORICAL or name == SEQUENCE else pa.float32())
        for name in FEATURES
    ]
)
TRAIN_SCHEMA = FEATURE_SCHEMA.append(pa.field(LABEL, pa.int32()))
TEST_SCHEMA = FEATURE_SCHEMA.insert(0, pa.field(ID, pa.string()))
SUBMISSION_SCHEMA = pa.schema([(ID, pa.string()), (LABEL, pa.int64())])
