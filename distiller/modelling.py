"""What is trained: a causal language model that answers with its loss. Needs torch alone."""

from __future__ import annotations

from typing import Any

import torch

from distiller.losses import summed_cross_entropy
from distiller.packing import IGNORED, Packed


class Student(torch.nn.Module):
    """A causal language model whose output is its loss.

    The loss is made in ``forward``, beside the output layer, so that sharded parameters are whole
    there and logits exist a chunk at a time.
    """

    def __init__(self, model: Any, *, bfloat16: bool) -> None:
        super().__init__()
        self.model = model
        self._bfloat16 = bfloat16

    def forward(self, batch: Packed) -> torch.Tensor:
        """Summed cross-entropy in nats over the tokens of ``batch`` that have a target."""
        kind = batch.input_ids.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self._bfloat16):
            embedded = self.model.get_input_embeddings()(batch.input_ids)  # (1, T, C)
            if self._bfloat16:  # or the sum of all layers' outputs would be kept in float32
                embedded = embedded.to(torch.bfloat16)
            inner = getattr(self.model, self.model.base_model_prefix)
            hidden = inner(
                inputs_embeds=embedded,
                position_ids=batch.position_ids,
                layout=batch.layout,
                use_cache=False,
            ).last_hidden_state[0]  # (T, C)
            supervised = (batch.targets != IGNORED).nonzero()[:, 0]
            return summed_cross_entropy(
                hidden.index_select(0, supervised).to(embedded.dtype),
                self.model.get_output_embeddings().weight,
                batch.targets[supervised],
            )

    @property
    def layers(self) -> Any:
        """The decoder layers."""
        return getattr(self.model, self.model.base_model_prefix).layers

    def multiplied_parameters(self) -> int:
        """Parameters that every token is multiplied with: all but the embedding's look-up."""
        count = sum(parameter.numel() for parameter in self.parameters())
        tied = self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight
        return count if tied else count - self.model.get_input_embeddings().weight.numel()
