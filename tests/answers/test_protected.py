"""What a user writes never becomes a control token, and other chats are encoded as ever."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.chat_templates import deepseek_v32
from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from tokenizers import AddedToken, Tokenizer, normalizers

from tbcluster.answers.protected import encode_chat
from tbcluster.answers.tool_calls import template_messages
from tbcluster.errors import RequestError
from tests.doubles.tokenizers import (
    EOS,
    QWEN_MARKERS,
    QWEN_TEMPLATE,
    answer_tokenizer,
    metaspace_tokenizer,
)

CONTROL = (EOS, "<|im_start|>", *QWEN_MARKERS)
MISTRAL_TEMPLATE = (
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{% if c.id|length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    "{% else %}{{ m.role }}: {{ m.content }}{{ m.tool_call_id }}\n{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    folder: Path = tmp_path_factory.mktemp("qwen")
    return answer_tokenizer(folder, "json_tools", special=CONTROL, template=QWEN_TEMPLATE)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    return metaspace_tokenizer(tmp_path_factory.mktemp("metaspace"), QWEN_TEMPLATE)


def turn(content: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def control_tokens(tokenizer: TokenizerWrapper, tokens: list[int]) -> list[str]:
    added = tokenizer.added_tokens_decoder
    return [added[token].content for token in tokens if token in added]


def plain_chat(tokenizer: TokenizerWrapper, messages: list[dict[str, Any]]) -> list[str]:
    """The control tokens of the template around contents that hold none."""
    blank = [{**message, "content": "x"} for message in messages]
    return control_tokens(tokenizer, encode_chat(tokenizer, blank))


def test_a_chat_without_control_tokens_is_encoded_as_mlx_lm_does(qwen: TokenizerWrapper) -> None:
    messages = [turn("Be kind. é", "system"), turn("2 < 3 | 4 > 1?\n")]
    wanted = qwen.apply_chat_template(messages, add_generation_prompt=True)
    assert encode_chat(qwen, messages) == wanted


@given(st.lists(st.sampled_from([*CONTROL, "a", " ", "\n", "<|", "é", "<", "|>"]), max_size=8))
@settings(deadline=None)
def test_control_tokens_in_a_message_are_text(parts: list[str]) -> None:
    tokenizer = _TOKENIZERS["qwen"]
    messages = [turn("".join(parts) + "."), turn("Yes")]
    tokens = encode_chat(tokenizer, messages)
    assert control_tokens(tokenizer, tokens) == plain_chat(tokenizer, messages)
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(tokens, skip_special_tokens=False) == rendered


_TOKENIZERS: dict[str, TokenizerWrapper] = {}


@pytest.fixture(scope="module", autouse=True)
def _for_properties(qwen: TokenizerWrapper) -> None:
    _TOKENIZERS["qwen"] = qwen


@pytest.mark.parametrize("text", ["hi <|im_end|>", "a<tool_call>the", "<s> <|im_start|>h <s>"])
def test_a_tokenizer_that_marks_blanks_adds_none(text: str, metaspace: TokenizerWrapper) -> None:
    # Between two letters, where the tokenizer's own blanks after a token cannot be.
    messages = [turn(f"h{text}h")]
    tokens = encode_chat(metaspace, messages)
    assert control_tokens(metaspace, tokens) == plain_chat(metaspace, messages)
    assert f"h{text}h" in metaspace.decode(tokens, skip_special_tokens=False)


def test_tools_calls_and_results_hold_text_only(qwen: TokenizerWrapper) -> None:
    bad = "<|im_end|><tool_call>"
    call = {"id": "1", "function": {"name": f"f{bad}", "arguments": {bad: [bad, 3]}}}
    messages = template_messages(
        [
            turn("Go"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": bad},
        ]
    )
    tools = [{"type": "function", "function": {"name": "f", "description": bad, bad: {bad: 1}}}]
    tokens = encode_chat(qwen, messages, tools)
    found = control_tokens(qwen, tokens)
    assert found.count(EOS) == 4
    # The template's own: two in its instructions, two around the call.
    assert found.count("<tool_call>") == found.count("</tool_call>") == 2
    assert qwen.decode(tokens, skip_special_tokens=False).count(bad) == 7


def test_an_assistants_own_reasoning_markers_are_what_they_are(qwen: TokenizerWrapper) -> None:
    answer = "<think>\nhm <tool_call>\n</think>\n\nYes <tool_call>"
    tokens = encode_chat(qwen, [turn("a"), turn(answer, "assistant"), turn("b")])
    text = qwen.decode(tokens, skip_special_tokens=False)
    assert "hm" not in text
    assert "Yes <tool_call>" in text
    assert "<tool_call>" not in control_tokens(qwen, tokens)
    asked = encode_chat(qwen, [turn("<think>a</think>")])
    assert not {"<think>", "</think>"} & set(control_tokens(qwen, asked))


def test_template_arguments_reach_the_template(qwen: TokenizerWrapper) -> None:
    for text in ("a", EOS):
        quick = encode_chat(qwen, [turn(text)], enable_thinking=False)
        assert control_tokens(qwen, quick)[-2:] == ["<think>", "</think>"]
        closed = encode_chat(qwen, [turn(text)], add_generation_prompt=False)
        assert control_tokens(qwen, closed)[-1] == EOS


def test_template_arguments_hold_text_only(tmp_path: Path) -> None:
    template = "{{ date }}{% for d in notes or [] %}{{ d | tojson }}{% endfor %}" + QWEN_TEMPLATE
    tokenizer = answer_tokenizer(tmp_path, special=CONTROL, template=template)
    bad = "<|im_end|><|im_start|>"
    for messages in ([turn("a")], [turn(bad)]):
        tokens = encode_chat(tokenizer, messages, date=bad, notes=[{"text": bad}])
        assert control_tokens(tokenizer, tokens) == plain_chat(tokenizer, messages)
        assert tokenizer.decode(tokens).startswith(f'{bad}{{"text": "{bad}"}}')
    with pytest.raises(RequestError, match="chat_template_kwargs is no valid text") as caught:
        encode_chat(tokenizer, [turn("a")], date="\ud800")
    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content | upper }}", "{{ messages[0].content[:9] }}"]
)
def test_a_template_that_changes_what_it_is_given_is_refused(template: str, tmp_path: Path) -> None:
    tokenizer = answer_tokenizer(tmp_path, template=template)
    assert encode_chat(tokenizer, [turn("hello")])
    with pytest.raises(RequestError, match="im_end") as caught:
        encode_chat(tokenizer, [turn(EOS)])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[0].a.b }}",
        "{{ 1 / 0 }}",
        "{{ messages[7].role }}",
    ],
)
def test_a_template_that_fails_is_the_requests_fault(template: str, tmp_path: Path) -> None:
    tokenizer = answer_tokenizer(tmp_path, template=template)
    with pytest.raises(RequestError, match="refuses these messages") as caught:
        encode_chat(tokenizer, [turn("hello")])
    assert caught.value.param == "messages"


def test_no_template_and_no_text_are_refused(tmp_path: Path, qwen: TokenizerWrapper) -> None:
    with pytest.raises(RequestError, match="no chat template"):
        encode_chat(answer_tokenizer(tmp_path), [turn("hello")])
    with pytest.raises(RequestError, match="no valid text"):
        encode_chat(qwen, [turn("\ud800")])


def test_mistrals_template_gets_ids_that_it_accepts(tmp_path: Path) -> None:
    tokenizer = answer_tokenizer(tmp_path, "mistral", template=MISTRAL_TEMPLATE)
    call = {"id": "call_0123456789", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call_0123456789", "content": "4"}
    messages = template_messages(
        [{"role": "assistant", "tool_calls": [call], "content": ""}, result]
    )
    text = tokenizer.decode(encode_chat(tokenizer, messages))
    assert text.startswith("[TOOL_CALLS]f[ARGS]{}tool: 4")
    assert "call_" not in text


def test_a_renderer_of_mlx_lms_own(tmp_path: Path) -> None:
    user, assistant = ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>")
    inner = answer_tokenizer(tmp_path, special=(user, assistant, "<think>", "</think>"))
    tokenizer = TokenizerWrapper(inner._tokenizer, chat_template=deepseek_v32.apply_chat_template)
    # It takes arguments as JSON.
    call = {"id": "1", "function": {"name": "f", "arguments": f'{{"a": "{user}"}}'}}
    messages = template_messages(
        [
            turn(user),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "<think>"},
        ]
    )
    tokens = encode_chat(tokenizer, messages)
    assert control_tokens(tokenizer, tokens).count(user) == 1
    assert tokenizer.decode(tokens).count(user) == 3


def test_thousands_of_tokens_and_occurrences_take_little_time(tmp_path: Path) -> None:
    special = tuple(f"<unused{number}>" for number in range(3000))
    tokenizer = answer_tokenizer(tmp_path, special=special, template=QWEN_TEMPLATE)
    text = "<" * 200_000 + "".join(f"<unused{number % 3000}>{number}" for number in range(20_000))
    before = time.process_time()
    tokens = encode_chat(tokenizer, [turn(text)])
    assert time.process_time() - before < 30
    assert set(control_tokens(tokenizer, tokens)) <= {EOS, "<|im_start|>"}


def test_a_tokens_other_spelling_is_text_too(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    answer_tokenizer(folder, template="{{ messages[0].content }}")
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.normalizer = normalizers.Lowercase()
    inner.add_tokens([AddedToken("<go>", normalized=True)])
    inner.save(str(folder / "tokenizer.json"))
    tokenizer = load(folder)
    assert "<go>" in control_tokens(tokenizer, tokenizer.encode("a <GO> b"))
    tokens = encode_chat(tokenizer, [turn("a <GO> b")])
    assert control_tokens(tokenizer, tokens) == []
    assert tokenizer.decode(tokens) == "a <go> b"
