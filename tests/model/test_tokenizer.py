"""A folder's tokenizer, or a word about what is wrong with it."""

from pathlib import Path

import pytest

from tbcluster.errors import CorruptModelError
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer
from tests.doubles.checkpoints import LlamaSizes, write_llama

SIZES = LlamaSizes(num_hidden_layers=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path, SIZES, with_tokenizer=True)


def test_text_comes_back_and_every_id_is_text(folder: Path) -> None:
    tokenizer = open_tokenizer(check_folder(folder))
    for text in ("plain words", "  spaces\tand\nlines ", "日本 ünïcode 🙂"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.get_vocab()) == SIZES.vocab_size
    assert all(tokenizer.decode([token]) for token in range(SIZES.vocab_size))


def test_the_end_of_text_comes_from_the_config(folder: Path) -> None:
    assert set(open_tokenizer(check_folder(folder)).eos_token_ids) == {1}
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    assert set(open_tokenizer(check_folder(folder)).eos_token_ids) == {1, 7}


def test_the_chat_template_is_the_folders(folder: Path) -> None:
    tokenizer = open_tokenizer(check_folder(folder))
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<bos>user: Hi\nassistant:"


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CorruptModelError, match="no usable tokenizer"):
        open_tokenizer(check_folder(folder))


def test_a_garbled_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptModelError, match="no usable tokenizer"):
        open_tokenizer(check_folder(folder))
