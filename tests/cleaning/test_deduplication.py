"""Exact lines and near-duplicates beside plain Python's answers."""

import gc
import itertools
import random
import re
import string
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from corpus import near, text
from hypothesis import given, settings
from hypothesis import strategies as st

from lmlab.cleaning import native
from lmlab.cleaning.exact_lines import exact_line_deduplication
from lmlab.cleaning.hashing import MinHash, jaccard, ngram_hashes, ngram_set, normalize
from lmlab.cleaning.minhash import MinHashStore
from lmlab.cleaning.minhash_files import minhash_deduplication
from lmlab.cleaning.pipeline_config import MinHashConfig
from lmlab.cleaning.stored_sets import StoredSets, save_sets
from lmlab.errors import UserError

LICENCE = """\
The MIT License (MIT)

Copyright (c) 2004-2026 The Authors of the Framework

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
NEAR = LICENCE.replace("The MIT License (MIT)\n\n", "").replace(
    "The Authors of the Framework", "the authors of the   Library"
)
FAR = """\
Permission to use, copy, modify, and/or distribute this software for any purpose with or without
fee is hereby granted, provided that the above copyright notice and this permission notice appear
in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DFARLAIMS ALL WARRANTIES WITH REGARD TO THIS
SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
"""
BLOCKS = [
    *((0x0E00, 0x109F), (0x1780, 0x17DF), (0x3005, 0x312F), (0x31F0, 0x31FF), (0x3400, 0x9FFF)),
    *((0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF)),
]
"""Of scripts that put no space between words."""


def plain_words(content: str) -> list[str]:
    """Return the words by the definition, one step after the other."""
    decomposed = unicodedata.normalize("NFD", content.lower())
    kept = "".join(
        c
        for c in decomposed
        if unicodedata.category(c) != "Mn"
        and unicodedata.category(c)[0] != "P"
        and c not in string.punctuation
    )
    words: list[str] = []
    for part in kept.split():
        apart = True  # the last letter stands by itself
        for i, c in enumerate(part):
            if is_unspaced(c) or i == 0 or (apart and not is_unspaced(c, "M")):
                words.append(c)
                apart = is_unspaced(c)
            else:
                words[-1] += c
    return words


def is_unspaced(c: str, kind: str = "L") -> bool:
    return unicodedata.category(c)[0] == kind and any(a <= ord(c) <= b for a, b in BLOCKS)


def shingles(content: str, n: int) -> set[tuple[str, ...]]:
    words = plain_words(content)
    size = min(n, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if words else set()


def true_jaccard(a: str, b: str, n: int) -> float:
    x, y = shingles(a, n), shingles(b, n)
    return len(x & y) / len(x | y)


@settings(deadline=None)
@given(
    st.text() | st.text(alphabet="ab ก\u0e31的ガမ\u102c\u1031\u0903,é"),
    st.integers(1, 6),
)
def test_ngrams_are_those_of_the_definition(content: str, n: int) -> None:
    assert normalize(content).decode().split() == plain_words(content)
    found = ngram_set(content, n)
    assert len(found) == len(shingles(content, n))
    assert np.array_equal(found, np.unique(ngram_hashes(content, n)))


def test_accents_case_punctuation_and_white_space_do_not_count() -> None:
    assert normalize("Crème  brûlée,\n\u201cÉLAN\u201d\u2014vital!") == b"creme brulee elanvital"


@settings(deadline=None)
@given(st.text(alphabet="ab cde", min_size=1), st.text(alphabet="ab cde", min_size=1))
def test_jaccard(a: str, b: str) -> None:
    if a.split() or b.split():
        assert jaccard(ngram_set(a, 2), ngram_set(b, 2)) == true_jaccard(a, b, 2)


def test_signatures_estimate_the_jaccard_similarity() -> None:
    generator = random.Random(0)
    minhash = MinHash(512, 3)
    errors = []
    for _ in range(40):
        a = text(generator, 20)
        b = a
        for _ in range(generator.randint(0, 8)):
            b = near(b, generator)
        x, y = minhash([a, b])
        errors.append(float((x == y).mean()) - true_jaccard(a, b, 3))
    # The estimate's standard deviation is sqrt(J (1 - J) / 512) <= .0221 for each pair.
    assert abs(np.mean(errors)) < 3 * 0.0221 / np.sqrt(len(errors))
    assert np.std(errors) < 1.5 * 0.0221


def test_signatures_are_the_smallest_images_of_the_hashes() -> None:
    factors = np.array([1, 3, 0x9E3779B1], np.uint32)
    terms = np.array([0, 7, 12345], np.uint32)
    content = b"one two three four five six seven eight"
    hashes = native.ngram_hashes(content, 3)
    x = (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)[:, None] * factors + terms
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    table = native.signatures([content, b""], 3, factors, terms)
    assert table.tolist() == [x.min(axis=0).tolist(), [0xFFFFFFFF] * 3]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "bb", "c\r"]), max_size=30))
def test_line_hashes(lines: list[str]) -> None:
    content = "\n".join(lines)
    hashes = native.line_hashes(content.encode())
    expected = content.split("\n")
    if expected[-1] == "":
        expected.pop()
    assert len(hashes) == len(expected)
    same = [line.removesuffix("\r") for line in expected]
    for (a, x), (b, y) in itertools.combinations(zip(same, hashes.tolist(), strict=True), 2):
        assert (a == b) == (x == y)


def write(folder: Path, contents: list[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content.encode())
    return paths


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["", "one", "two", "drei", "vier\r", "é"]), max_size=8),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_exact_lines(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], ended: bool
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    contents = ["".join(f"{line}\n" for line in lines) for lines in files]
    contents = contents if ended else [content.removesuffix("\n") for content in contents]
    paths = write(folder / "in", contents)
    exact_line_deduplication(paths, folder / "out")
    split = [re.findall(r"[^\n]*\n|[^\n]+", content) for content in contents]
    counts = Counter(
        line.removesuffix("\n").removesuffix("\r") for lines in split for line in lines
    )
    for path, lines in zip(paths, split, strict=True):
        kept = [x for x in lines if counts[x.removesuffix("\n").removesuffix("\r")] == 1]
        assert (folder / "out" / path.name).read_bytes().decode() == "".join(kept)
    assert sorted(p.name for p in (folder / "out").iterdir()) == [p.name for p in paths]


def test_near_duplicate_licences(tmp_path: Path) -> None:
    """One of the two MIT licences stays, as it is; the other licence is no duplicate."""
    assert true_jaccard(LICENCE, NEAR, 5) == pytest.approx(0.919, abs=0.005)
    assert true_jaccard(LICENCE, FAR, 5) == pytest.approx(0.18, abs=0.005)
    paths = write(tmp_path / "in", [LICENCE, FAR, NEAR, "", ""])
    minhash_deduplication(paths, 100, 20, 5, 0.8, tmp_path / "out")
    kept = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert kept == {"000.txt": LICENCE, "001.txt": FAR, "003.txt": "", "004.txt": ""}
    minhash_deduplication(paths, 100, 20, 5, 0.99, tmp_path / "strict")
    assert len(list((tmp_path / "strict").iterdir())) == 5


def test_a_similarity_of_exactly_the_threshold(tmp_path: Path) -> None:
    """55 of 100 words: 0.55 * 100 is more than 55 in floating point."""
    words = [f"word{i}" for i in range(100)]
    paths = write(tmp_path / "in", [" ".join(words), " ".join(words[:55])])
    minhash_deduplication(paths, 64, 64, 1, 0.55, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000.txt"]


def test_clusters_are_those_of_all_pairs(tmp_path: Path) -> None:
    """With bands of one hash nearly every similar pair is a candidate."""
    generator = random.Random(5)
    contents = []
    for _ in range(12):
        original = text(generator)
        contents.append(original)
        for _ in range(generator.randint(0, 5)):
            contents.append(near(generator.choice(contents[-3:]), generator))
    generator.shuffle(contents)
    paths = write(tmp_path / "in", contents)
    minhash_deduplication(paths, 64, 64, 3, 0.7, tmp_path / "out")
    cluster = list(range(len(contents)))
    for i, j in itertools.combinations(range(len(contents)), 2):
        if true_jaccard(contents[i], contents[j], 3) >= 0.7:
            old, new = cluster[j], cluster[i]
            cluster = [new if label == old else label for label in cluster]
    first = {min(i for i, label in enumerate(cluster) if label == own) for own in cluster}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{number:03d}.txt" for number in sorted(first)
    ]
    assert len(first) < len(contents)


@pytest.mark.parametrize("keep", ["first", "longest"])
@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_survivors_do_not_depend_on_partitions(tmp_path: Path, keep: str, partitions: int) -> None:
    generator = random.Random(2)
    a, b = text(generator), text(generator)
    files = [[a, text(generator)], [b, a + " more", near(b, generator)], [near(a, generator), a]]
    config = MinHashConfig.model_validate(
        {
            **{"kind": "minhash", "num_hashes": 60, "num_bands": 30, "ngrams": 3},
            **{"jaccard_threshold": 0.7, "keep": keep},
        }
    )
    store = MinHashStore(tmp_path, config, len(files), partitions)
    for number, texts in enumerate(files):
        with store.writer(number) as writer:
            for content in texts:
                writer.add_text(content)
    for partition in range(partitions):
        store.bucket(partition)
    for number, texts in enumerate(files):
        store.write_shingles(number, texts)
    for partition in range(partitions):
        store.verify(partition)
    store.cluster()
    found = {
        (number, int(member["row"])): (int(member["cluster"]), bool(member["survives"]))
        for number in range(len(files))
        for member in store.members(number)
    }
    lengths = {(1, 0): len(b), (1, 2): len(files[1][2])}
    best_b = (1, 0) if keep == "first" or lengths[1, 0] >= lengths[1, 2] else (1, 2)
    of_a = {(0, 0): len(a), (1, 1): len(a) + 5, (2, 0): len(files[2][0]), (2, 1): len(a)}
    best_a = (0, 0) if keep == "first" else max(of_a, key=lambda key: of_a[key])
    assert found == {
        **{key: (0, key == best_a) for key in of_a},
        **{key: (1 << 32, key == best_b) for key in lengths},
    }


@given(
    st.dictionaries(
        st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=5), max_size=8
    )
)
def test_stored_sets_are_read_in_any_order(sets: dict[int, list[int]]) -> None:
    keys = sorted(sets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sets.bin")
        save_sets(path, keys, [np.array(sets[key], np.uint64) for key in keys])
        stored = StoredSets(path)
        for key in sets:
            assert stored.read(key).tolist() == sets[key]


def test_a_store_that_is_dropped_holds_no_file(tmp_path: Path) -> None:
    """A task has a store of its own; files of earlier ones would reach the limit of a process."""
    content = text(random.Random(3))
    config = MinHashConfig(
        kind="minhash",
        num_hashes=20,
        num_bands=5,
        ngrams=3,
        jaccard_threshold=0.8,
        keep="first",
    )
    store = MinHashStore(tmp_path, config, 2, 1)
    for number in range(2):
        with store.writer(number) as writer:
            writer.add_text(content)
    store.bucket(0)
    for number in range(2):
        store.write_shingles(number, [content])
    gc.disable()
    try:
        store.verify(0)
        assert opened(tmp_path)
        del store
        assert not opened(tmp_path)
    finally:
        gc.enable()


def opened(folder: Path) -> list[str]:
    paths = [file.path for file in psutil.Process().open_files()]
    return [path for path in paths if Path(path).is_relative_to(folder)]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "in", ["x"])
    with pytest.raises(UserError, match="does not divide"):
        minhash_deduplication([path], 100, 33, 5, 0.8, tmp_path / "out")
    with pytest.raises(UserError, match="jaccard_threshold"):
        minhash_deduplication([path], 100, 10, 5, 1.8, tmp_path / "out")
    (other,) = write(tmp_path / "more", ["y"])
    with pytest.raises(UserError, match="one name"):
        exact_line_deduplication([path, other], tmp_path / "out")
    with pytest.raises(UserError, match="overwritten"):
        exact_line_deduplication([path], tmp_path / "in")
