"""Errors in config files as one line: file, key, value found, nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tossctr.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

_LISTED = 12  # most valid names in one line

_KINDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "too_short": "a longer list",
    "too_long": "a shorter list",
}
# Names of our keys in PyTorch, scikit-learn, boosting and CTR libraries that are not spelled alike.
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "eta", "step_size", "lr_rate"), ("learning_rate",)),
    **dict.fromkeys(("bs", "batch"), ("batch_size",)),
    **dict.fromkeys(
        ("n_epochs", "num_epochs", "max_epochs", "n_estimators", "num_iterations", "num_rounds",
         "num_boost_round", "iterations", "n_iter"), ("num_boost_round", "epochs"),
    ),
    **dict.fromkeys(("emb_dim", "embed_dim", "emb_size", "embedding_size"), ("embedding_dim",)),
    **dict.fromkeys(
        ("hidden_units", "hidden_size", "hidden_dims", "mlp_hidden_units", "layers"),
        ("dnn_hidden_units",),
    ),
    **dict.fromkeys(("dropout", "dropout_rate", "drop_rate"), ("net_dropout",)),
    **dict.fromkeys(("wd", "l2"), ("weight_decay", "embedding_regularizer")),
    **dict.fromkeys(("random_state", "random_seed"), ("seed",)),
    **dict.fromkeys(
        ("early_stopping_rounds", "early_stopping", "early_stopping_patience"),
        ("early_stopping_rounds", "early_stop_patience"),
    ),
    **dict.fromkeys(
        ("clip_grad_norm", "grad_clip", "gradient_clip_val", "max_grad_norm", "clipnorm"),
        ("max_gradient_norm",),
    ),
    **dict.fromkeys(("optim", "opt"), ("optimizer",)),
    **dict.fromkeys(("amp", "fp16", "bf16", "mixed_precision", "dtype"), ("precision",)),
    **dict.fromkeys(("n_jobs", "num_threads"), ("num_workers",)),
    **dict.fromkeys(("min_child_samples", "min_data_per_leaf"), ("min_data_in_leaf",)),
    **dict.fromkeys(("colsample_bytree",), ("feature_fraction",)),
    **dict.fromkeys(("subsample",), ("bagging_fraction",)),
    **dict.fromkeys(("reg_alpha",), ("lambda_l1",)),
    **dict.fromkeys(("reg_lambda",), ("lambda_l2",)),
    **dict.fromkeys(("criterion", "loss_fn"), ("loss",)),
    **dict.fromkeys(("seq_len", "max_seq_len", "maxlen", "sequence_length"), ("max_len",)),
    **dict.fromkeys(("label", "target", "y"), ("label_col",)),
    **dict.fromkeys(("train", "train_path", "train_file"), ("train_data",)),
    **dict.fromkeys(("test", "test_path", "test_file"), ("test_data",)),
    **dict.fromkeys(("valid", "val_data", "valid_path"), ("valid_data",)),
}  # fmt: skip
_QUOTED_BOOL = "put it in quotes: unquoted yes, no, on, off, true and false are not text"
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True)
class ErrorContext:
    """Where the keys of a config entry come from, for errors.

    Attributes:
        file: the YAML file.
        entry: id of the experiment or data set.
        overridden: top-level keys that `--set` gave.
        prefix: of nested keys, with a dot at the end.
    """

    file: Path
    entry: str
    overridden: frozenset[str] = frozenset()
    prefix: str = ""

    def inside(self, key: str) -> ErrorContext:
        """The context of the mapping under `key`."""
        return replace(self, prefix=f"{self.prefix}{key}.")

    def error(
        self, key: str, problem: str, *, value: object = None, remedy: str | None = None
    ) -> UserError:
        """The error for `key` (dotted; empty for the entry itself)."""
        path = (self.prefix + key).rstrip(".")
        overridden = re.split(r"[.\[]", path)[0] in self.overridden
        return UserError(
            f"{'.'.join(filter(None, [self.entry, path]))} {problem}",
            file="--set" if overridden else self.file,
            value=value,
            remedy=remedy,
        )


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most similar to `name`, ignoring case; None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggestion(name: str, candidates: Iterable[str], otherwise: str = "remove it") -> str:
    """A remedy for an unknown name: the candidate that other libraries call so, or the most similar
    one; else all candidates if they are few; else `otherwise`."""
    candidates = sorted(candidates)
    others = OTHER_NAMES.get(name.lower().replace("-", "_"), ())
    close = next((known for known in others if known in candidates), nearest(name, candidates))
    if close is not None:
        return f"did you mean {close}?"
    if candidates and len(candidates) <= _LISTED:
        return f"choose one of: {', '.join(candidates)}"
    return otherwise


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str], context: ErrorContext) -> None:
    """Check that all keys are known.

    Raises:
        UserError: a key is not in `known`.
    """
    known = set(known)
    for key, value in values.items():
        if key not in known:
            raise context.error(
                str(key), "is not a known key", value=value, remedy=suggestion(str(key), known)
            )


def validated(model: type[Model], values: Any, context: ErrorContext) -> Model:
    """Validate `values` as a `model`.

    Raises:
        UserError: the first problem, and the number of others.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _translated(error, model, values, context) from error
    except UserError as error:  # raised by a validator of the model, which has no context
        raise context.error(
            error.key or "", f"is not valid: {error.problem}", value=error.value,
            remedy=error.remedy,
        ) from error  # fmt: skip


def _translated(
    error: ValidationError, model: type[BaseModel], values: Any, context: ErrorContext
) -> UserError:
    # A misspelled key is often also reported as missing: report the misspelling.
    details = sorted(
        (d for d in error.errors() if d["type"] != "default_factory_not_called"),
        key=lambda d: d["type"] != "extra_forbidden",
    )
    paths = [_path(values, detail) for detail in details]
    first = paths[0]
    more = len({*paths} - {first})
    problem, value, remedy = _described(
        [detail for detail, path in zip(details, paths, strict=True) if path == first], model
    )
    if more:
        problem += f" ({more} more after this)"
    return context.error(".".join(map(str, first)), problem, value=value, remedy=remedy)


def _path(values: Any, detail: ErrorDetails) -> tuple[int | str, ...]:
    """The path of the key in the file: pydantic's location without the branches of unions."""
    path: list[int | str] = []
    for part in detail["loc"]:
        try:
            values = values[part]
        except (LookupError, TypeError):
            return (*path, part) if detail["type"] == "missing" else tuple(path)
        path.append(part)
    return tuple(path)


def _described(
    details: list[ErrorDetails], model: type[BaseModel]
) -> tuple[str, object, str | None]:
    """Problem, value found and remedy of one key's errors (several for a union)."""
    first = details[0]
    match first["type"]:
        case "missing":
            return "is missing", None, "add it"
        case "extra_forbidden":
            *above, key = first["loc"]
            known = _model_at(model, above).model_fields
            return "is not a known key", first["input"], suggestion(str(key), known)
        case "literal_error":
            choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            found = str(first["input"])
            text = f"must be one of: {first['ctx']['expected'].replace(chr(39), '')}"
            close = nearest(found, choices)
            return text, first["input"], f"did you mean {close}?" if close else None
        case bound if bound in _BOUNDS:
            name, words = _BOUNDS[bound]
            return f"must be {words} {first['ctx'][name]:g}", first["input"], None
        case "value_error":  # raised by a validator
            return f"is not valid: {first['ctx']['error']}", None, None
    kinds = dict.fromkeys(_KINDS[d["type"]] for d in details if d["type"] in _KINDS)
    text = f"must be {' or '.join(kinds)}" if kinds else f"is not valid: {first['msg']}"
    found = first["input"]
    if "text" not in kinds or found is None or isinstance(found, str | list | Mapping):
        return text, "null" if found is None else found, None
    if isinstance(found, bool):
        return text, found, _QUOTED_BOOL
    shown = found if isinstance(found, int | float) else str(found)  # a date
    return text, shown, f'put it in quotes: "{found}"'


def _model_at(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel]:
    """The model that validates the mapping at `path`."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
