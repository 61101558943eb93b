"""An encoder in the manner of BERT: every item sees the whole history, so it serves one target at a time."""

import torch
from torch import nn

from recbole_kuaiformer.encoders.separate import SeparatePasses
from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rope import rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, group_visibility
from recbole_kuaiformer.models.sasrec_plus import SASRecPlus


class BidirectionalEncoder(nn.Module):
    """A mask token after the newest item; its output, through K maps, is the user."""

    def __init__(self, hidden_size, *, n_layers, n_heads, n_interests, dropout_prob):
        super().__init__()
        self.head_size, self.n_interests = hidden_size // n_heads, n_interests
        self.mask = nn.Parameter(torch.randn(hidden_size) * hidden_size**-0.5)
        self.blocks = nn.ModuleList(
            LlamaBlock(
                hidden_size,
                n_heads=n_heads,
                inner_size=2 * hidden_size,
                hidden_dropout_prob=dropout_prob,
                attn_dropout_prob=0.0,
            )
            for _ in range(n_layers)
        )
        self.interests = nn.Linear(hidden_size, n_interests * hidden_size)

    def forward(self, tokens, *, valid):
        sequence = torch.cat([tokens, self.mask.expand(len(tokens), 1, -1)], dim=1)
        bias = attention_bias(group_visibility(nn.functional.pad(valid, (0, 1), value=True)))
        places = torch.arange(sequence.shape[1], device=tokens.device)[None]
        rotation = rotation_table(places, head_size=self.head_size)
        for block in self.blocks:
            sequence = block(sequence, bias=bias, rotation=rotation)
        return self.interests(sequence[:, -1]).unflatten(-1, (self.n_interests, -1))


class BidirectionalModel(SASRecPlus):
    """SASRecPlus's keys, another encoder."""

    def build_encoder(self, config):
        return SeparatePasses(
            BidirectionalEncoder(
                config["hidden_size"],
                n_layers=config["n_layers"],
                n_heads=config["n_heads"],
                n_interests=2,
                dropout_prob=config["hidden_dropout_prob"],
            )
        )
