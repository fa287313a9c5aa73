"""`lmlab gpu roofline`: the least time of a kernel, or of the operations of a configured model."""

import argparse
from typing import TYPE_CHECKING, Any

from lmlab.accounting.vocabulary import GPT2_VOCABULARY
from lmlab.errors import UserError

if TYPE_CHECKING:
    from lmlab.gpu.sheets import Sheet
    from lmlab.gpu.transformer import Phase, Shape
    from lmlab.model.config import ModelConfig

DEFAULT_MODEL = "model=small"
INSTEAD = {"trainer.batch_size": "--batch", "trainer.precision": "--precision"}
"""Options for keys that the roofline does not read."""


def add_roofline_options(tool: argparse.ArgumentParser) -> None:
    """Add what is asked for: a model and its phase, a product or a kernel."""
    tool.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"the model, as for train.py ({DEFAULT_MODEL})",
    )
    tool.add_argument("--phase", choices=("training", "prefill", "decode"), help="(training)")
    tool.add_argument("--batch", type=int, metavar="N", help="sequences (8)")
    tool.add_argument(
        "--tokens", type=int, metavar="N", help="of a sequence (default: model.context_length)"
    )
    tool.add_argument(
        "--matmul", type=int, nargs=3, metavar=("M", "N", "K"), help="one matrix product instead"
    )
    tool.add_argument(
        "--kernel", type=float, nargs=2, metavar=("FLOPS", "BYTES"), help="one kernel instead"
    )


def roofline(options: argparse.Namespace, sheet: "Sheet") -> None:
    """Print the least time of a kernel or of each operation of a model, and draw it."""
    from lmlab.gpu import plots
    from lmlab.gpu.roofline import Work, matmul, predict
    from lmlab.gpu.tables import roofline_table

    precision = options.precision
    kinds = [options.overrides, options.matmul, options.kernel]
    if sum(bool(kind) for kind in kinds) > 1:
        raise UserError("give a model, --matmul or --kernel, not two of them")
    if options.matmul or options.kernel:
        for name in ("phase", "batch", "tokens"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for a model; leave it out with --matmul and --kernel")
    measured: list[float] = []
    end: list[str] = []
    if options.matmul:
        m, n, k = options.matmul
        works = [matmul(m, n, k, precision)]
        if options.measure:
            from lmlab.profiling.measure import matmul_seconds, measured_on

            measured, end = [matmul_seconds(m, n, k, precision)], [measured_on(sheet)]
    elif options.measure:
        raise UserError("--measure measures one matrix product; give --matmul M N K")
    elif options.kernel:
        flops, size = options.kernel
        works = [Work("kernel", flops, size, precision)]
    else:
        works, end = _model(options, sheet)
    predictions = [predict(work, sheet) for work in works]
    if options.plot and not any(work.flops and work.bytes for work in works):
        raise UserError("a kernel without FLOPs or without bytes has no place in a picture")
    print("\n".join([*roofline_table(predictions, sheet, precision, measured), *end]))
    if options.plot:
        of_model = f"{' '.join(options.overrides) or DEFAULT_MODEL}, {options.phase or 'training'}"
        what = works[0].name if len(works) == 1 else of_model
        plots.plot_roofline(predictions, sheet, precision, what, options.plot)


def _model(options: argparse.Namespace, sheet: "Sheet") -> tuple[list[Any], list[str]]:
    """Return the operations of the composed model, and what follows from their time."""
    from lmlab.gpu.roofline import total_seconds
    from lmlab.gpu.transformer import operations
    from lmlab.hydra_app import compose

    for override in options.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition("@")[0].partition("/")[0].partition(".")[0] != "model":
            advice = f"; give {INSTEAD[key]}" if key in INSTEAD else ""
            raise UserError(f"'{override}': the roofline depends on model keys alone{advice}")
    model = compose(*(options.overrides or [DEFAULT_MODEL])).model
    phase: Phase = options.phase or "training"
    batch = 8 if options.batch is None else options.batch
    tokens = model.context_length if options.tokens is None else options.tokens
    shape = shape_of(model)
    works = operations(shape, phase, batch, tokens, options.precision)
    seconds = total_seconds(works, sheet)
    made = batch * (1 if phase == "decode" else tokens)
    end = [f"{shape.parameters / 1e6:,.1f} M parameters, {made / seconds:,.0f} tokens/s at most"]
    if phase == "training":
        flops = 3 * shape.forward_flops(batch, tokens)
        mfu = flops / seconds / sheet.peak(options.precision)
        end[0] += f", MFU at most {mfu:.2f} (scores counted in full, causal or not)"
    return works, end


def shape_of(model: "ModelConfig") -> "Shape":
    """Return the shape of a configured model; raises UserError for what has no simple roofline."""
    from lmlab.gpu.transformer import Shape

    attention, ffn = model.attention, model.ffn
    if attention.kind not in ("full", "sliding_window") or ffn.kind == "moe":
        key = "model/ffn=moe" if ffn.kind == "moe" else f"model/attention={attention.kind}"
        raise UserError(
            f"the roofline knows full and sliding_window attention with glu or mlp, not {key}"
        )
    if attention.backend == "eager":
        raise UserError("the roofline counts fused attention, not model.attention.backend=eager")
    branches = 1 if model.block == "parallel" else 2
    norms = branches * {"pre": 1, "post": 1, "double": 2, "none": 0}[model.norm_placement]
    heads, kv_heads = model.num_heads, attention.num_kv_heads or model.num_heads
    biases = 0
    if attention.bias != "none":
        biases += (heads + 2 * kv_heads) * model.attention_width
    if attention.bias == "all":
        biases += model.d_model
    if ffn.kind == "mlp" and ffn.bias:
        biases += model.ffn_width + model.d_model
    return Shape(
        d_model=model.d_model,
        num_layers=model.num_layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=model.attention_width,
        d_ff=model.ffn_width,
        gated=ffn.kind == "glu",
        vocab_size=model.vocab_size or GPT2_VOCABULARY,
        window=attention.window if attention.kind == "sliding_window" else None,
        norms=0 if model.norm == "none" else norms,
        final_norm=model.norm != "none" and model.norm_placement in ("pre", "double"),
        norm_vectors=2 if model.norm == "layernorm" else 1,
        qk_norm=attention.qk_norm,
        biases=biases,
        rotated=model.position.kind == "rope",
        added_positions=model.position.kind in ("sinusoidal", "learned"),
        learned_positions=model.context_length if model.position.kind == "learned" else 0,
        scaled=model.scale_embeddings,
        capped=model.logit_softcap is not None,
        tied=model.tie_embeddings,
    )
