"""Hardware sheets: complete, sourced, and mistakes in them are one line."""

from pathlib import Path

import pytest
import yaml

from lmlab.cli import main
from lmlab.errors import UserError
from lmlab.gpu.names import SHEETS, sheet_names
from lmlab.gpu.sheets import Sheet, bf16_peak, find_sheet, load_sheet, read_sheet

NO_FIGURES = {"name", "device_name", "sources"}


@pytest.mark.parametrize("name", sheet_names())
def test_every_figure_has_a_source(name: str) -> None:
    sheet = load_sheet(name)
    sourced = {field for fields in sheet.sources for field in fields.split()}
    figures = {field for field, value in sheet if value is not None}
    assert sourced == figures - NO_FIGURES
    assert Sheet.model_fields.keys() - figures <= {"network", "devices_per_node"}


def test_the_sheets_of_the_course_are_there() -> None:
    assert sheet_names() == ["A100", "B200", "H100", "H200", "RTX_4090"]
    assert load_sheet("a100").sms == 108
    assert load_sheet("RTX 4090").max_blocks_per_sm == 24
    assert load_sheet("H100").warps_per_sm == 64


def test_a_device_is_found_by_its_name() -> None:
    found = {name: find_sheet(name) for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe")}
    assert found["NVIDIA H100 80GB HBM3"] == load_sheet("H100")
    assert found["NVIDIA H100 PCIe"] is None  # slower than the sheet says
    assert find_sheet("NVIDIA GeForce RTX 4090") == load_sheet("RTX_4090")
    assert bf16_peak("NVIDIA H200") == bf16_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert bf16_peak("NVIDIA H100 PCIe") == 756e12
    assert bf16_peak("Tesla T4") is None


def own(path: Path, **changes: object) -> Path:
    """Write a sheet like H100's with some fields changed; None: left out."""
    values = yaml.safe_load((SHEETS / "H100.yaml").read_text())
    values = {key: value for key, value in (values | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_sheet_of_ones_own_needs_no_sources(tmp_path: Path) -> None:
    path = own(tmp_path / "mine.yaml", sms=4, sources=None)
    assert load_sheet(str(path)).sms == 4


def test_rates_may_be_whole_numbers_and_text(tmp_path: Path) -> None:
    """YAML 1.1 reads 3e12 as text."""
    path = own(tmp_path / "mine.yaml", bandwidth=3 * 10**12, link="3e12")
    sheet = read_sheet(path)
    assert (sheet.bandwidth, sheet.link) == (3e12, 3e12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sms": None, "l2": None}, "missing sms, l2"),
        ({"sms": 0}, "sms: input should be greater than or equal to 1, got 0"),
        ({"sms": "many"}, "sms: .* got 'many'"),
        ({"sms": True}, "sms: .*valid integer, got True"),
        ({"sms": "132"}, "sms: .*valid integer, got '132'"),
        ({"max_threads_per_sm": 16}, "max_threads_per_block 1024 is more than max_threads_per_sm"),
        ({"warp_size": 2048}, "warp_size 2048 is more than max_threads_per_block 1024"),
        ({"sector": 10**12}, "sector: .*less than or equal to 65536"),
        ({"shared_memory_per_block": 233000}, "234024, is more than shared_memory_per_sm 233472"),
        ({"smss": 3}, "unknown field smss, did you mean sms"),
        ({"flops": {"bf17": 1.0}}, "flops.bf17: "),
        ({"flops": {}}, "flops: "),
        ({"flops": {"bf16": True}}, "flops.bf16: input should be a valid number, got True"),
        ({"bandwidth": True}, "bandwidth: input should be a valid number, got True"),
        ({"link": False}, "link: input should be a valid number, got False"),
        ({"compute_capability": 9.0}, "compute_capability: .*string"),
        ({"bandwidth": -1.0, "sms": None}, "missing sms; bandwidth: "),
    ],
)
def test_a_wrong_field_is_one_line(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = own(tmp_path / "mine.yaml", **changes)
    with pytest.raises(UserError, match=message) as error:
        read_sheet(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_small_sheet_is_drawn(tmp_path: Path) -> None:
    path = own(tmp_path / "mine.yaml", shared_memory_per_block=100, shared_memory_unit=1)
    line = ["gpu", "occupancy", "--gpu", str(path), "--plot", str(tmp_path / "o.png")]
    assert main([*line, "--shared-memory", "50"]) == 0


def test_a_sheet_that_leads_to_itself_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert main(["gpu", "waves", "--gpu", str(loop)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "is not YAML in line"), (b"- 1", "expected fields"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_file_that_is_no_sheet_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_sheet(path)


@pytest.mark.parametrize("name", ["H10", "nothing.yaml"])
def test_an_unknown_gpu_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "occupancy", "--gpu", name]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lmlab: ")
    assert error.count("\n") == 1
    assert "did you mean 'H100'" in error or "No such file" in error
