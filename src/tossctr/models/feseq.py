"""FESeq (Yuan et al., Applied Sciences 14(7):2760, 2024): feature interaction at every event.

Figure 2 of the paper, bottom to top, on packed events: M = sum over the B rows of (history + 1).

    embed                  histories (M - B, Fs*d), targets (B, Fs*d), default fields (B, Fd*d)
    append the target                              (M, Fs*d)
    broadcast the default fields to every event    (M, (Fs + Fd)*d)
    feature interaction within each event          (M, (Fs + Fd)*d)
    concatenate position and time-interval embeddings      (M, D)
    Transformer over the events of each row                (M, D)
    pool                                                   (B, P)
    DNN on the remaining fields and the pooled vector      (B,)

docs/feseq.md lists the differences from the paper and the public implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.feseq_config import FESeqConfig
from tossctr.models.fields import COLUMNS, check_histories, check_pairs
from tossctr.models.layers.embedding import FieldEmbedding, new_table, sinusoidal_table
from tossctr.models.layers.interaction import Interaction
from tossctr.models.layers.packed import Events, append_target, broadcast, with_target
from tossctr.models.layers.pooling import POOLINGS, AttentionPooling
from tossctr.models.layers.time import time_buckets


class FESeq(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: options that do not fit the features (names, types, widths, lengths).
    """

    Config = FESeqConfig
    config: FESeqConfig

    def __init__(self, features: FeatureMap, config: FESeqConfig) -> None:
        super().__init__(features, config)
        c, d = config, config.embedding_dim
        c.check(features)
        columns = features.names(*COLUMNS)
        self.head_field = tuple(name for name in columns if name not in c.target_field)
        self.embedding = FieldEmbedding(
            features,
            (*self.head_field, *c.target_field, *c.sequence_field),
            d,
            numeric=c.numeric_embedding,
        )
        event_field = (*c.sequence_field, *c.default_field)
        widths = self.embedding.widths(event_field)
        check_pairs(self.embedding, c.target_field, c.sequence_field, "target_field")
        self.interaction = Interaction(
            c.interaction_layer_name if c.use_seq_feature_interaction else "none",
            widths,
            c.seq_feature_interaction_layers,
            c.fi_dropout,
        )
        self.max_len = features[c.sequence_field[0]].max_len
        slots = (self.max_len or 0) + 1  # with the target
        if c.use_position_emb:
            # The last row is the public implementation's padding row, which is never read.
            self.position = (
                sinusoidal_table(slots + 1, d)
                if c.position_init == "sinusoidal"
                else new_table(slots + 1, d, padding_idx=slots)
            )
        if c.use_time_emb:
            unused = c.num_time_embeddings - 1
            self.time = new_table(c.num_time_embeddings, d, padding_idx=unused)
        width = sum(widths) + d * (c.use_position_emb + c.use_time_emb)
        self.transformer = c.transformer(width)
        pooled_width = width
        if c.seq_pooling_type == "weighted_sum":
            self.item_embedding = FieldEmbedding(
                features, c.query_field, d, share=False, numeric=c.numeric_embedding
            )
            item_widths = self.item_embedding.widths(c.query_field)
            self.item_interaction = Interaction(
                c.interaction_layer_name if c.use_item_feature_interaction else "none",
                item_widths,
                c.item_feature_interaction_layers,
                c.fi_dropout,
            )
            self.attention_pooling = AttentionPooling(
                width,
                sum(item_widths),
                c.rel_score_hidden_dim,
                c.seq_pooling_attn_type,
                use_scale=c.use_pooling_attn_scale,
                net_dropout=c.net_dropout,
                attention_dropout=c.attention_dropout,
            )
        else:
            self.pooling = POOLINGS[c.seq_pooling_type](width, slots)
            pooled_width = self.pooling.output_width
        self.dnn = c.dnn(sum(self.embedding.widths(self.head_field)) + pooled_width)
        self.initialise()

    def forward(self, batch: Batch, real_history: Tensor | None = None) -> Tensor:
        """Logits (B,).

        Args:
            batch: encoded rows, histories ragged.
            real_history: (B,) the number of real events of each history, if histories are
                left-padded to `max_len`; only to reproduce the public implementation's padding.
        """
        c, embedding = self.config, self.embedding
        events = self.events(batch, real_history)
        x = append_target(
            embedding.events(batch, c.sequence_field), embedding.rows(batch, c.target_field), events
        )
        if c.default_field:
            default = embedding.rows(batch, c.default_field)
            parts = [self.interaction.forward_shared(x, default, events)]
        else:
            parts = [self.interaction(x)]
        if c.use_position_emb:
            parts.append(self.position(events.age))
        if c.use_time_emb:
            parts.append(self.time(self._intervals(batch, events)))
        x = torch.cat(parts, dim=1)
        if c.seq_pooling_type == "target" and events.real is None:
            pooled = self.transformer(x, events, last_only=True)
        elif c.seq_pooling_type == "weighted_sum":
            item = self.item_interaction(self.item_embedding.rows(batch, c.query_field))
            pooled, _ = self.attention_pooling(self.transformer(x, events), item, events)
        else:
            pooled = self.pooling(self.transformer(x, events), events)
        head = torch.cat([embedding.rows(batch, self.head_field), pooled], dim=1)
        logits: Tensor = self.dnn(head).squeeze(1)
        return logits

    def events(self, batch: Batch, real_history: Tensor | None = None) -> Events:
        """The events that the Transformer sees: each row's history, then its target."""
        c = self.config
        times = c.time_keys[1:] if c.use_time_emb else ()
        check_histories(batch, (*c.sequence_field, *times), self.max_len)
        return with_target(batch.sequences[c.sequence_field[0]], real_history)

    def _intervals(self, batch: Batch, events: Events) -> Tensor:
        target, history = self.config.time_keys
        now = batch.times[target]
        times = append_target(batch.time_sequences[history].values, now, events)
        return time_buckets(
            broadcast(now, events),
            times,
            self.config.num_time_embeddings,
            self.config.time_log_base,
        )
