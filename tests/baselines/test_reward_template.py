"""A reward model's folder renders a conversation as the ids that the model was trained on, up to the end token."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from coh_lightning.baselines.examples import PLAIN, Encoded
from coh_lightning.baselines.reward_template import reward_tokenizer
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.prompter import Prompter
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording
from helpers import tokenizers

CONVERSATIONS = [
    [{"role": "user", "content": "Name a fruit."}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}],
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("template", ["CHATML", "LLAMA3", "GEMMA", "MISTRAL", None])
def test_a_conversation_with_its_answer_has_the_ids_of_training(
    template: str | None, messages: list[dict[str, str]]
) -> None:
    tokenizer = tokenizers.byte_level(template and getattr(tokenizers, template), bos=True)
    kind = PromptFormat(kind="chat") if template else PromptFormat(before_output=" ")
    prompter = Prompter.make(tokenizer, PLAIN, Wording(), kind, max_prompt_tokens=200)
    answer = {"role": "assistant", "content": "An apple."}
    record = Feedback.from_json({"id": "a", "prompt": messages, "completions": [{"text": "An apple."}]}, "here")
    prompt, completion = Encoded(prompter, max_tokens=300)(record, [answer])
    saved = reward_tokenizer(tokenizer, prompter.tokens.layout, pad_id=tokenizer.eos_token_id)
    text = tokenizer.decode(prompt + completion)
    assert saved.apply_chat_template([*messages, answer], tokenize=False) == text
    if template != "LLAMA3":  # its line ends become other ids where texts follow them, as in prompts
        assert saved.apply_chat_template([*messages, answer], return_dict=False) == prompt + completion
        assert saved.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
    assert tokenizer.chat_template == (template and getattr(tokenizers, template)), "the given one is unchanged"


def test_an_added_token_becomes_the_pad_token_and_a_word_does_not() -> None:
    tokenizer: PreTrainedTokenizerFast = tokenizers.byte_level(tokenizers.CHATML)
    layout = Prompter.make(tokenizer, PLAIN, Wording(), PromptFormat("chat"), max_prompt_tokens=9).tokens.layout
    added, word = min(tokenizer.added_tokens_decoder), tokenizer.convert_tokens_to_ids("a")
    assert reward_tokenizer(tokenizer, layout, pad_id=added).pad_token_id == added
    with_word = reward_tokenizer(tokenizer, layout, pad_id=word)
    assert with_word.pad_token_id == tokenizer.pad_token_id != word
    assert Encoder(with_word).tokenizer_hash == Encoder(tokenizer).tokenizer_hash
