"""The typed config: what FuxiCTR's YAML dialect says, validated and immutable.

Reading the files, `Base` inheritance and `--set` are in `config.loader`; a model's own
hyperparameters are a subclass of `ModelConfig` that stands beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from tossctr.config.choices import Objective
from tossctr.config.messages import suggestion
from tossctr.config.nulls import NA_VALUES, as_na_values
from tossctr.errors import UserError
from tossctr.location import Location, same_place
from tossctr.metrics.monitor import Mode, mode_of, modes_of
from tossctr.metrics.registry import METRICS, PARAMETRIZED, find_metric, is_metric
from tossctr.redaction import redacted

FeatureType = Literal["categorical", "numeric", "sequence", "time", "meta"]
Dtype = Literal["str", "int", "float"]

# quantile: the rank among training values, 0 to 1; signed_log: sign(x) log(1 + |x|), standardised.
Normalizer = Literal["MinMaxScaler", "StandardScaler", "quantile", "signed_log"]

NumericEmbedding = Literal["linear", "piecewise", "periodic"]

_FOLDER_NAME = r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$"  # of one folder, not . or ..
_MOST_LAYERS = 1000
_LARGEST = 2**31 - 1  # of a count: more overflows where counts are multiplied
_WIDEST = 2**16  # of a layer: a square map of that width takes 17 GB
_MOST_PROCESSES = 1024

Seed = Annotated[int, Field(ge=0, le=_LARGEST)]  # what numpy, torch and LightGBM all take
Width = Annotated[int, Field(ge=1, le=_WIDEST)]
HiddenUnits = Annotated[tuple[Width, ...], Field(max_length=_MOST_LAYERS)]


class _Frozen(BaseModel):
    """Immutable and finite (JSON has no NaN); an unknown key is an error, not a swallowed typo."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if type(value) is int and abs(value) > _LARGEST and name != "fill_na":
                raise ValueError(f"{name} is larger than any size: {value}")
        return self


class FeatureConfig(_Frozen):
    """One input column, as declared under `feature_cols` (a list of names is expanded).

    `type: sequence` with `dtype: str|int` is a sequence of ids, with `dtype: float` one of numbers.
    `type: time` is a time stamp kept as a number (never through a vocabulary); with a `splitter`
    it is the times of a history. `type: meta` is carried but never a model input (a group id).
    """

    name: str
    type: FeatureType
    dtype: Dtype
    active: bool = True
    source: str = ""
    # categorical and sequence
    min_categr_count: int | None = Field(None, ge=1)  # None: the data set's
    remap: bool = True  # False: tokens are already indices
    share_embedding: str | None = None  # use that feature's vocabulary and table
    vocab_size: int | None = Field(None, ge=2)  # only with remap: false
    fill_na: str | int | float | None = None  # categorical: None sends missing to OOV; numeric: 0
    # sequence and time
    splitter: str | None = None
    max_len: int | None = Field(None, ge=1)  # events kept in training; None: all
    truncating: Literal["pre", "post"] = "pre"  # pre drops the oldest
    # numeric
    normalizer: Normalizer | None = None
    # model side
    embedding_dim: Width | None = None
    feature_encoder: str | None = None  # pooling of a sequence in models without attention

    @property
    def is_sequence(self) -> bool:
        return self.type == "sequence" or (self.type == "time" and self.splitter is not None)


class LabelSpec(_Frozen):
    """The column to predict: 1 for a click, 0 for none."""

    name: str
    dtype: Literal["int", "float"] = "float"


class ValidSplit(_Frozen):
    """How validation rows are taken from `train_data` where `valid_data` is not given.

    `time`: the last part of the file (rows are in time order); `random`: each row by itself;
    `stratified`: random, with the same share of each label.
    """

    method: Literal["time", "random", "stratified"] = "time"
    fraction: float = Field(0.1, gt=0, lt=1)
    seed: Seed = 2024


def _only_one(value: Any) -> Any:
    # FuxiCTR also writes a list of labels, of which a model here has one.
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class DatasetConfig(_Frozen):
    """One entry of dataset_config.yaml. Paths are absolute once loaded."""

    dataset_id: str = Field(pattern=_FOLDER_NAME)
    data_root: Path = Path("data")
    data_format: str | None = None  # csv, parquet or h5; None: by the names of the files
    train_data: Location  # a file, a folder of Parquet or CSV files, or the URL of one
    valid_data: Location | None = None
    test_data: Location | None = None
    sample_submission: Path | None = None
    rebuild_dataset: bool = True  # False: files of FuxiCTR's indices, with its feature_map.json
    vocabulary: str | None = None  # of such files: the hash that each must carry, found on loading
    id_col: str | None = None  # names the rows of test_data, as in sample_submission
    max_rows: int | None = Field(None, ge=1)  # only the first rows of train_data
    group_id: str | None = None  # of its experiments that give none, see there
    min_categr_count: int = Field(1, ge=1)
    # Texts that mean a missing value in any column, beside the empty one; default: pandas' list
    na_values: Annotated[tuple[str, ...], BeforeValidator(as_na_values)] = NA_VALUES
    drop_redundant: bool = False  # constant columns, and those that repeat an earlier one
    valid_split: ValidSplit = ValidSplit()
    label_col: Annotated[LabelSpec, BeforeValidator(_only_one)]
    objective: Objective = "logloss"  # what predictions are calibrated for; changes no weight
    feature_cols: tuple[FeatureConfig, ...]

    @property
    def encoded(self) -> bool:
        """Whether the files hold indices, not raw values."""
        return self.vocabulary is not None

    @property
    def files(self) -> list[Location]:
        """The raw files that it names."""
        return [path for key in _FILES if (path := getattr(self, key)) is not None]

    @property
    def features(self) -> tuple[FeatureConfig, ...]:
        """The active features, in the order declared."""
        return tuple(f for f in self.feature_cols if f.active)

    def rows_differ(self, other: DatasetConfig) -> str | None:
        """The first key by which two data sets are not of the same rows, in the same parts."""
        return next((key for key in _OF_ROWS if self._differs(other, key)), None)

    def _differs(self, other: DatasetConfig, key: str) -> bool:
        mine, theirs = getattr(self, key), getattr(other, key)
        if isinstance(mine, Path | str) and isinstance(theirs, Path | str) and key in _FILES:
            return not same_place(mine, theirs)
        return bool(mine != theirs)


# Which rows a data set has, and what they are called; all else is what is made of them.
_FILES = ("train_data", "valid_data", "test_data", "sample_submission")
_OF_ROWS = (*_FILES, "id_col", "label_col", "max_rows", "valid_split")


def _as_metric_weights(value: Any) -> Any:
    # FuxiCTR writes either `monitor: AUC` or `monitor: {AUC: 1, logloss: -1}`.
    return {value: 1.0} if isinstance(value, str) else value


def _number_as_text(value: Any) -> Any:
    # YAML reads 16 as a number.
    return str(value) if type(value) is int else value


def _on_or_off(value: Any) -> Any:
    # YAML 1.1 reads on and off as true and false.
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainingConfig(_Frozen):
    """The keys of a model_config.yaml experiment that any model shares."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(2048, ge=1)  # rows per optimiser step
    micro_batch_events: int | None = Field(None, ge=1)  # executed at once; None: what fits a GPU
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = (
        "auto"  # run Transformer blocks again in the backward pass; auto: where nothing else fits
    )
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(_number_as_text)] = (
        "32"  # of the products; weights stay in 32 bits
    )
    negative_sampling: float = Field(1.0, gt=0, le=1)  # share of non-clicks drawn each epoch
    shuffle: bool = True
    seed: Seed = 2024
    loss: Literal["binary_crossentropy", "weighted_bce", "focal", "pairwise"] = (
        "binary_crossentropy"
    )
    positive_weight: float = Field(10.0, gt=0)  # weighted_bce: of a click, a non-click's is 1
    focal_gamma: float = Field(2.0, ge=0)
    pairwise_weight: float = Field(1.0, ge=0)  # of the pairs' term beside the cross entropy
    optimizer: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float | None = Field(None, ge=0)  # of adamw alone, per step; None: 0.01
    max_gradient_norm: float = Field(10.0, gt=0)
    embedding_regularizer: float | str | None = None
    net_regularizer: float | str | None = None
    metrics: tuple[str, ...] = ("AUC", "logloss")
    group_id: str | None = None  # the feature whose value groups rows, for gAUC and its like
    monitor: Annotated[dict[str, float], BeforeValidator(_as_metric_weights)] = {"AUC": 1.0}
    monitor_mode: Mode = Field(
        default_factory=lambda given: mode_of(given["monitor"])  # given, it must agree with that
    )
    early_stop_patience: int = Field(2, ge=1)
    reduce_lr_on_plateau: bool = True
    eval_steps: int | None = Field(None, ge=1)  # optimiser steps between validations; None: epoch
    max_len: int | None = Field(None, ge=1)  # overrides the data set's, for every sequence
    on_nonfinite: Literal["stop", "skip"] = "stop"  # at a batch whose loss or gradient is not
    checkpoint_minutes: float = Field(10, gt=0)  # between two from which training can go on
    num_workers: int = Field(1, ge=0, le=_MOST_PROCESSES)
    model_root: Path = Path("checkpoints")
    mlflow_uri: Annotated[
        str | None, PlainSerializer(lambda uri: uri and redacted(uri), when_used="json")
    ] = None  # a tracking server, or sqlite:///runs.db; None: not logged there
    verbose: Literal[0, 1, 2] = 1  # 0: only errors; 2: the resolved config too

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, values: Any) -> Any:
        # FuxiCTR's files spell "not set" as null for any key.
        return (
            {k: v for k, v in values.items() if v is not None}
            if isinstance(values, dict)
            else values
        )

    @model_validator(mode="after")
    def _decay_of_adamw(self) -> Self:
        if self.weight_decay is not None and self.optimizer != "adamw":
            raise UserError(
                f"is adamw's, and the optimizer is {self.optimizer}", key="weight_decay",
                value=self.weight_decay, remedy="give net_regularizer and embedding_regularizer",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        for key, names in (("metrics", self.metrics), ("monitor", tuple(self.monitor))):
            for name in names:
                if not is_metric(name):
                    raise UserError(
                        "names an unknown metric", key=key, value=name,
                        remedy=suggestion(name, (*METRICS, *PARAMETRIZED)),
                    )  # fmt: skip
                if find_metric(name).needs_groups and self.group_id is None:
                    raise UserError(
                        f"names {name}, which needs groups", key=key,
                        remedy="give group_id, a feature",
                    )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        modes = modes_of(self.monitor)
        if not modes:
            raise UserError(
                "weighs no metric", key="monitor", value=self.monitor,
                remedy="give a metric the weight 1",
            )  # fmt: skip
        if len(modes) == 2:
            signs = {True: "", False: "-"}
            right = (
                f"{n}: {signs[find_metric(n).higher_is_better]}{abs(w):g}"
                for n, w in self.monitor.items()
            )
            raise UserError(
                "adds metrics that are better large to ones that are better small", key="monitor",
                value=self.monitor, remedy=f"write {{{', '.join(right)}}}",
            )  # fmt: skip
        if self.monitor_mode not in modes:
            small = "small" if "min" in modes else "large"
            raise UserError(
                f"contradicts monitor, which is better {small}: {', '.join(self.monitor)}",
                key="monitor_mode", value=self.monitor_mode,
                remedy="leave monitor_mode out: the metrics say which way is better",
            )  # fmt: skip
        return self


class ModelConfig(_Frozen):
    """Base of each model's own hyperparameters.

    Attributes:
        without_effect: keys of every experiment that this model has no use for, and which of its
            own to give instead (None: none). In `Base`, which is for all models, they are left
            aside; given for the experiment itself they are an error.
    """

    without_effect: ClassVar[Mapping[str, str | None]] = {}

    embedding_dim: Width = 16
    numeric_embedding: NumericEmbedding = "linear"  # others expect inputs of about [0, 1]

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        # Each layer is an object: a million take minutes, before any check of memory.
        for name in type(self).model_fields:
            if name.endswith("layers") and getattr(self, name) > _MOST_LAYERS:
                raise ValueError(f"{name} is more than {_MOST_LAYERS}: {getattr(self, name)}")
        return self


class Experiment(_Frozen):
    """One experiment id: what to train, on what, how."""

    expid: str = Field(pattern=_FOLDER_NAME)
    model: str
    dataset: DatasetConfig
    training: TrainingConfig
    hyperparameters: ModelConfig
