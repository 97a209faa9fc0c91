"""All features of a row as fields, for models that ignore the order of events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tossctr.config.schema import NumericEmbedding
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.packed import segment_mean, segment_sum, without_target


def linear_part(features: FeatureMap) -> TabularEmbedding:
    """One weight per id and per numeric field: the linear model inside DeepFM and AutoInt.

    The weights of numeric fields start at zero: initialised like embeddings, they would be near one
    and dominate the logit.
    """
    narrow = tuple(f.model_copy(update={"embedding_dim": None}) for f in features.fields)
    linear = TabularEmbedding(features.model_copy(update={"fields": narrow}), 1)
    for vectors in linear.fields.vectors.values():
        nn.init.zeros_(vectors)
    return linear


class TabularEmbedding(nn.Module):
    """Embeds every column, and pools every sequence to one field.

    Shapes: `Batch` -> (B, sum of `widths`), columns first, then sequences. A sequence is averaged,
    or summed if its `feature_encoder` is MaskedSumPooling; an empty one is zero.
    """

    def __init__(
        self,
        features: FeatureMap,
        embedding_dim: int,
        *,
        numeric: NumericEmbedding = "linear",
    ) -> None:
        super().__init__()
        self.columns = features.names("categorical", "numeric")
        self.sequences = features.names("sequence", "numeric_sequence")
        self.summed = {
            name for name in self.sequences if "Sum" in (features[name].feature_encoder or "")
        }
        self.fields = FieldEmbedding(
            features, (*self.columns, *self.sequences), embedding_dim, numeric=numeric
        )
        self.widths = self.fields.widths((*self.columns, *self.sequences))

    def forward(self, batch: Batch) -> Tensor:
        parts = [self.fields.rows(batch, self.columns)]
        for name in self.sequences:
            pool = segment_sum if name in self.summed else segment_mean
            events = without_target(batch.sequences[name])
            parts.append(pool(self.fields.events(batch, (name,)), events))
        return torch.cat(parts, dim=1)
