"""Compare our FESeq with recorded runs of the public implementation.

A recording is an `.npz` with `config` (JSON), `input/NAME`, `weight/NAME`, `output/probability`,
`output/loss` and `grad/NAME`: float32, every dropout 0, histories left-padded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr_weights import load_public, to_public
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field, FieldType
from tossctr.errors import UserError
from tossctr.models.feseq import FESeq
from tossctr.models.feseq_config import FESeqConfig

OUTPUT_BOUND = 1e-5  # absolute error of probability and loss
GRADIENT_BOUND = 1e-4  # relative to the tensor's largest gradient
ROUNDING = 1e-7  # relative to the run's largest gradient; smaller ones are rounding errors


@dataclass(frozen=True)
class Recording:
    """A recorded run in our types.

    Attributes:
        ragged: the batch without padding.
        padded: the batch with left-padded sequences as recorded.
        real_history: (B,) number of real events.
        weights, gradients: by public name.
    """

    features: FeatureMap
    config: FESeqConfig
    ragged: Batch
    padded: Batch
    real_history: Tensor
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]
    probability: Tensor
    loss: float


@dataclass(frozen=True)
class Errors:
    """Largest errors of one execution; None if our definition differs on purpose.

    `gradient` is relative to the largest gradient of the worst tensor, `tensor` its public name.
    """

    probability: float | None
    loss: float | None
    gradient: float | None
    tensor: str | None


def read_recording(path: str | Path) -> Recording:
    """Read a recording without unpickling.

    Raises:
        UserError: the file is missing or not such a recording.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        options: dict[str, Any] = json.loads(str(arrays["config"]))
        inputs = _under("input/", arrays)
        features = _features(options, inputs)
        config = _config(options)
        padded, real = _padded(features, config, options, inputs)
        return Recording(
            features,
            config,
            _ragged(padded, real),
            padded,
            real,
            {k: torch.from_numpy(v) for k, v in _under("weight/", arrays).items()},
            {k: torch.from_numpy(v) for k, v in _under("grad/", arrays).items()},
            torch.from_numpy(arrays["output/probability"]),
            float(arrays["output/loss"]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"is not a recorded run ({error})", file=path) from error


def compare(recording: Recording) -> dict[str, Errors]:
    """Errors of `ragged` and `padded` execution.

    If padding affects the public implementation, ours differs on purpose, and only padded execution
    can match: `concat` pools padded positions; `final` and
    `din_attention` count them in the batch statistics of training.
    """
    c = recording.config
    pools_padding = c.seq_pooling_type == "concat"
    final = c.use_seq_feature_interaction and c.interaction_layer_name == "final"
    din = c.seq_pooling_type == "weighted_sum" and c.seq_pooling_attn_type == "din_attention"
    result = {"ragged": Errors(None, None, None, None)}
    if not pools_padding:
        trains_alike = not (final or din)
        result["ragged"] = _errors(recording, recording.ragged, None, trains_alike)
    result["padded"] = _errors(recording, recording.padded, recording.real_history, True)
    return result


def _errors(
    recording: Recording, batch: Batch, real_history: Tensor | None, training: bool
) -> Errors:
    # In float64, so that only the rounding errors of the recording remain.
    model = FESeq(recording.features, recording.config).to(torch.float64)
    load_public(model, recording.weights)
    batch = replace(batch, numeric=batch.numeric.double())
    for module in model.modules():
        # The weights were recorded after the training step, the probability before it.
        if isinstance(module, nn.BatchNorm1d) and module.num_batches_tracked == 1:
            module.reset_running_stats()
    with torch.no_grad():
        probability = model.eval()(batch, real_history).sigmoid()
    worst = float((probability - recording.probability).abs().max())
    if not training:
        return Errors(worst, None, None, None)
    logits = model.train()(batch, real_history)
    loss = binary_cross_entropy_with_logits(logits, batch.labels.double())
    loss.backward()  # type: ignore[no-untyped-call]
    ours = to_public(model, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    errors = gradient_errors(ours, recording.gradients)
    tensor = max(errors, key=lambda name: errors[name])
    return Errors(worst, abs(float(loss.detach()) - recording.loss), errors[tensor], tensor)


def gradient_errors(ours: Mapping[str, Tensor], recorded: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest error of each recorded gradient, relative to that tensor's largest one.

    Gradients that are rounding errors on both sides (a bias before a softmax) count as equal; a
    missing one counts as infinitely wrong.
    """
    rounding = ROUNDING * max(float(g.abs().max()) for g in recorded.values())
    errors = {}
    for name, expected in recorded.items():
        if name not in ours:
            errors[name] = float("inf")
            continue
        found = ours[name].reshape(expected.shape)
        scale = float(expected.abs().max())
        if scale < rounding and float(found.abs().max()) < rounding:
            errors[name] = 0.0
        else:
            difference = float((found - expected).abs().max())
            errors[name] = difference / scale if scale > 0 else float("inf")
    return errors


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _config(options: Mapping[str, Any]) -> FESeqConfig:
    values = {k: v for k, v in options.items() if k in FESeqConfig.model_fields}
    values["interaction_layer_name"] = values["interaction_layer_name"].lower()
    if values.get("seq_pooling_type") != "weighted_sum":
        values["use_item_feature_interaction"] = (
            False  # ignored by the public implementation, refused by ours
        )
    return FESeqConfig(**values)


def _features(options: Mapping[str, Any], inputs: Mapping[str, NDArray[Any]]) -> FeatureMap:
    times = options.get("time_keys") or []
    fields: list[Field] = []
    for name, spec in options["features"].items():
        # The public implementation shares only with an earlier feature, and uses its table.
        shared = spec.get("share_embedding")
        shared = shared if any(f.name == shared for f in fields) else None
        fields.append(
            Field(
                name=name,
                type=_field_type(name, spec, times),
                vocab_size=None if shared else spec.get("vocab_size"),
                share_embedding=shared,
                embedding_dim=spec.get("embedding_dim"),
                max_len=inputs[name].shape[1] if inputs[name].ndim == 2 else None,
            )
        )
    (label,) = set(inputs) - set(options["features"])
    return FeatureMap(dataset_id="recording", label=label, fields=tuple(fields))


def _field_type(name: str, spec: Mapping[str, Any], times: list[str]) -> FieldType:
    if name in times:
        return "time_sequence" if name == times[1] else "time"
    match spec["type"]:
        case "sequence":
            numeric = spec.get("dtype", "str" if "vocab_size" in spec else "float") == "float"
            return "numeric_sequence" if numeric else "sequence"
        case "categorical":
            return "categorical"
        case "numeric":
            return "numeric"
        case "meta":
            return "meta"
        case other:
            raise ValueError(f"feature {name} has type {other}")


def _padded(
    features: FeatureMap,
    config: FESeqConfig,
    options: Mapping[str, Any],
    inputs: Mapping[str, NDArray[Any]],
) -> tuple[Batch, Tensor]:
    def columns(field_type: FieldType) -> NDArray[Any]:
        rows = len(inputs[features.label])
        names = features.names(field_type)
        return np.stack([inputs[n] for n in names], 1) if names else np.empty((rows, 0))

    def flat(name: str, dtype: torch.dtype) -> Ragged:
        rows, length = inputs[name].shape
        values = torch.from_numpy(inputs[name].reshape(-1)).to(dtype)
        return Ragged(values, torch.arange(rows + 1) * length, length)

    first = config.sequence_field[0]
    is_id = features[first].type == "sequence"
    padding = 0 if is_id else options["features"][first].get("padding_idx", -1)
    # Left padding is the leading run of zeros.
    real = np.cumsum(inputs[first] != padding, axis=1).astype(bool).sum(axis=1)
    batch = Batch(
        categorical=torch.from_numpy(columns("categorical")).long(),
        numeric=torch.from_numpy(columns("numeric")).float(),
        sequences={
            **{n: flat(n, torch.long) for n in features.names("sequence")},
            **{n: flat(n, torch.float) for n in features.names("numeric_sequence")},
        },
        times={n: torch.from_numpy(inputs[n]).double() for n in features.names("time")},
        time_sequences={n: flat(n, torch.double) for n in features.names("time_sequence")},
        label=torch.from_numpy(inputs[features.label]).float(),
    )
    return batch, torch.from_numpy(real)


def _ragged(padded: Batch, real: Tensor) -> Batch:
    def cut(history: Ragged) -> Ragged:
        length = history.max_length
        keep = torch.arange(length) >= length - real[:, None]
        offsets = torch.zeros(len(real) + 1, dtype=torch.long)
        offsets[1:] = real.cumsum(0)
        return Ragged(history.values[keep.flatten()], offsets, int(real.max()))

    return Batch(
        categorical=padded.categorical,
        numeric=padded.numeric,
        sequences={name: cut(s) for name, s in padded.sequences.items()},
        times=padded.times,
        time_sequences={name: cut(s) for name, s in padded.time_sequences.items()},
        label=padded.label,
    )
