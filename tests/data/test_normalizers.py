"""`quantile` and `signed_log`: against scikit-learn and NumPy, however the rows are cut."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import QuantileTransformer

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.quantiles import SAMPLE, Quantiles, QuantileSample, row_hashes
from tossctr.errors import UserError


def fitted(values, normalizer, cuts=(), **feature):
    config = DatasetConfig(
        dataset_id="d",
        train_data="train.parquet",
        label_col={"name": "y"},
        feature_cols=[
            {"name": "x", "type": "numeric", "dtype": "float", "normalizer": normalizer, **feature}
        ],
    )
    y = np.arange(len(values)) % 2
    batch = pa.RecordBatch.from_pydict({"x": pa.array(values, from_pandas=True), "y": y})
    bounds = [0, *cuts, len(values)]
    parts = [batch.slice(a, b - a) for a, b in pairwise(bounds)]
    return Encoder.fit(config, parts), batch


def scaled(encoder, values):
    batch = pa.RecordBatch.from_pydict({"x": pa.array(values, from_pandas=True)})
    return encoder.transform(batch, labelled=False).numeric[:, 0]


def test_ranks_are_scikit_learns():
    x = np.random.default_rng(0).lognormal(0, 3, 5000)
    encoder, _ = fitted(x, "quantile")
    reference = QuantileTransformer(n_quantiles=257).fit(x[:, None])
    there = np.random.default_rng(1).lognormal(0, 3, 300)
    np.testing.assert_allclose(
        scaled(encoder, there), reference.transform(there[:, None])[:, 0], atol=4e-3
    )
    assert scaled(encoder, [-1e9, x.min(), x.max(), 1e30]).tolist() == [0, 0, 1, 1]


def test_ties_have_the_middle_of_their_ranks():
    x = np.r_[np.zeros(900), np.arange(1, 101)]
    encoder, _ = fitted(x, "quantile")
    got = scaled(encoder, [0, 50, np.nan])
    assert got[0] == pytest.approx(0.45, abs=0.01)
    assert got[1] == pytest.approx(0.95, abs=0.01)
    assert np.isnan(got[2])
    assert encoder.features["x"].missing == got[0]  # networks take a missing number for 0
    assert scaled(fitted(np.full(50, 7.0), "quantile")[0], [7, 8]).tolist() == [0.5, 0.5]


def test_the_sample_does_not_depend_on_cuts_or_order():
    x = np.random.default_rng(0).normal(size=3 * SAMPLE)
    one, _ = fitted(x, "quantile")
    many, _ = fitted(x, "quantile", cuts=range(1000, len(x), 7777))
    assert one.hash == many.hash
    halves = [QuantileSample(), QuantileSample()]
    for sample, rows in zip(halves, np.array_split(np.arange(len(x)), 2), strict=True):
        sample.update(x[rows], 0.0, row_hashes(rows))
    halves[1].merge(halves[0])
    assert halves[1].quantiles(x.min(), x.max()) == one.state.quantiles["x"]
    assert len(halves[1].values) == SAMPLE
    exact = (np.argsort(np.argsort(x)) + 0.5) / len(x)
    assert np.abs(scaled(one, x) - exact).max() < 0.02


def test_signed_log_is_standardised():
    x = np.random.default_rng(0).normal(size=400) ** 3 * 50
    x[3] = np.nan
    encoder, _ = fitted(x, "signed_log", fill_na=-2, cuts=(100,))
    filled = np.where(np.isnan(x), -2, x)
    logs = np.sign(filled) * np.log1p(np.abs(filled))
    expected = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(scaled(encoder, x), expected, rtol=1e-5, atol=1e-6)


def test_saved_and_read_again(tmp_path):
    x = np.random.default_rng(0).normal(size=400)
    encoder, _ = fitted(x, "quantile")
    encoder.save(tmp_path)
    again = Encoder.load(tmp_path)
    assert again.hash == encoder.hash
    assert scaled(again, x).tolist() == scaled(encoder, x).tolist()


@pytest.mark.parametrize("normalizer", ["quantile", "signed_log"])
def test_infinite_numbers_are_refused_by_row(normalizer):
    encoder, _ = fitted(np.arange(9.0), normalizer)
    with pytest.raises(UserError, match=r"row 2.*inf"):
        scaled(encoder, [1.0, 2.0, np.inf])
    with pytest.raises(UserError, match=r"row 1.*inf"):
        fitted(np.array([1.0, np.inf]), normalizer)


@pytest.mark.parametrize("fill", ["nan", "-inf", 1e39, "x"])
def test_what_a_missing_number_is_filled_with_is_a_number(fill):
    with pytest.raises(UserError, match=r"feature 'x': fill_na .* is not a number"):
        fitted(np.arange(9.0), None, fill_na=fill)


def test_a_filled_number_that_no_float32_holds_once_scaled_is_refused():
    encoder, _ = fitted(np.arange(9.0) * 1e-30, "StandardScaler", fill_na=1e30)
    with pytest.raises(UserError, match="column x, row 1: an infinite or too large number"):
        scaled(encoder, [1.0, np.nan])


def test_quantiles_are_of_single_numbers():
    with pytest.raises(UserError, match="single numbers"):
        fitted(np.arange(9.0), "quantile", type="sequence")


@pytest.mark.parametrize(
    ("values", "ranks"), [((), ()), ((1.0, 1.0), (0.0, 1.0)), ((1.0, 2.0), (0.5, 0.1))]
)
def test_invalid_quantile_ranks_are_refused(values, ranks):
    with pytest.raises(ValueError, match="values"):
        Quantiles(values=values, ranks=ranks)
