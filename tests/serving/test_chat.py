"""Chat templates, against those of transformers."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lmlab.errors import UserError
from lmlab.loading import load
from lmlab.serving.chat import ChatTemplate
from lmlab.serving.errors import ApiError
from lmlab.serving.models import ServedModel
from lmlab.serving.protocol import Message
from serving.running import Start

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
MARKED = """\
{% for message in messages %}
<{{ message.role }}>
    {%- if message.role == 'assistant' %}
    {% generation %}
{{ message.content }} {% if loop.last %}.{% endif %}
    {%- endgeneration %}
    {% else %} {{ message.content }}{% endif %}

{% endfor %}
"""
TALK = [("user", "hi {{ 7 * 7 }}"), ("assistant", "yes"), ("user", "why?\n")]


def messages(*talk: tuple[str, str]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": text}) for role, text in talk]


@pytest.mark.parametrize("source", [CHATML, INSTRUCT, MARKED])
def test_a_template_renders_as_in_transformers(source: str) -> None:
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )  # fmt: skip
    wanted = theirs.apply_chat_template(
        [{"role": role, "content": text} for role, text in TALK],
        chat_template=source, tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    assert ChatTemplate(source).prompt(messages(*TALK)) == wanted


def test_the_plain_template() -> None:
    template = ChatTemplate()
    assert template.prompt(messages(("system", "Be kind."), ("user", "Hi"))) == (
        "System: Be kind.\n\nUser: Hi\n\nAssistant:"
    )
    assert template.stop == ("\n\nUser:",)


def test_a_reply_ends_where_the_template_begins_the_next_message() -> None:
    assert ChatTemplate(CHATML, ["<|im_end|>", "<|im_start|>"]).stop == ("<|im_end|>",)
    assert ChatTemplate(CHATML).stop == ("<|im_end|>\n<|im_start|>user",)
    assert ChatTemplate(INSTRUCT, ["<|endoftext|>"]).stop == ("<|endoftext|>",)
    assert ChatTemplate("{{ raise_exception('never') }}").stop == ()
    assert ChatTemplate("{{ messages[0].content }}").stop == ()


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception('no') }}",
        "{{ undefined.field }}",
        "{% for i in range(10**9) %}{% endfor %}",
    ],
)
def test_what_a_template_must_not_do_is_a_refusal(source: str) -> None:
    with pytest.raises(ApiError, match="The chat template refuses the messages"):
        ChatTemplate(source).prompt(messages(("user", "hi")))


def test_files_that_are_no_template(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for %}")
    with pytest.raises(UserError, match="is not a Jinja template"):
        ChatTemplate.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not UTF-8"):
        ChatTemplate.read(path)


def test_a_runs_template_with_an_unknown_tag_is_one_line(trained: Path) -> None:
    run = load(trained)
    source = "{% unknown %}{{ messages[0].content }}"
    run = replace(run, tokenizer=run.tokenizer.extended([], source))
    with pytest.raises(UserError, match=r"run: its chat template cannot be read .*'unknown'"):
        ServedModel(run, "tags")


def test_a_template_of_ones_own(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    it = start(template=path)
    body = {"messages": [{"role": "user", "content": "<scr"}], "max_tokens": 4, "temperature": 0}
    answer = httpx.post(f"{it.url}/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "ipt>"
