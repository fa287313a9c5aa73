"""Roofline, waves, coalescing, tiling and alignment, by hand and by brute force."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.accounting.count import count_parameters, flops_by_part
from lmlab.cli import main
from lmlab.errors import UserError
from lmlab.gpu.alignment import alignment
from lmlab.gpu.cli import PATTERNS
from lmlab.gpu.coalescing import WIDTHS, access
from lmlab.gpu.roofline import Work, matmul, predict, ridge
from lmlab.gpu.roofline_cli import shape_of
from lmlab.gpu.sheets import load_sheet
from lmlab.gpu.tiling import tiling
from lmlab.gpu.transformer import operations
from lmlab.gpu.waves import waves
from lmlab.model import build
from tests_support import composed

A100, H100 = load_sheet("A100"), load_sheet("H100")
SIZE = st.integers(1, 5000)


def test_the_roof_has_its_ridge() -> None:
    assert ridge(H100, "bf16") == pytest.approx(989e12 / 3.35e12)
    below = predict(Work("slow", 100.0, 1.0, "bf16"), H100)
    above = predict(Work("fast", 1000.0, 1.0, "bf16"), H100)
    assert (below.bound, above.bound) == ("memory", "compute")
    assert below.seconds == pytest.approx(1 / 3.35e12)
    assert below.attainable == pytest.approx(100 * 3.35e12)
    assert above.attainable == pytest.approx(989e12)


def test_a_product_reads_and_writes_each_element_once() -> None:
    work = matmul(2, 3, 5, "bf16")
    assert (work.flops, work.bytes) == (60, 2 * (10 + 15 + 6))
    assert predict(matmul(4096, 4096, 4096, "bf16"), H100).bound == "compute"
    assert predict(matmul(1, 4096, 4096, "bf16"), H100).bound == "memory"


@pytest.mark.parametrize("work", [Work("kernel", 0, 0, "bf16"), Work("kernel", -1, 5, "bf16")])
def test_a_kernel_that_does_nothing_is_refused(work: Work) -> None:
    with pytest.raises(UserError, match=r"from 1 to 1e\+30"):
        predict(work, H100)


def test_a_precision_that_the_gpu_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"A100.* has no peak for fp8; .* fp32, tf32, fp16, bf16"):
        predict(matmul(8, 8, 8, "fp8"), A100)


@pytest.mark.parametrize(
    "choices",
    [
        ["model=small"],
        ["model=xl", "model.attention.num_kv_heads=5"],
        ["model=small", "model/ffn=mlp"],
        ["model=small", "model.tie_embeddings=true", "model/position=learned"],
        ["model=small", "model.block=parallel", "model.norm_placement=none"],
    ],
)
def test_the_shape_counts_what_the_model_has(choices: list[str]) -> None:
    """FLOPs and parameters equal those of the built model exactly."""
    config = composed(*choices).model
    model = build(config, 50257, device="meta")
    shape = shape_of(config)
    assert shape.parameters == count_parameters(model)
    counted = flops_by_part(model, config.context_length)
    assert shape.forward_flops(3, config.context_length) == 3 * sum(counted.values())


def test_operations_of_a_forward_pass_add_up_to_its_flops() -> None:
    """Matrix products of prefill are those of the model; attention has half of the scores."""
    config = composed("model=small").model
    shape, tokens = shape_of(config), config.context_length
    counted = flops_by_part(build(config, 50257, device="meta"), tokens)
    works = {w.name: w for w in operations(shape, "prefill", 2, tokens, "bf16")}
    assert works["attention"].flops == pytest.approx(counted["scores"] * (tokens + 1) / tokens)
    projections = works["Q, K, V projections"].flops + works["attention output"].flops
    assert projections == 2 * counted["projections"]
    ffn = works["feed-forward up and gate"].flops + works["feed-forward down"].flops
    assert ffn == 2 * counted["ffn"]
    assert works["output head"].flops == 2 * counted["head"] / tokens  # of the last token
    step = {w.name: w for w in operations(shape, "training", 2, tokens, "bf16")}
    assert step["output head"].flops == 6 * counted["head"]
    assert step["AdamW"].bytes == 28 * shape.parameters
    model = build(config, 50257, device="meta")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    multiplied = matrices - shape.vocab_size * shape.d_model  # not the embedding's rows
    assert step["weights cast"].bytes == (4 + 2) * multiplied


def names(*choices: str) -> set[str]:
    works = operations(shape_of(composed(*choices).model), "training", 1, 64, "bf16")
    return {work.name for work in works}


def test_what_a_model_does_not_do_is_not_counted() -> None:
    assert {"norms", "rotations"} <= names()
    assert "rotations" not in names("model/position=none")
    assert "norms" not in names("model.norm_placement=none")
    norms = {
        (block, placement): next(
            work.flops
            for work in operations(
                shape_of(
                    composed(f"model.block={block}", f"model.norm_placement={placement}").model
                ),
                "prefill", 1, 64, "bf16",
            )
            if work.name == "norms"
        )
        for block in ("serial", "parallel")
        for placement in ("pre", "post", "double")
    }  # fmt: skip
    one = norms["parallel", "pre"]
    assert [flops / one for flops in norms.values()] == [2, 2, 4, 1, 1, 2]
    step = [{w.name for w in operations(shape_of(composed().model), "training", 1, 64, p)}
            for p in ("bf16", "tf32", "fp32")]  # fmt: skip
    assert ["weights cast" in each for each in step] == [True, False, False]


def test_a_window_counts_the_token_itself() -> None:
    for window, seen in ((1, 1), (64, 64), (65, 65), (66, 65)):
        choices = ("model/attention=sliding_window", f"model.attention.window={window}")
        model = composed(*choices).model
        (decoded,) = (
            w for w in operations(shape_of(model), "decode", 1, 64, "bf16") if w.name == "attention"
        )
        width = model.num_heads * model.attention_width
        assert decoded.flops == model.num_layers * 4 * width * seen


def test_decoding_is_bound_by_the_memory() -> None:
    shape = shape_of(composed("model=small").model)
    works = operations(shape, "decode", 1, 1024, "bf16")
    assert {predict(work, H100).bound for work in works} == {"memory"}
    layers_and_head = shape.parameters - shape.vocab_size * shape.d_model
    moved = sum(work.bytes for work in works)
    cache = 2 * 12 * 768 * 1025 * 2
    assert moved == pytest.approx(2 * layers_and_head + cache, rel=0.01)


def test_a_window_limits_attention() -> None:
    whole = shape_of(composed("model=small").model)
    windowed = shape_of(composed("model=small", "model/attention=sliding_window").model)
    assert windowed.window is not None
    by_hand = sum(min(i + 1, windowed.window) for i in range(1024))
    flops = [operations(s, "prefill", 1, 1024, "bf16")[2].flops for s in (whole, windowed)]
    assert flops == [4 * 12 * 768 * 1024 * 1025 / 2, 4 * 12 * 768 * by_hand]


def test_one_more_row_costs_a_wave() -> None:
    """The course's figures: 98 tiles fit on 108 SMs at once, 120 do not."""
    before, after = waves(A100, 1792, 1792), waves(A100, 1793, 1793)
    assert (before.tiles, before.waves) == (98, 1)
    assert (after.tiles, after.waves, after.last) == (120, 2, 12)
    assert before.busy == pytest.approx(98 / 108)
    assert after.busy == pytest.approx(120 / 216)
    assert waves(A100, 1793, 1793, blocks_per_sm=2).waves == 1


@given(SIZE, SIZE, st.integers(1, 300), st.integers(1, 300), st.integers(1, 4))
def test_waves_are_what_dealing_out_the_tiles_gives(
    m: int, n: int, rows: int, columns: int, per_sm: int
) -> None:
    found = waves(A100, m, n, (rows, columns), per_sm)
    tiles = len(range(0, m, rows)) * len(range(0, n, columns))
    in_waves = [min(found.at_once, tiles - at) for at in range(0, tiles, found.at_once)]
    assert (found.tiles, found.waves, found.last) == (tiles, len(in_waves), in_waves[-1])
    assert found.busy == pytest.approx(sum(in_waves) / (len(in_waves) * found.at_once))


@pytest.mark.parametrize(
    ("stride", "offset", "width", "sectors", "useful"),
    [
        (1, 0, 4, 4, 128),  # the ideal: four sectors
        (1, 4, 4, 5, 128),  # one more, because the row does not begin at a sector
        (2, 0, 4, 8, 128),
        (32, 0, 4, 32, 128),  # a column of a matrix
        (0, 0, 4, 1, 4),  # all threads read the same
        (-1, 124, 4, 4, 128),  # backwards is as good
        (1, 0, 16, 16, 512),
        (1, 0, 1, 1, 32),
    ],
)
def test_sectors_of_a_warp(stride: int, offset: int, width: int, sectors: int, useful: int) -> None:
    found = access(H100, stride, offset, width)
    assert (found.sectors, found.useful, found.transferred) == (sectors, useful, 32 * sectors)


@given(st.integers(0, 100), st.integers(0, 20), st.sampled_from(WIDTHS))
def test_a_transfer_is_never_less_than_what_is_asked_for(
    stride: int, elements: int, width: int
) -> None:
    found = access(H100, stride, elements * width, width)
    assert found.least_sectors <= found.sectors <= 32 * max(1, width // 32)
    assert 0 < found.efficiency <= 1


@pytest.mark.parametrize(("offset", "width"), [(0, 3), (0, 32), (2, 4), (-4, 4)])
def test_accesses_that_do_not_exist_are_refused(offset: int, width: int) -> None:
    with pytest.raises(UserError, match="got"):
        access(H100, 1, offset, width)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_traffic_of_tiles_is_what_the_blocks_load(m: int, n: int, k: int, tile: int) -> None:
    loads = 0
    for row in range(0, m, tile):
        for column in range(0, n, tile):
            loads += k * (min(tile, m - row) + min(tile, n - column))
    found = tiling(H100, (m, n, k), tile, "fp32")
    assert found.work.bytes == 4 * (loads + m * n)
    assert found.work.flops == 2 * m * n * k


def test_tiles_cut_the_reads_by_their_size() -> None:
    naive, tiled = (tiling(H100, (4096, 4096, 4096), tile) for tile in (1, 128))
    written = 2 * 4096**2
    assert (naive.work.bytes - written) / (tiled.work.bytes - written) == 128
    assert tiled.shared_memory == 2 * (128 * 32 + 32 * 128) * 2
    assert tiled.fits
    assert not tiling(H100, (4096, 4096, 4096), 256, "fp32", stages=8).fits


def test_padding_of_the_vocabulary() -> None:
    found = alignment(H100, 50257)
    assert (found.power, found.padded[64], found.padded[128]) == (1, 50304, 50304)
    assert not found.tensor_cores
    padded = alignment(H100, 50304)
    assert (padded.power, padded.sectors, padded.tensor_cores) == (128, 4, True)
    assert padded.padded[64] == 50304


@given(st.integers(1, 300))
def test_sectors_of_rows_by_brute_force(size: int) -> None:
    counts = []
    for row in range(64):
        touched = {(row * size * 2 + byte) // 32 for byte in range(128)}
        counts.append(len(touched))
    assert alignment(H100, size).sectors == pytest.approx(sum(counts) / len(counts))


TOOLS = {
    "occupancy": "4 blocks an SM, 32 of 64 warps: occupancy 50.0%, limited by registers",
    "roofline": "MFU at most",
    "roofline --matmul 64 64 64": "(64, 64) x (64, 64)",
    "roofline --kernel 1e9 1e6": "1,000.00",
    "roofline model=xl --phase decode --batch 1": "tokens/s at most",
    "waves": "1793 x 1793    120      2           12     55.6%",
    "coalescing": "8            0           4       32      4         1024   12.5%",
    "tiling": "tiles of 128       2.181   126.0x",
    "alignment": "50257    1  50264   50272   50304    50304",
}


@pytest.mark.parametrize("command", TOOLS)
def test_every_tool_prints_and_draws(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    assert main(["gpu", *command.split(), "--plot", str(plot)]) == 0
    assert TOOLS[command] in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("roofline model=small --matmul 1 2 3", "not two of them"),
        ("roofline model/attention=linear", "not model/attention=linear"),
        ("roofline model/ffn=moe", "not model/ffn=moe"),
        ("roofline --matmul 0 2 3", "sizes of 1 or more, got 0"),
        ("roofline --batch 0", "1 or more, got 0"),
        ("roofline --measure", "give --matmul"),
        ("tiling 5 6", "three sizes"),
        ("roofline --tokens 0", "1 or more, got 8 and 0"),
        ("roofline --phase decode --batch 2 --tokens 0", "1 or more, got 2 and 0"),
        ("roofline --kernel -1e9 1e9", "from 1 to 1e+30, got -1e+09 and 1e+09"),
        ("roofline --kernel 1 -inf", "from 1 to 1e+30, got 1 and -inf"),
        ("roofline --batch -1e9", "argument --batch: invalid int value: '-1e9'"),
        ("roofline --kernel nan 1", "from 1 to 1e+30, got nan and 1"),
        ("roofline --kernel 1 inf", "from 1 to 1e+30, got 1 and inf"),
        ("roofline --kernel 1e-320 1e-320", "from 1 to 1e+30"),
        ("roofline --kernel 0 5 --plot kernel.png", "has no place in a picture"),
        (f"roofline --matmul 1{'0' * 130} 1 1", "sizes up to 1000000000"),
        ("roofline --kernel 5 5 --tokens 8", "--tokens is for a model"),
        ("roofline --matmul 5 5 5 --phase decode", "--phase is for a model"),
        ("roofline trainer.batch_size=2", "model keys alone; give --batch"),
        ("roofline model=small optimizer=muon", "'optimizer=muon': the roofline depends on model"),
        ("roofline --kernel 1e30 1e-300", "from 1 to 1e+30"),
        (f"roofline --tokens 1{'0' * 400}", "go up to 1000000000"),
        (f"tiling 1{'0' * 400} 1 1", "go up to 1000000000"),
        ("roofline experiment=tinystories", "model keys alone"),
        ("roofline model.attention.backend=eager", "counts fused attention"),
        ("coalescing --offset 8", "give --stride N with it"),
        ("alignment 33 --precision fp4 --gpu B200", "33 fp4 elements is no number of bytes"),
        ("alignment 32 --precision fp4", "no peak for fp4"),
        ("alignment 1 2 --plot a.png", "give one"),
        ("waves 5 --plot waves.pdf", "the name must end in .png, got 'waves.pdf'"),
        ("waves 10000000000", "sizes go up to"),
        ("waves 0", "1 or more, got a result of 0 x 0"),
        ("alignment 0", "1 or more"),
        ("occupancy --threads x", "invalid int"),
    ],
)
def test_mistakes_are_one_line(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpu", *command.split()]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_patterns_fit_every_width(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "coalescing", "--width", str(width)]) == 0
    assert capsys.readouterr().out.count("\n") == 2 + len(PATTERNS)


def test_a_block_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    line = "gpu occupancy --threads 1025 --registers 16 --shared-memory"
    assert main([*line.split(), "0"]) == 0
    assert "cannot start: a block has up to 1,024 threads" in capsys.readouterr().out
    assert main([*line.split(), "999999"]) == 0
    both = "a block needs more shared memory than there is and has up to 1,024 threads"
    assert both in capsys.readouterr().out


def test_rows_of_half_bytes_are_drawn(tmp_path: Path) -> None:
    line = "gpu alignment 64 --precision fp4 --gpu B200 --plot"
    assert main([*line.split(), str(tmp_path / "a.png")]) == 0


def test_the_calculators_need_no_torch_and_the_command_line_no_pydantic() -> None:
    code = (
        "import sys; import lmlab.cli; assert 'pydantic' not in sys.modules; "
        "main = lmlab.cli.main; main(['gpu', 'waves']); main(['gpu', 'roofline']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
