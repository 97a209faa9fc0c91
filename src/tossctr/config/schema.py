"""Schemas of FuxiCTR's YAML dialect: validated, typed and immutable.

`config.entries` reads the files; each model defines its hyperparameters as a subclass of
`ModelConfig`.
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
from tossctr.config.metrics import check_metrics
from tossctr.config.nulls import NA_VALUES, as_na_values
from tossctr.errors import UserError
from tossctr.location import Location, same_place
from tossctr.metrics.monitor import Mode, mode_of
from tossctr.redaction import redacted

FeatureType = Literal["categorical", "numeric", "sequence", "time", "meta"]
Dtype = Literal["str", "int", "float"]

# quantile: the rank among training values, 0 to 1; signed_log: sign(x) log(1 + |x|), standardised.
Normalizer = Literal["MinMaxScaler", "StandardScaler", "quantile", "signed_log"]

NumericEmbedding = Literal["linear", "piecewise", "periodic"]

_FOLDER_NAME = r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$"  # a single folder name, not . or ..
_MOST_LAYERS = 1000
_LARGEST = 2**31 - 1  # for any count, as products of counts must not overflow
_WIDEST = 2**16  # for a layer: its square weight matrix takes 17 GB
_MOST_PROCESSES = 1024

Seed = Annotated[int, Field(ge=0, le=_LARGEST)]  # accepted by numpy, torch and boosting libraries
Width = Annotated[int, Field(ge=1, le=_WIDEST)]
HiddenUnits = Annotated[tuple[Width, ...], Field(max_length=_MOST_LAYERS)]


class _Frozen(BaseModel):
    """Immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if type(value) is int and abs(value) > _LARGEST and name != "fill_na":
                raise ValueError(f"{name} is too large: {value}")
        return self


class FeatureConfig(_Frozen):
    """One input column, as declared under `feature_cols` (a list of names is expanded).

    `type: sequence` with `dtype: str` or `int` is a sequence of ids, with `dtype: float` of
    numbers. `type: time` is a timestamp as a number; with a `splitter` it is a sequence of
    timestamps. `type: meta` is not a model input (a group id).
    """

    name: str
    type: FeatureType
    dtype: Dtype
    active: bool = True
    source: str = ""
    # categorical and sequence
    min_categr_count: int | None = Field(None, ge=1)  # None: the data set's
    remap: bool = True  # False: values are indices already
    share_embedding: str | None = None  # feature whose vocabulary and embedding table to use
    vocab_size: int | None = Field(None, ge=2)  # only with remap: false
    fill_na: str | int | float | None = None  # None: OOV for categorical, 0 for numeric
    # sequence and time
    splitter: str | None = None
    max_len: int | None = Field(None, ge=1)  # most events of a history; None: all
    truncating: Literal["pre", "post"] = "pre"  # pre: cut the oldest events
    # numeric
    normalizer: Normalizer | None = None
    # model
    embedding_dim: Width | None = None
    feature_encoder: str | None = None  # pooling of a sequence, in models without attention

    @property
    def is_sequence(self) -> bool:
        return self.type == "sequence" or (self.type == "time" and self.splitter is not None)


class LabelSpec(_Frozen):
    """The label column: 1 for a click, 0 otherwise."""

    name: str
    dtype: Literal["int", "float"] = "float"


class ValidSplit(_Frozen):
    """How validation rows are split off `train_data` if there is no `valid_data`.

    `time`: the last rows of the file, which is in time order; `random`: each row independently;
    `stratified`: at random, with the same share of each label.
    """

    method: Literal["time", "random", "stratified"] = "time"
    fraction: float = Field(0.1, gt=0, lt=1)
    seed: Seed = 2024


def _only_one(value: Any) -> Any:
    # FuxiCTR also accepts a list of labels.
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class DatasetConfig(_Frozen):
    """One entry of dataset_config.yaml. Paths are absolute once loaded."""

    dataset_id: str = Field(pattern=_FOLDER_NAME)
    data_root: Path = Path("data")
    data_format: str | None = None  # csv, parquet or h5; None: by the names of the files
    train_data: Location  # a file, a folder of files, or a URL
    valid_data: Location | None = None
    test_data: Location | None = None
    sample_submission: Path | None = None
    rebuild_dataset: bool = True  # False: files hold indices of FuxiCTR's feature_map.json
    vocabulary: str | None = None  # hash of that vocabulary, set on loading
    id_col: str | None = None  # ids of test_data's rows, as in sample_submission
    max_rows: int | None = Field(None, ge=1)  # of train_data, from its start
    group_id: str | None = None  # default for experiments, see TrainingConfig
    min_categr_count: int = Field(1, ge=1)
    # Texts that mean a missing value, as empty text does; default: pandas' list
    na_values: Annotated[tuple[str, ...], BeforeValidator(as_na_values)] = NA_VALUES
    drop_redundant: bool = False  # drop constant and duplicate columns
    valid_split: ValidSplit = ValidSplit()
    label_col: Annotated[LabelSpec, BeforeValidator(_only_one)]
    objective: Objective = "logloss"  # what predictions are calibrated for, after training
    feature_cols: tuple[FeatureConfig, ...]

    @property
    def encoded(self) -> bool:
        """Whether the files hold indices instead of raw values."""
        return self.vocabulary is not None

    @property
    def files(self) -> list[Location]:
        """All raw files."""
        return [path for key in _FILES if (path := getattr(self, key)) is not None]

    @property
    def features(self) -> tuple[FeatureConfig, ...]:
        """The active features, in the order declared."""
        return tuple(f for f in self.feature_cols if f.active)

    def rows_differ(self, other: DatasetConfig) -> str | None:
        """The first key by which two data sets differ in rows or in splits."""
        return next((key for key in _OF_ROWS if self._differs(other, key)), None)

    def _differs(self, other: DatasetConfig, key: str) -> bool:
        mine, theirs = getattr(self, key), getattr(other, key)
        if isinstance(mine, Path | str) and isinstance(theirs, Path | str) and key in _FILES:
            return not same_place(mine, theirs)
        return bool(mine != theirs)


# Keys that determine the rows and splits of a data set.
_FILES = ("train_data", "valid_data", "test_data", "sample_submission")
_OF_ROWS = (*_FILES, "id_col", "label_col", "max_rows", "valid_split")


def _as_metric_weights(value: Any) -> Any:
    # FuxiCTR accepts `monitor: AUC` and `monitor: {AUC: 1, logloss: -1}`.
    return {value: 1.0} if isinstance(value, str) else value


def _number_as_text(value: Any) -> Any:
    # YAML reads 16 as an integer.
    return str(value) if type(value) is int else value


def _on_or_off(value: Any) -> Any:
    # YAML 1.1 reads on and off as true and false.
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainingConfig(_Frozen):
    """Keys of an experiment in model_config.yaml that all models share."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(2048, ge=1)  # rows per optimizer step
    micro_batch_events: int | None = Field(None, ge=1)  # events per forward pass; None: auto
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = (
        "auto"  # recompute Transformer blocks in the backward pass; auto: only if memory is short
    )
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(_number_as_text)] = (
        "32"  # of matrix products; weights are float32
    )
    negative_sampling: float = Field(1.0, gt=0, le=1)  # share of non-clicks sampled in each epoch
    shuffle: bool = True
    seed: Seed = 2024
    loss: Literal["binary_crossentropy", "weighted_bce", "focal", "pairwise"] = (
        "binary_crossentropy"
    )
    positive_weight: float = Field(10.0, gt=0)  # weighted_bce: weight of a click; 1 for a non-click
    focal_gamma: float = Field(2.0, ge=0)
    pairwise_weight: float = Field(1.0, ge=0)  # pairwise: weight of that term
    optimizer: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float | None = Field(None, ge=0)  # adamw only; None: 0.01
    max_gradient_norm: float = Field(10.0, gt=0)
    embedding_regularizer: float | str | None = None
    net_regularizer: float | str | None = None
    metrics: tuple[str, ...] = ("AUC", "logloss")
    group_id: str | None = None  # feature that groups rows, for gAUC and other grouped metrics
    monitor: Annotated[dict[str, float], BeforeValidator(_as_metric_weights)] = {"AUC": 1.0}
    monitor_mode: Mode = Field(
        default_factory=lambda given: mode_of(given["monitor"])  # an explicit value must agree
    )
    early_stop_patience: int = Field(2, ge=1)
    reduce_lr_on_plateau: bool = True
    eval_steps: int | None = Field(None, ge=1)  # steps between validations; None: one epoch
    max_len: int | None = Field(None, ge=1)  # overrides the data set's for all sequences
    on_nonfinite: Literal["stop", "skip"] = "stop"  # if a loss or gradient is not finite
    checkpoint_minutes: float = Field(10, gt=0)  # minutes between checkpoints to resume from
    num_workers: int = Field(1, ge=0, le=_MOST_PROCESSES)
    model_root: Path = Path("checkpoints")
    mlflow_uri: Annotated[
        str | None, PlainSerializer(lambda uri: uri and redacted(uri), when_used="json")
    ] = None  # tracking server or sqlite:///runs.db; None: no MLflow
    verbose: Literal[0, 1, 2] = 1  # 0: errors only; 2: also the resolved config

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, values: Any) -> Any:
        # In FuxiCTR's files, null means the default.
        return (
            {k: v for k, v in values.items() if v is not None}
            if isinstance(values, dict)
            else values
        )

    @model_validator(mode="after")
    def _decay_of_adamw(self) -> Self:
        if self.weight_decay is not None and self.optimizer != "adamw":
            raise UserError(
                f"is only for adamw, and the optimizer is {self.optimizer}", key="weight_decay",
                value=self.weight_decay, remedy="give net_regularizer and embedding_regularizer",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        check_metrics(self.metrics, self.monitor, self.monitor_mode, self.group_id)
        return self


class ModelConfig(_Frozen):
    """Base class of the models' hyperparameters.

    Attributes:
        without_effect: keys of `TrainingConfig` that this model does not use, and its own key to
            give instead (None: none). They are ignored in `Base`, and an error in an experiment.
    """

    without_effect: ClassVar[Mapping[str, str | None]] = {}

    embedding_dim: Width = 16
    numeric_embedding: NumericEmbedding = "linear"  # others expect inputs of about [0, 1]

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        # A million layers would take minutes to construct, before any check of memory.
        for name in type(self).model_fields:
            if name.endswith("layers") and getattr(self, name) > _MOST_LAYERS:
                raise ValueError(f"{name} is more than {_MOST_LAYERS}: {getattr(self, name)}")
        return self


class Experiment(_Frozen):
    """An experiment: model, data set, training and hyperparameters."""

    expid: str = Field(pattern=_FOLDER_NAME)
    model: str
    dataset: DatasetConfig
    training: TrainingConfig
    hyperparameters: ModelConfig
