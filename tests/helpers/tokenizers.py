"""Small tokenizers of all kinds that matter, made in memory, and four chat templates in the styles of the large
families. For tests of any stage.

character     one token per character: expected lists can be written by hand
byte_level    byte-level BPE with the GPT-2 split (GPT-2, Llama 3, Qwen, ...)
sentencepiece BPE without a split, a false space in front, bytes for unknown characters (Llama 1 and 2, Mistral)
unigram       Unigram over "▁words" (T5, XLNet, ...): its special tokens are in the vocabulary itself
"""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = """\
{% for m in messages %}\
{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

LLAMA3 = """{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}\
{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

GEMMA = """{{ bos_token }}\
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/...') }}\
{% endif %}\
{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) \
+ '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

MISTRAL = """{{ bos_token }}\
{% set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}\
{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}\
{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/...') }}\
{% endif %}\
{% if m['role'] == 'user' %}{{ '[INST] ' + (system if loop.first else '') + m['content'] + '[/INST]' }}\
{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}\
{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}\
{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}\
{% if m['role'] == 'user' %}\
{{ bos_token + '[INST] ' + ((system if loop.first else '') + m['content']).strip() + ' [/INST]' }}\
{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

THINKING = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}\
{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}\
{{ m['content'] + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

REASONING = """{%- set place = namespace(asked=-1) -%}
{%- for m in messages -%}{%- if m['role'] == 'user' -%}{%- set place.asked = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- set thought = '' -%}{%- set text = m['content'] -%}
{%- if m['role'] == 'assistant' and '</think>' in text -%}
{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') -%}\
{%- set text = text.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{- '<|im_start|>' + m['role'] + '\n' -}}
{%- if m['role'] == 'assistant' and loop.index0 > place.asked -%}\
{{- '<think>\n' + thought + '\n</think>\n\n' -}}{%- endif -%}
{{- text + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
"""As Qwen3's: the thinking of earlier answers is dropped."""

DATED = """{%- set day = date_string if date_string is defined else strftime_now('%d %b %Y') -%}
{%- set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\n\nToday is ' + day + '.\n\n' + system + '<|eot_id|>' -}}
{%- for m in messages -%}{%- if m['role'] != 'system' -%}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}"""
"""As Llama 3.1's and 3.2's: there is always a system turn, which begins with the date."""

LAST_TURN = """{%- set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' -%}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list -%}{%- set place = namespace(number=0) -%}
{{- bos_token -}}
{%- for m in messages -%}
{%- if m['role'] == 'user' -%}{%- set place.number = place.number + 1 -%}
{{- '[INST] ' + (system if place.number == users | length else '') + m['content'] + '[/INST]' -}}
{%- elif m['role'] == 'assistant' -%}{{- ' ' + m['content'] | trim + eos_token -}}{%- endif -%}
{%- endfor -%}"""
"""As some of Mistral's: the system text opens the last user turn."""

LAST_MESSAGE = LAST_TURN.replace("place.number == users | length", "loop.last")
"""Likewise, and lost where an answer follows."""

NO_EMPTY_SYSTEM = """{%- for m in messages -%}{%- if m['role'] != 'system' or m['content'] -%}
{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
"""As Phi-3's: an empty system turn is left out."""

DEFAULT_SYSTEM = (
    """{%- if messages[0]['role'] != 'system' -%}{{- '<|im_start|>system\nYou are kind.<|im_end|>\n' -}}{%- endif -%}
"""
    + NO_EMPTY_SYSTEM
)
"""As Qwen2.5's: there is always a system turn."""

FLAGGED = CHATML.replace("m['content']", "m['content'].replace('/no_think', '')")
"""As SmolLM3's: a word in a text switches something, and is taken out."""

REWRITING = {
    "reasoning": REASONING,
    "dated": DATED,
    "last turn": LAST_TURN,
    "last message": LAST_MESSAGE,
    "no empty system": NO_EMPTY_SYSTEM,
    "default system": DEFAULT_SYSTEM,
    "flagged": FLAGGED,
}
"""Templates that treat some conversations or texts otherwise than others."""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL}

SPECIALS = (
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog. A good answer: the dog sleeps.\n\nUser: hello there, how are you "
    "today?\n",
    "A bad answer:\nno idea at all! What is a fruit? An apple is a fruit; a stone is not.\n\nAssistant: I am well, "
    "thank you.\n",
    "Summarise the post. It rained a lot on Monday, so that the game was put off until Tuesday (at seven).\nTL;DR: "
    "rain\n",
    "You are a helpful assistant. A helpful answer: yes. An unhelpful answer: no. system user assistant model\n\n\n",
) * 4


def _wrapped(backend: Tokenizer, template: str | None, *, bos: bool) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


def character(template: str | None = None, *, bos: bool = True) -> PreTrainedTokenizerFast:
    """Printable ASCII, the line end and "é", one token each; ids: <unk> 0, <s> 1, </s> 2, then the characters from 3
    on, in order of their code.
    """
    characters = ["\n", *map(chr, range(32, 127)), "é"]
    vocabulary = {text: number for number, text in enumerate(["<unk>", "<s>", "</s>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return _wrapped(backend, template, bos=bos)


def byte_level(template: str | None = None, *, bos: bool = False) -> PreTrainedTokenizerFast:
    return _wrapped(Tokenizer.from_str(_byte_level()), template, bos=bos)


def sentencepiece(template: str | None = None, *, bos: bool = True) -> PreTrainedTokenizerFast:
    return _wrapped(Tokenizer.from_str(_sentencepiece()), template, bos=bos)


def unigram(template: str | None = None, *, bos: bool = True) -> PreTrainedTokenizerFast:
    return _wrapped(Tokenizer.from_str(_unigram()), template, bos=bos)


@cache
def _byte_level() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return str(backend.to_str())


@cache
def _sentencepiece() -> str:
    """Merges learned by a trainer that splits at "▁", then put in a model that doesn't split, normalizes as Llama does
    and falls back to bytes.
    """
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁|\n"), "merged_with_next")
    trained.train_from_iterator(
        [text.replace("\n", " ") for text in CORPUS], trainers.BpeTrainer(vocab_size=300, show_progress=False)
    )
    learned: dict[str, int] = trained.get_vocab()
    merges = _merges(trained)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = sorted(learned, key=lambda word: learned[word])
    vocabulary = {text: number for number, text in enumerate([*first, *words])}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return str(backend.to_str())


def _merges(backend: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [(left, right) for left, right in json.loads(backend.to_str())["model"]["merges"]]


@cache
def _unigram() -> str:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    alphabet = ["\n", *map(chr, range(33, 127)), "é"]
    trainer = trainers.UnigramTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return str(backend.to_str())


MAKERS = {"character": character, "byte_level": byte_level, "sentencepiece": sentencepiece, "unigram": unigram}
