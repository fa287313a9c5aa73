"""Chat templates against those of transformers, and the parts of a conversation that are learnt."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Theirs
from tokenizers import models
from transformers import PreTrainedTokenizerFast

import lmlab.tokenizer
from lmlab.alignment.templates import (
    CHATML,
    PLAIN,
    Message,
    Template,
    TemplateRefusal,
    find_template,
)
from lmlab.errors import DataError, UserError
from lmlab.tokenizer import byte_tokenizer

TALK = [
    Message("system", "Be {{ kind }}."),
    Message("user", "hi"),
    Message("assistant", "yes\n"),
    Message("user", "why?"),
    Message("assistant", "so"),
]


@pytest.mark.parametrize("source", [CHATML, PLAIN])
@pytest.mark.parametrize("prompt", [False, True])
def test_a_template_renders_as_in_transformers(source: str, prompt: bool) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=Theirs(models.BPE()))
    wanted = theirs.apply_chat_template(
        [message._asdict() for message in TALK],
        chat_template=source,
        tokenize=False,
        add_generation_prompt=prompt,
    )
    assert Template(source).render(TALK, add_generation_prompt=prompt) == wanted


def test_chatml_by_hand() -> None:
    assert Template(CHATML).render(TALK[1:3], add_generation_prompt=True) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", [CHATML, PLAIN])
def test_replies_are_learnt_and_the_rest_is_given(source: str) -> None:
    template = Template(source)
    pieces = template.pieces(TALK)
    whole = template.render(TALK, add_generation_prompt=False)
    assert "".join(piece.text for piece in pieces) == whole
    assert [piece.learned for piece in pieces] == [False, True, False, True]
    assert pieces[1].text.startswith(("yes", " yes"))
    assert "why" not in pieces[1].text + pieces[3].text
    (given, last) = template.pieces(TALK, first=3)
    assert "yes" in given.text
    assert last == pieces[3]


def test_a_template_that_rewrites_what_was_before_is_refused() -> None:
    source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(TemplateRefusal, match="cannot be told from its prompt"):
        Template(source).pieces(TALK)
    with pytest.raises(TemplateRefusal, match="never"):
        Template("{{ raise_exception('never') }}").pieces(TALK)


def test_special_tokens_of_a_template() -> None:
    assert Template(CHATML).special_tokens == ["<|im_start|>", "<|im_end|>"]
    assert Template(PLAIN).special_tokens == []


def test_templates_by_name_and_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}")
    assert find_template(str(path), None).source == "{{ messages[0].content }}"
    assert find_template("plain", CHATML).source == PLAIN
    assert find_template(None, None).source == CHATML
    assert find_template(None, PLAIN).source == PLAIN
    path.write_text("{% for %}")
    with pytest.raises(UserError, match=r"mine\.jinja is not a Jinja template: "):
        find_template(str(path), None)
    with pytest.raises(UserError, match=r"task\.template=chatmi is none of chatml, plain, and no"):
        find_template("chatmi", None)


def test_a_template_is_kept_with_the_tokenizer(tmp_path: Path) -> None:
    plain = byte_tokenizer(["<|endoftext|>"])
    tokenizer = plain.extended(["<|im_start|>", "<|im_end|>", "<|endoftext|>"], CHATML)
    assert tokenizer.special_tokens == {
        "<|endoftext|>": 256,
        "<|im_start|>": 257,
        "<|im_end|>": 258,
    }
    assert tokenizer.encode("a<|im_end|>") == [97, 258]
    assert plain.vocab_size == 257
    tokenizer.save(tmp_path / "saved")
    again = lmlab.tokenizer.Tokenizer.load(tmp_path / "saved")
    assert again.chat_template == CHATML
    assert again.special_tokens == tokenizer.special_tokens
    assert again.extended(["<|im_end|>"], PLAIN).vocab_size == tokenizer.vocab_size
    (tmp_path / "saved" / "chat_template.jinja").write_text("changed")
    with pytest.raises(DataError, match=r"chat_template\.jinja: changed or cut"):
        lmlab.tokenizer.Tokenizer.load(tmp_path / "saved")
    plain.save(tmp_path / "plain")
    assert lmlab.tokenizer.Tokenizer.load(tmp_path / "plain").chat_template is None


def test_a_special_token_that_is_an_ordinary_token_keeps_its_id() -> None:
    tokens = {byte: bytes([byte]) for byte in range(256)} | {256: b"<|im_end|>"}
    tokenizer = lmlab.tokenizer.Tokenizer(tokens, [])
    assert tokenizer.extended(["<|im_end|>", "<|x|>"], None).special_tokens == {
        "<|im_end|>": 256,
        "<|x|>": 257,
    }
