import re
from pathlib import Path
from typing import Any

import pytest
import trafilatura
from cleaning_support import run, step
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text

from lmlab.cleaning import extract_main_content, extract_text
from lmlab.cleaning.document import Document
from lmlab.cleaning.html import ENTITIES, decode_html, main_content_extractor
from lmlab.cleaning.native import Extractor, html_depth

PARAGRAPHS = [
    f"The {animal} was seen again this morning, and people who live near the river, where it was "
    f"first found, say that the {animal} has come to stay for the winter."
    for animal in ("otter", "heron", "beaver", "stork", "lynx", "marten")
]
NAVIGATION = "".join(
    f"<li><a href='/{name}'>{name}</a></li>" for name in ("Home", "Sports", "Shop")
)
PAGE = f"""<!DOCTYPE html><html><head><title>Animals &amp; rivers</title>
<style>p {{ color: red }}</style>
<script>if (1 < 2) document.write("<p>never</p>")</script></head><body>
<nav class="main-nav"><ul>{NAVIGATION}</ul></nav>
<div class="content"><article><h1>Animals</h1>
{"".join(f"<p>{text}</p>" for text in PARAGRAPHS)}</article></div>
<div class="related-posts"><h3>Related</h3><ul>{NAVIGATION}</ul></div>
<footer class="footer"><p>Copyright 2020. <a href="/terms">Terms of use</a></p></footer>
</body></html>"""


def test_main_content() -> None:
    lines = extract_main_content(PAGE.encode()).splitlines()
    assert [line for line in lines if line != "Animals"] == PARAGRAPHS


def test_main_content_without_spaces() -> None:
    paragraph = (
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
    )
    navigation = "".join(f"<li><a href=x>{name}</a></li>" for name in ("首页", "体育", "商店"))
    html = f"<nav><ul>{navigation}</ul></nav><article>{f'<p>{paragraph}</p>' * 6}</article>"
    assert extract_main_content(html.encode()).splitlines() == [paragraph] * 6


@pytest.mark.parametrize("html", [PAGE, "<p>a<p>b", "", "<ul><li>x<li>y</ul>", "a &amp; b < c"])
def test_resiliparse_is_what_the_library_gives(html: str) -> None:
    plain = step("course", "extract")
    main = step("course", "extract", extractor="resiliparse_main")
    assert (
        run(plain, raw=html.encode()).text
        == extract_plain_text(html)
        == extract_text(html.encode())
    )
    assert run(main, raw=html.encode()).text == extract_plain_text(html, main_content=True)


def test_trafilatura_is_what_the_library_gives() -> None:
    made = step("course", "extract", extractor="trafilatura")
    assert run(made, raw=PAGE.encode()).text == trafilatura.extract(PAGE)
    assert run(made, raw=b"").removal is not None


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "größer – naïve"),
        ("utf-8-sig", "größer – naïve"),
        ("iso-8859-1", "Die Straße ist größer als der naïve Käufer früher für möglich hielt"),
        ("windows-1251", "Все люди рождаются свободными и равными в своем достоинстве и правах"),
        ("utf-16", "All people are born free"),
        (
            "shift_jis",
            "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である",
        ),
    ],
)
def test_encodings(encoding: str, text: str) -> None:
    html = f"<html><body><p>{text}</p><p>{text}</p></body></html>"
    assert text in decode_html(html.encode(encoding))


KOREAN = "오늘은 날씨가 좋습니다. 내일은 비가 올 것입니다. 똠방각하"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp949", KOREAN), ("iso2022_jp", "今日は天気がいいです。"), ("cp932", "①今日は天気がいい")],
)
def test_encodings_of_more_characters(encoding: str, text: str) -> None:
    assert decode_html(f"<p>{text}".encode(encoding)) == f"<p>{text}"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-8", "Où est la bibliothèque ? L’hôtel"), ("utf-8", KOREAN), ("cp949", KOREAN)],
)
@pytest.mark.parametrize("end", [b"\xff", b"\xe9", None])
def test_a_damaged_byte_costs_one_character(encoding: str, text: str, end: bytes | None) -> None:
    html = f"<p>{text}</p>" * 5
    raw = html.encode(encoding)
    raw = raw + text[-1].encode(encoding)[:-1] if end is None else raw + end + b"<p>"
    assert decode_html(raw).startswith(html)


def test_declared_encodings() -> None:
    text = "Вчора я був у місті і зустрів друзів."
    page = f"<html><head><meta charset='KOI8-U'></head><p>{text}"
    assert decode_html(page.encode("koi8-u")) == page  # detected as KOI8-R
    assert decode_html(text.encode("koi8-u"), "koi8-u") == text
    for wrong in ("utf-8", "iso-8859-1", "utf-16", "shift_jis", "no such", ""):
        assert decode_html(f"<meta charset={wrong}>{text}".encode("cp1251"))[-9:] == text[-9:]
        assert decode_html(f"<p>{text}".encode(), wrong) == f"<p>{text}"


@pytest.mark.parametrize(
    ("language", "encoding", "text"),
    [
        ("is", "cp1252", "Þetta er stutt síða á íslensku um veðrið"),
        ("IS-is", "cp1252", "bróður mínum að veiða í ánni"),
        ("fo", "cp1252", "Veðrið er ofta vátt og vindurin er harður"),
        ("tr", "cp1254", "Bugün hava çok güzel ve güneş dağların üzerinde parlıyor"),
    ],
)
def test_the_language_decides_between_encodings_of_latin_script(
    language: str, encoding: str, text: str
) -> None:
    words = text.split()
    for first in range(len(words) - 3):
        page = f"<html class=a lang='{language}'><p>{' '.join(words[first : first + 4])}"
        assert decode_html(page.encode(encoding)) == page


def test_the_language_of_a_template_does_not_decide_on_the_script() -> None:
    page = "<html lang=de><p>Вчора я був у місті і зустрів друзів."
    assert decode_html(page.encode("cp1251")) == page


def test_no_page_is_in_an_encoding_of_dos() -> None:
    page = (
        "<p>Føroyar eru eitt oyggjaland í Norðuratlantshavi. Har búgva umleið fimmti túsund fólk. "
        "Málið er føroyskt og tað líkist íslendskum. Veðrið er ofta vátt."
    )
    assert decode_html(page.encode("cp1252")) == page


@given(st.binary(max_size=200))
def test_any_bytes_decode(raw: bytes) -> None:
    decode_html(raw).encode("utf-8", "replace").decode()


def test_entities() -> None:
    html = "<p>&lt;b&gt; &amp;amp; &eacute;&#233;&#xE9;&nbsp;&unknown; &#0;&#x110000; & &amp</p>"
    assert extract_main_content(html.encode()) == "<b> &amp; ééé &unknown; \ufffd\ufffd & &amp"


@pytest.mark.parametrize(
    ("html", "blocks"),
    [
        ("<p>one<p>two</p>three", ["one", "two", "three"]),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", ["a", "b", "c"]),
        ("<p>a <b>bold</b><br>line<br><br>next", ["a bold\nline", "next"]),
        ("<table><tr><td>a<td>b<tr><td>c</table>", ["a", "b", "c"]),
        ("a<!-- <p>no</p> -->b<script>x<y</script >c<style>p{}</STYLE>d", ["abcd"]),
        ("<p>a</b></i>b</p></p></div>c", ["ab", "c"]),
        ("<p hidden>no</p><div style='display: none'><p>no</div>yes", ["yes"]),
        ("<button>no</button><select><option>no</select>yes", ["yes"]),
        ("<p>x < y and a<3 </", ["x < y and a<3 </"]),
        ("<p title='a>b' data-x=\"'>\">text", ["text"]),
        ("<dl><dt>t<dd>d<dt>u</dl>", ["t", "d", "u"]),
        ("<body><p>a</p><!-- never closed", ["a"]),
        ("<my-element>a</my-element>b", ["a", "b"]),
        ("<head><title>no</title><body>yes", ["yes"]),
        ("<b><p>a</b>b</p>", ["ab"]),
    ],
)
def test_blocks(html: str, blocks: list[str]) -> None:
    assert [
        text for text, _ in main_content_extractor().blocks(html.encode(), context=False)
    ] == blocks


def test_all_text_where_nothing_is_main_content() -> None:
    assert (
        extract_main_content(b"<li><a href=x>only</a></li><li><a href=y>links</a>") == "only\nlinks"
    )


@pytest.mark.parametrize("extractor", ["main", "resiliparse", "resiliparse_main", "trafilatura"])
@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<div>" * 100_000, "depth"),
        ("<b><div>" * 50_000 + "x", "depth"),
        ("<p>" + "x" * 1_000_001, "bytes"),
        ("<p>" * 30_000 + "x", None),
        ("<a " * 200_000, "characters"),
        ("<" * 900_000, None),
        ("&#" * 400_000, None),
        ("<!--" * 200_000, "characters"),
        ("<p x='" + "y" * 900_000, "characters"),
        ("</b>" * 200_000 + "<p>text", None),
    ],
)
def test_bombs(extractor: str, html: str, reason: str | None) -> None:
    made = step("gopher", "extract", extractor=extractor, max_bytes=1_000_000, max_depth=300)
    removal = run(made, raw=html.encode()).removal
    found = removal.reason if removal else None
    assert found == reason or (found in (None, "characters") and reason in (None, "characters"))


def test_elements_that_nest_as_deep_as_allowed() -> None:
    html = b"<div>" * 300 + b"text"
    assert html_depth(html, 300) == 300
    assert html_depth(b"<div>" + html, 300) == 301
    made = step("gopher", "extract", max_depth=300)
    assert run(made, raw=html).scores == {
        "extract.bytes": 1504,
        "extract.depth": 300,
        "extract.characters": 4,
    }
    assert run(made, raw=b"<div>" + html).removal is not None


def test_documents_that_are_text_pass() -> None:
    made = step("gopher", "extract", max_bytes=10)
    assert run(made, "<p>text").text == "<p>text"
    removal = run(made, "€€€€").removal
    assert removal is not None
    assert (removal.reason, removal.score) == ("bytes", 12)
    removal = run(made, "").removal
    assert removal is not None
    assert removal.reason == "characters"


def test_the_html_is_let_go() -> None:
    for most in (1, 1_000_000):
        [document] = step("gopher", "extract", max_bytes=most)([Document("a:0", raw=PAGE.encode())])
        assert document.raw is None
        assert (document.removal is None) == (most > 1)


PIECES = [
    *("<p>", "</p>", "<div class='nav a'>", "</div>", "<a href=x>", "</a>", "<b>", "</b>", "text "),
    *("<li>", "<br>", "<script>", "</script>", "&amp;", "<!--", "-->", "<td>", "<", ">", "'", '"'),
    *("<p x='", "&#", "é", "\n", "<h1>", "</ul>", "<svg>", "</svg>", "=", "/"),
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_any_markup(pieces: list[str]) -> None:
    """Its text is text of the page, and nothing that stands between tags is read twice."""
    html = "".join(pieces)
    text = extract_main_content(html.encode())
    assert text.count("text") <= html.count("text")
    assert not re.search(r"^\s|\s$|  ", text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    """No page is an error."""
    main_content_extractor().blocks(decode_html(raw).encode(), context=True)
    assert html_depth(raw, 3) <= 4


def test_weights_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="weights"):
        Extractor(ENTITIES, [1.0], [1.0]).extract(b"<p>text", 10)


def test_repair() -> None:
    def repaired(text: str, **changes: Any) -> Document:
        return run(step("gopher", "repair", **changes), text)

    assert repaired("cafe\u0301").text == "café"
    assert repaired("cafÃ©", ftfy=True).text == "café"
    assert repaired("cafÃ©").text == "cafÃ©"
    assert repaired("cafe\u0301", nfc=False, ftfy=True).text == "cafe\u0301"
    assert repaired("a").scores == {"repair.changed": 0}
    assert repaired("cafe\u0301").scores == {"repair.changed": 1}


def test_the_weights_belong_to_the_package() -> None:
    import lmlab.cleaning

    assert (Path(lmlab.cleaning.__file__).parent / "block_weights.json").is_file()
