"""The chat template of a reward model's folder: it renders a conversation with its answer as the ids that the model was
trained on, prompt, answer and end token, and nothing after the end, where the reward is read.

    own template    <|user|>Name a fruit.<|end|>\\n<|bot|>Apple<|end|>\\n
    here            <|user|>Name a fruit.<|end|>\\n<|bot|>Apple<|end|>

So `model.generation.reward_model` of `test` scores with it as it was trained, in the plain format too.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from coh_lightning.export.chat_template import exported_template
from coh_lightning.sequences.prompt_format import PromptFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.sequences.layout import Layout


def reward_tokenizer(tokenizer: PreTrainedTokenizerBase, layout: Layout, *, pad_id: int) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer for a reward model's folder: with its template, and its pad token where that is an added
    token already (making a word of the vocabulary special would change the ids of texts).
    """
    found = copy.deepcopy(tokenizer)
    found.chat_template = reward_template(layout)
    if pad_id in found.added_tokens_decoder:
        found.pad_token = str(found.convert_ids_to_tokens(pad_id))
    return found


def reward_template(layout: Layout) -> str:
    """The template for conversations of this layout, without feedback sentences."""
    format: PromptFormat = layout.format
    if format.kind == "plain":
        return exported_template(layout, {"good": ""})
    own = exported_template(layout, {"good": ""}).removesuffix("\n")
    end, length = json.dumps(layout.end, ensure_ascii=False), len(layout.end)
    shortened = f"whole[:whole.rfind({end}) + {length}] if messages[-1]['role'] == 'assistant' else whole"
    # `{{ '' }}`: what is next to a block tag would lose its line end
    return f"{{% set whole %}}{{{{ '' }}}}{own}{{{{ '' }}}}{{% endset %}}{{{{ {shortened} }}}}"
