"""What a cleaning run wrote is a corpus to train on."""

from pathlib import Path

import pytest
from corpus import config, documents, write_corpus

from lmlab.cleaning.run import clean
from lmlab.data import prepare
from lmlab.data.config import CleanedConfig
from lmlab.errors import ConfigError
from tests_support import composed


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_prepared_data_hold_the_kept_documents(tmp_path: Path, format: str) -> None:
    pytest.importorskip("pyarrow")
    output = tmp_path / "cleaned"
    clean(config(write_corpus(tmp_path / "in"), output, f"format={format}"), progress=False)
    run = composed(
        "data=cleaned",
        f"data.path='{output}'",
        f"data.cache_dir='{tmp_path / 'cache'}'",
        "data.validation_fraction=0.2",
        "tokenizer=byte",
    )
    prepared = prepare(run.data, run.tokenizer, progress=False)
    found = [*prepared.train, *prepared.val]
    text = prepared.tokenizer.decode(found)
    kept = documents(output)
    assert sorted(text.split("<|endoftext|>")[:-1]) == sorted(document.text for document in kept)
    assert len(prepared.val) > 0


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    def data() -> CleanedConfig:
        return CleanedConfig(
            kind="cleaned", path=str(tmp_path), cache_dir=str(tmp_path), validation_fraction=0.1
        )

    byte = composed("tokenizer=byte").tokenizer
    with pytest.raises(ConfigError, match="not the output of"):
        prepare(data(), byte, progress=False)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(ConfigError, match="has not finished"):
        prepare(data(), byte, progress=False)
