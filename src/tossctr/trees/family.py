"""The family of gradient-boosted trees: LightGBM on the store that networks train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from tossctr.config.schema import Experiment, ModelConfig
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.training.family import Family, Fit
from tossctr.trees.config import BOOSTER, LightGBMConfig

if TYPE_CHECKING:
    import torch

    from tossctr.data.prepare import Prepared
    from tossctr.training.folder import FinishedFolder, TrainingFolder
    from tossctr.trees.lightgbm import LightGBM

_BOOSTER_BYTES = 2 << 30


class Trees(Family):
    """LightGBM, imported only when a model is trained or loaded."""

    files: ClassVar[tuple[str, ...]] = (BOOSTER,)
    uses_missing: ClassVar[bool] = True
    epoch_unit: ClassVar[str] = "round"
    step_unit: ClassVar[str] = "round"
    advice_if_first_was_best: ClassVar[str] = "Try a smaller `learning_rate`."

    def advice_if_last_was_best(
        self, experiment: Experiment, history: Sequence[Mapping[str, float]]
    ) -> str:
        rounds = _options(experiment).num_boost_round
        if history[-1]["epoch"] < rounds:
            return "No tree could split further: try a smaller `min_data_in_leaf`."
        return f"Try more `num_boost_round`, now {rounds}."

    @property
    def models(self) -> Mapping[str, type[ModelConfig]]:
        return {"LightGBM": LightGBMConfig}

    def check(self, experiment: Experiment, features: FeatureMap, processes: int) -> None:
        from tossctr.trees.features import TreeFeatures

        if processes > 1:
            raise UserError(
                "trees are trained by one process",
                key="model",
                value=experiment.model,
                remedy="leave out --workers; LightGBM uses all cores anyway",
            )
        TreeFeatures(features, _options(experiment))

    def fit(
        self,
        experiment: Experiment,
        train_rows: EncodedRows,
        valid_rows: EncodedRows,
        folder: TrainingFolder,
        how: Fit,
    ) -> dict[str, Any]:
        from tossctr.trees.training import fit_trees

        return fit_trees(
            experiment, _options(experiment), train_rows, valid_rows, folder, how.after_validation
        )

    def load(
        self, experiment: Experiment, features: FeatureMap, folder: FinishedFolder
    ) -> LightGBM:
        from tossctr.training.folder import AGAIN, WEIGHTS
        from tossctr.trees.features import TreeFeatures
        from tossctr.trees.lightgbm import LightGBM

        booster = folder.verify(BOOSTER, _BOOSTER_BYTES)
        columns = TreeFeatures(features, _options(experiment))
        tables = folder.tensors(columns.state())
        try:
            columns.load_state(tables)
        except ValueError as error:
            raise UserError(str(error), file=folder.folder / WEIGHTS, remedy=AGAIN) from error
        return LightGBM.load(columns, booster)

    def plan(
        self, experiment: Experiment, data: Prepared, device: torch.device, memory: float | None
    ) -> NoReturn:
        raise UserError(
            "trees are not trained in batches, so there is nothing to plan",
            key="model",
            value=experiment.model,
            remedy="train it: its memory does not depend on the lengths of histories",
        )


def _options(experiment: Experiment) -> LightGBMConfig:
    options = experiment.hyperparameters
    if not isinstance(options, LightGBMConfig):
        raise TypeError(f"{experiment.model} has the options of another family")
    return options
