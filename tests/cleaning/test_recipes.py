from typing import Any

import pytest
from cleaning_support import recipe, run
from pydantic import TypeAdapter, ValidationError

from lmlab.cleaning.build import build, criteria
from lmlab.cleaning.config import StepBase, StepConfig
from lmlab.cleaning.document import Document
from lmlab.schema import descriptions
from tests_support import CONF

ADAPTER: TypeAdapter[StepBase] = TypeAdapter(StepConfig)
RECIPES = sorted(path.stem for path in (CONF / "cleaning").glob("*.yaml"))

ARTICLE = """The river and its birds
The heron was seen again this morning, and people who live near the river have been waiting for it.
It is the third winter in a row that the bird has come to stay, and no one can say for sure why.
A biologist of the county thinks that the mild weather, and the fish that it brings, are the reason.
"We count them every year," she said, and pointed to a list on the wall of her small office.
Last year there were twelve; the year before that there were only five of them on this shore.
Whoever wants to see the herons should come early, keep to the path and leave the dog at home."""


def test_the_recipes() -> None:
    assert RECIPES == ["c4", "course", "fineweb", "gopher"]


@pytest.mark.parametrize("name", RECIPES)
def test_an_article_passes_each_recipe_and_a_list_of_links_does_not(name: str) -> None:
    steps = [ADAPTER.validate_python(values) for values in recipe(name).values()]
    assert len(criteria(steps)) == len(steps)
    html = "<body>" + "".join(f"<p>{line}</p>" for line in ARTICLE.splitlines()) + "</body>"
    links = "<body>" + "<p><a href=x>Read more</a> | <a href=y>Share</a></p>" * 40 + "</body>"
    article, list_of_links = Document("a", raw=html.encode()), Document("b", raw=links.encode())
    for config in steps:
        step = build(config)
        assert step.name == config.step_name
        for document in (article, list_of_links):
            if document.removal is None:
                step([document])
    assert article.removal is None
    assert "twelve" in article.text
    assert list_of_links.removal is not None
    known = {c.score for table in criteria(steps).values() for c in table}
    assert known <= article.scores.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_every_bound_names_its_key(name: str) -> None:
    for values in recipe(name).values():
        config = ADAPTER.validate_python(values)
        for criterion in config.criteria():
            for key, bound in (
                (criterion.low_key, criterion.low),
                (criterion.high_key, criterion.high),
            ):
                if key:
                    field, _, n = key.partition(".")
                    value = getattr(config, field)
                    assert (value[int(n)] if n else value) == bound


def test_every_key_is_described() -> None:
    for name in RECIPES:
        for values in recipe(name).values():
            cls = type(ADAPTER.validate_python(values))
            assert set(cls.model_fields) - {"kind"} <= descriptions(cls).keys()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gopher", {"min_words": 10, "max_words": 5}, "min_words=10 is above max_words=5"),
        ("gopher", {"min_mean_word_length": 11}, "nothing passes"),
        ("gopher", {"min_stop_words": 9}, "min_stop_words=9 is above the 8 different stop_words"),
        ("gopher", {"max_ellipsis_lines": 1.1}, "less than or equal to 1"),
        ("gopher", {"min_words": -1}, "greater than or equal to 0"),
        ("gopher", {"max_word": 3}, "Extra inputs"),
        ("repetition", {"top_ngrams": {0: 0.1}}, "greater than or equal to 1"),
        ("repetition", {"duplicate_ngrams": {5: 1.5}}, "less than or equal to 1"),
        ("language", {"min_score": float("nan")}, "finite|less than or equal|greater than"),
        ("extract", {"extractor": "beautifulsoup"}, "Input should be 'main'"),
        ("extract", {"max_depth": 1}, "greater than or equal to 16"),
    ],
)
def test_thresholds_out_of_range(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(recipe("gopher")[kind] | changes)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from lmlab.errors import UserError

    for module, kind, changes in (
        ("resiliparse.extract.html2text", "extract", {"extractor": "resiliparse"}),
        ("trafilatura", "extract", {"extractor": "trafilatura"}),
        ("py3langid.langid", "language", {"identifier": "langid"}),
        ("ftfy", "repair", {"ftfy": True}),
    ):
        from lmlab.cleaning import language

        language.identifier.cache_clear()
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=r"pip install 'lmlab\[cleaning\]'"):
            build(ADAPTER.validate_python(recipe("gopher")[kind] | changes))


def test_the_number_of_a_threshold_changes_the_decision() -> None:
    """No key of a rule is dead."""
    values = recipe("gopher")["gopher"]
    for key, value in (
        *(("min_words", 1000), ("max_words", 60), ("min_mean_word_length", 9)),
        *(("max_mean_word_length", 3), ("min_stop_words", 8), ("min_alphabetic_words", 1.0)),
    ):
        config = ADAPTER.validate_python(values | {key: value})
        assert run(build(config), ARTICLE).removal is not None, key
    assert run(build(ADAPTER.validate_python(values)), ARTICLE).removal is None
