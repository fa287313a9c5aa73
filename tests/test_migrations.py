"""Configurations that earlier versions stored are read, and their checkpoints recognised."""

from pathlib import Path

import pytest
import yaml

from lmlab.config import load, load_yaml, stored_fingerprints
from lmlab.migrations import MIGRATIONS, SCHEMA_VERSION, migrated
from lmlab.training.state import TrainState

STORED = sorted((Path(__file__).parent / "stored").glob("config_v*.yaml"))
FINGERPRINTS = {"config_v0": "fc28e6fe0d527fe6", "config_v1": "807ac4c13bfc5e67"}
FINGERPRINTS |= {"config_v2": "4b0fd516f439b679"}
"""What the version that stored a configuration put into its checkpoints."""


def test_there_is_a_stored_file_of_every_earlier_version() -> None:
    assert [path.stem for path in STORED] == [f"config_v{i}" for i in range(SCHEMA_VERSION)]
    assert len(MIGRATIONS) == SCHEMA_VERSION


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_configurations_are_read(path: Path, tmp_path: Path) -> None:
    config = load_yaml(path)
    assert FINGERPRINTS[path.stem] in stored_fingerprints(path)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_yaml(tmp_path / "config.yaml") == config
    assert yaml.safe_load(config.to_yaml())["schema_version"] == SCHEMA_VERSION
    assert stored_fingerprints(tmp_path / "config.yaml") == {config.fingerprint()}


def test_the_state_in_a_checkpoint_of_version_0_1() -> None:
    state = TrainState.from_checkpoint(
        {
            "step": 6,
            "tokens": 768,
            "seconds": 1.0,
            "training_seconds": 0.5,
            "best_val_loss": 4.0,
            "val_loss": 4.5,
            "val_bits_per_byte": 6.0,
            "best_train_loss": 4.25,
            "rows_above": 1,
            "pending": None,
        }
    )
    assert (state.step, state.best, state.lowest) == (6, 4.0, 4.25)
    assert state.evaluation == {"val/loss": 4.5, "val/bits_per_byte": 6.0}


def test_the_reference_attention_had_another_name() -> None:
    values = yaml.safe_load(STORED[0].read_text())
    values["model"]["attention"]["backend"] = "written_out"
    assert load(migrated(values)).model.attention.backend == "eager"  # type: ignore[union-attr]
    local = values["model"]["attention"]
    values["model"]["attention"] = {
        "kind": "hybrid",
        "pattern": ["local"],
        "members": {"local": local},
    }
    local["backend"] = "written_out"
    attention = migrated(values)["model"]["attention"]
    assert attention["members"]["local"]["backend"] == "eager"
