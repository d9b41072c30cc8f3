"""Small tokenizers and a small model whose answers can hold reasoning and tool calls."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from tbcluster.demo import MODEL_PATH
from tests.doubles.checkpoints import LlamaSizes, write_llama

EOS = "<|im_end|>"
# Qwen keeps these outside its special tokens: they are part of the text that a decoder shows.
QWEN_MARKERS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
# In the shape of Qwen3's own template.
QWEN_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor each call return a json object within XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- set tool_call = tool_call.function or tool_call %}
            {{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {{- tool_call.arguments if tool_call.arguments is string
                else tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


# For each of mlx-lm's tool parsers the markers that its models have as tokens: special ones, and
# ones that are part of the text.
FORMAT_TOKENS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "json_tools": ((), QWEN_MARKERS),
    "mistral": (("[TOOL_CALLS]", "[ARGS]"), ()),
    "kimi_k2": (
        tuple(f"<|tool_calls_section_{edge}|>" for edge in ("begin", "end"))
        + tuple(f"<|tool_call_{part}|>" for part in ("begin", "argument_begin", "end")),
        (),
    ),
    "kimi_k3": (("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"), ()),
    "qwen3_coder": ((), QWEN_MARKERS),
    "glm47": (
        (),
        (
            *("<think>", "</think>", "<tool_call>", "</tool_call>"),
            *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        ),
    ),
    "laguna": (("<tool_call>", "</tool_call>"), ()),
    "longcat": (
        ("<longcat_think>", "</longcat_think>", "<longcat_tool_call>", "</longcat_tool_call>"),
        (
            *("<longcat_arg_key>", "</longcat_arg_key>"),
            *("<longcat_arg_value>", "</longcat_arg_value>"),
        ),
    ),
    "minimax_m2": (("<minimax:tool_call>", "</minimax:tool_call>"), ("<think>", "</think>")),
    "minicpm5": ((), ("<think>", "</think>")),
    "gemma4": (("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"), ()),
    "function_gemma": (("<start_function_call>", "<end_function_call>", "<escape>"), ()),
    "pythonic": (("<|tool_call_start|>", "<|tool_call_end|>"), ()),
    "muse_spark": (("<|message|>", "<|eom|>", "<|eot|>", "<|start|>"), ()),
}


TOOL_MODEL = LlamaSizes(num_hidden_layers=3, max_position_embeddings=4096, tie_word_embeddings=True)


def write_tool_model(path: Path, sizes: LlamaSizes = TOOL_MODEL) -> Path:
    """A small random llama with the bundled model's words, Qwen3's markers and its chat template:
    it can be asked to think (`enable_thinking`) and to call tools."""
    tokenizer = Tokenizer.from_file(str(MODEL_PATH / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in QWEN_MARKERS])
    sizes = replace(sizes, vocab_size=tokenizer.get_vocab_size())
    write_llama(path, sizes)
    template = QWEN_TEMPLATE.replace(EOS, "<|end|>")
    _write_tokenizer(path, tokenizer, "<|end|>", template, sizes.max_position_embeddings)
    return path


def answer_tokenizer(
    path: Path,
    parser_type: str | None = None,
    *,
    special: Sequence[str] | None = None,
    template: str | None = None,
) -> TokenizerWrapper:
    """mlx-lm's tokenizer for one answer format, with bytes and the bundled model's words.

    Args:
        special: Special tokens instead of the format's own.
    """
    special, plain = (
        FORMAT_TOKENS.get(parser_type or "", ((), ())) if special is None else (special, ())
    )
    tokenizer = Tokenizer.from_file(str(MODEL_PATH / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (EOS, *special)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    _write_tokenizer(path, tokenizer, EOS, template, parser_type=parser_type)
    return load(path)


def metaspace_tokenizer(path: Path, template: str) -> TokenizerWrapper:
    """A tokenizer of the SentencePiece kind: blanks are marked, and the first word has one."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for char in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?<>|/_-":
        vocab[char] = len(vocab)
    merges = [("▁", "h"), ("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁h", "e"), ("l", "l")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in (EOS, "<s>", "<|im_start|>")]
    )
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    _write_tokenizer(path, tokenizer, EOS, template)
    return load(path)


def _write_tokenizer(
    path: Path,
    tokenizer: Tokenizer,
    eos: str,
    template: str | None,
    context_length: int = 4096,
    parser_type: str | None = None,
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
    }
    if parser_type is not None:
        settings["tool_parser_type"] = parser_type
    if template is not None:
        settings["chat_template"] = template
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
