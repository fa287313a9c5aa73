"""Near-duplicates among whole files."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lmlab.cleaning.exact_lines import check_apart
from lmlab.cleaning.minhash import MinHashStore
from lmlab.cleaning.partitions import count_partitions
from lmlab.cleaning.pipeline_config import MinHashConfig
from lmlab.errors import UserError
from lmlab.files import atomic_write


def minhash_deduplication(
    paths: Sequence[Path | str],
    num_hashes: int,
    num_bands: int,
    ngrams: int,
    jaccard_threshold: float,
    out_dir: Path | str,
) -> None:
    """Copy the text files into `out_dir`, of near-duplicates only the first of `paths`.

    Two files are near-duplicates when a band of their MinHash signatures is equal and the Jaccard
    similarity of their sets of `ngrams` words (normalised as `hashing.normalize` does) is at least
    `jaccard_threshold`; of files that this connects, one is copied, as it is. A file without words
    has no duplicates. Raises UserError when num_bands does not divide num_hashes, a number is out
    of range, or two files have one name.
    """
    files, target = [Path(path) for path in paths], Path(out_dir)
    check_apart(files, target)
    try:
        config = MinHashConfig(
            kind="minhash",
            num_hashes=num_hashes,
            num_bands=num_bands,
            ngrams=ngrams,
            jaccard_threshold=jaccard_threshold,
            keep="first",
        )
    except ValidationError as error:
        details = error.errors()[0]
        raise UserError(" ".join([*map(str, details["loc"]), details["msg"]])) from None
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".minhash.", dir=target))
    try:
        # Each file is one text of a single list.
        partitions = count_partitions(path.stat().st_size for path in files)
        store = MinHashStore(work, config, 1, partitions)
        with store.writer(0) as writer:
            for path in files:
                writer.add_text(_text(path))
        for partition in range(partitions):
            store.bucket(partition)
        store.write_shingles(0, map(_text, files))
        for partition in range(partitions):
            store.verify(partition)
        store.cluster()
        members = store.members(0)
        duplicates = set(members["row"][~members["survives"]].tolist())
        for row, path in enumerate(files):
            if row not in duplicates:
                with path.open("rb") as source, atomic_write(target / path.name, "wb") as file:
                    shutil.copyfileobj(source, file)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")
