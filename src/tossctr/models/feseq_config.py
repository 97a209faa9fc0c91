"""FESeq's options, under the public implementation's names, and their validation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tossctr.config.names import Names
from tossctr.config.schema import Width
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.models.fields import COLUMNS, SEQUENCES, check_fields, max_len_of
from tossctr.models.layers.interaction import InteractionName
from tossctr.models.layers.pooling import POOLINGS, ScoreName
from tossctr.models.layers.registry import one_of
from tossctr.models.options import TransformerOptions


class FESeqConfig(TransformerOptions):
    """The options of `FESeq`. The public implementation's defaults of `position_init` and
    `seq_pooling_type` (normal, mean) learn more slowly: see docs/feseq.md.

    Field i of `target_field` is the next element of field i of `sequence_field`; `time_keys` name
    the time stamp of the target and those of its history.
    """

    target_field: Names
    sequence_field: Names
    default_field: Names = ()
    target_item_field: Names = ()  # the query of weighted_sum pooling; empty: target_field
    time_keys: Names = ()
    interaction_layer_name: InteractionName = "crossnetv2"
    use_seq_feature_interaction: bool = True
    seq_feature_interaction_layers: int = Field(1, ge=0)
    use_item_feature_interaction: bool = False
    item_feature_interaction_layers: int = Field(0, ge=0)
    use_position_emb: bool = True
    position_init: Literal["normal", "sinusoidal"] = "sinusoidal"  # of the learned table
    use_time_emb: bool = False
    num_time_embeddings: int = Field(4001, ge=2)  # rows of the time table; the last is unused
    time_log_base: float = -1.0  # -1: linear buckets of one time unit
    stacked_transformer_layers: int = Field(1, ge=0)
    fi_dropout: float = Field(0.0, ge=0, lt=1)  # in the interaction blocks
    seq_pooling_type: Annotated[str, one_of(POOLINGS, "weighted_sum")] = "weighted_sum"
    seq_pooling_attn_type: ScoreName = "bilinear_attention"
    use_pooling_attn_scale: bool = True
    rel_score_hidden_dim: Width = 128

    @property
    def query_field(self) -> tuple[str, ...]:
        """The query fields of `weighted_sum` pooling."""
        return self.target_item_field or self.target_field

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        weighted = self.seq_pooling_type == "weighted_sum"
        contradictions = {
            "target_field and sequence_field must name equally many fields, at least one": not (
                len(self.target_field) == len(self.sequence_field) > 0
            ),
            "use_item_feature_interaction needs seq_pooling_type: weighted_sum": (
                self.use_item_feature_interaction and not weighted
            ),
            "use_time_emb needs time_keys: [target time, history times]": (
                self.use_time_emb and len(self.time_keys) != 2
            ),
            "time_log_base must be -1 or greater than 1": not (
                self.time_log_base == -1 or self.time_log_base > 1
            ),
        }
        for contradiction, found in contradictions.items():
            if found:
                raise UserError(contradiction)
        return self

    def check(self, features: FeatureMap) -> None:
        """Check the options against the features.

        Raises:
            UserError: an option names a field of another type, or needs an unset `max_len`.
        """
        check_fields(features, "sequence_field", self.sequence_field, SEQUENCES)
        check_fields(features, "target_field", self.target_field, COLUMNS)
        check_fields(features, "default_field", self.default_field, COLUMNS)
        check_fields(features, "target_item_field", self.target_item_field, COLUMNS)
        if self.use_time_emb:
            check_fields(features, "time_keys", self.time_keys[:1], ("time",))
            check_fields(features, "time_keys", self.time_keys[1:], ("time_sequence",))
        needed_by = "use_position_emb" if self.use_position_emb else self.pooling_needing_max_len
        max_len_of(features, self.sequence_field, needed_by)
