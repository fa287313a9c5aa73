"""Documents that share n-grams with evaluation texts."""

import json
import random
from pathlib import Path

import pytest
from corpus import text
from hypothesis import given
from hypothesis import strategies as st

from lmlab.cleaning.decontamination import _WORD, Decontaminate
from lmlab.cleaning.document import Document
from lmlab.cleaning.hashing import ngram_hashes, normalize
from lmlab.cleaning.pipeline_config import DecontaminateConfig
from lmlab.errors import ConfigError, DataError

QUESTION = "If a train leaves the station at noon, how many stones does the old river carry by six?"


def config(path: Path, most: int | None = 0, n: int = 8) -> DecontaminateConfig:
    return DecontaminateConfig(
        kind="decontaminate", paths=[str(path)], field="question", ngrams=n, max_shared_ngrams=most
    )


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"question": q}) + "\n" for q in (QUESTION, "Too short")))
    return path


def test_shared_ngrams_remove_a_document_and_are_marked(questions: Path) -> None:
    generator = random.Random(0)
    before, after = text(generator), text(generator)
    copied = QUESTION.upper().replace("TRAIN ", "TRAIN \n - ")
    dirty = Document("a", f"{before}\n{copied}\n{after}")
    clean = Document("b", before + "\n" + QUESTION[:30] + after)
    short = Document("c", "Too short")
    kept, removed = [], []
    for document in Decontaminate(config(questions))([dirty, clean, short]):
        (kept if document.removal is None else removed).append(document)
    assert [document.id for document in kept] == ["b", "c"]
    assert [document.scores["decontaminate.shared_ngrams"] for document in (*removed, *kept)] == [
        len(QUESTION.split()) - 7,
        0,
        0,
    ]
    removal = removed[0].removal
    assert removal is not None
    assert (removal.step, removal.reason) == ("decontaminate", "shared_ngrams")
    assert [dirty.text[start:end] for start, end in removal.spans] == [copied]


def test_documents_may_be_marked_only(questions: Path) -> None:
    (document,) = Decontaminate(config(questions, None))([Document("a", QUESTION)])
    assert document.removal is None
    assert document.scores["decontaminate.shared_ngrams"] == len(QUESTION.split()) - 7


def test_evaluation_files_that_give_nothing_are_refused(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="100 words"):
        Decontaminate(config(questions, n=100))
    with pytest.raises(DataError, match="missing"):
        Decontaminate(config(tmp_path / "missing.jsonl"))
    with pytest.raises(ConfigError, match="is empty"):
        Decontaminate(config(questions).model_copy(update={"paths": []}))


def test_evaluation_texts_in_html_are_refused(questions: Path, tmp_path: Path) -> None:
    page = tmp_path / "more.html"
    page.write_text(f"<p>{QUESTION}")
    paths = [str(questions), str(page)]
    with pytest.raises(DataError, match=r"more.html:0: is HTML"):
        Decontaminate(config(questions).model_copy(update={"paths": paths}))


def test_letters_that_are_words_are_marked_where_they_stand(tmp_path: Path) -> None:
    line = "\u5982\u679c\u706b\u8f66\u4e2d\u5348\u79bb\u5f00\u8f66\u7ad9"
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": line}) + "\n")
    clean = " ".join(f"word{i}" for i in range(40))
    texts = (f"\u524d\u8a00{line}", f"{line} {clean}", f"{clean} {line}")
    marked = []
    for document in Decontaminate(config(path))([Document(t, t) for t in texts]):
        assert document.removal is not None
        marked.append([document.text[start:end] for start, end in document.removal.spans])
    assert marked == [[texts[0]], [line], [line]]


@given(st.text(st.sampled_from("ab \n\t\x1c\x85.\u00e9\u0301\u4e2d\u0e01\u3042"), max_size=30))
def test_words_of_spans_are_those_of_ngrams(text: str) -> None:
    words = [word for m in _WORD.finditer(text) for word in normalize(m[0]).split()]
    assert len(ngram_hashes(text, 1)) == len(words)


def test_a_missing_field_is_one_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"other": QUESTION}))
    with pytest.raises(DataError, match=r"no text in field 'question' .*; set the step's field"):
        Decontaminate(config(path))
