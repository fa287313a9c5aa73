from typing import Any

import pytest
from cleaning_support import run, step

from lmlab.cleaning import identify_language
from lmlab.errors import ConfigError

SENTENCES = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "cs": "Všichni lidé se rodí svobodní a sobě rovní co do důstojnosti a práv.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_twenty_languages(code: str) -> None:
    language, score = identify_language(SENTENCES[code].replace(" ", "\n", 1))
    assert language == code
    assert 0.4 < score <= 1


@pytest.mark.parametrize("code", SENTENCES)
def test_twenty_languages_by_langid(code: str) -> None:
    document = run(step("gopher", "language", identifier="langid", languages=None), SENTENCES[code])
    assert document.metadata["language"] == code
    assert document.removal is None


def test_the_short_text_of_the_course() -> None:
    assert identify_language("欢迎来到我们的网站")[0] == "zh"


@pytest.mark.parametrize("text", ["", "\n \n", "123 456", "\0"])
def test_texts_without_a_letter_are_undetermined(text: str) -> None:
    assert identify_language(text) == ("und", 0.0)


def test_lone_surrogates_are_no_error() -> None:
    assert identify_language("hello there, how are you \ud800")[0] == "en"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"languages": ["de", "fr"]}, "allowed"),
        ({"min_score": 1.0}, "score"),
        ({"languages": None, "min_score": None}, None),
    ],
)
def test_what_is_kept(changes: dict[str, Any], reason: str | None) -> None:
    removal = run(step("gopher", "language", **changes), SENTENCES["en"]).removal
    assert (removal.reason if removal else None) == reason


@pytest.mark.parametrize("identifier", ["fasttext", "langid"])
def test_languages_that_are_never_found_are_refused(identifier: str) -> None:
    """fastText's least likely labels, such as ug, are languages that it finds, too."""
    step("gopher", "language", identifier=identifier, languages=["en", "ug", "und"])
    with pytest.raises(ConfigError, match=r"steps.language.languages.*never finds eng;"):
        step("gopher", "language", identifier=identifier, languages=["en", "eng"])


def test_only_the_beginning_is_read() -> None:
    text = SENTENCES["en"] + " " + SENTENCES["de"] * 50
    found = run(step("gopher", "language", max_characters=60), text)
    assert found.metadata["language"] == "en"
