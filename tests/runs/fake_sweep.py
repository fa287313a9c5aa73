"""Made-up sweeps, for tests of tables and pages."""

import json
import random
from pathlib import Path
from typing import Any

import yaml


def write_sweep_run(
    folder: Path,
    config: dict[str, Any],
    loss: float | None,
    *,
    steps: int = 100,
    finished: bool = True,
) -> Path:
    """Write one run that ends with `loss`, or diverged for None, or is not finished."""
    seed = config["seed"]
    name = "_".join(
        f"{key}-{value}" for key, value in config.items() if not isinstance(value, dict)
    )
    directory = folder / f"{name}_{abs(hash(json.dumps(config))) % 10**6}"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump({"name": "fake", **config}))
    noise = random.Random(seed)
    rows = []
    last = steps if loss is not None else steps // 3
    end = loss if loss is not None else 60.0
    for step in range(0, last + 1, 5):
        value = end + (8.0 - end) * (1 - step / last) ** 3 + noise.gauss(0, 0.02)
        row = {"step": step, "tokens": step * 128, "seconds": step * 0.5 + seed}
        row |= {"train/loss": value + 0.01, "lr": 0.1, "tokens_per_second": 250.0}
        if step % 10 == 0 or step == last:
            row |= {"val/loss": value, "val/bits_per_byte": value * 0.4}
        rows.append(row)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        result = {
            "status": "diverged" if loss is None else "finished",
            "val_loss": loss,
            "val_bits_per_byte": None if loss is None else loss * 0.4,
            "best_val_loss": loss,
            "steps": last,
            "tokens": last * 128,
            "seconds": last * 0.5,
            "tokens_per_second": 256.0,
            "parameters": 1000,
            "flops": 1e9,
        }
        (directory / "result.json").write_text(json.dumps(result))
    return directory


def lr_sweep(folder: Path, seeds: int = 3) -> Path:
    """Write a sweep of learning rates in which 0.01 is best, by more than noise, and 1 diverges."""
    curve = {0.0003: 4.6, 0.001: 4.1, 0.003: 3.75, 0.01: 3.55, 0.03: 3.7, 0.1: 4.4, 1.0: None}
    for lr, loss in curve.items():
        for seed in range(seeds):
            offset = (-0.01, 0.0, 0.012)[seed % 3]
            end = None if loss is None else loss + offset
            config = {"lr": lr, "seed": seed, "optimizer": {"kind": "adamw", "lr": lr}}
            write_sweep_run(folder, config, end)
    return folder


def grid_sweep(folder: Path) -> Path:
    """Write two axes, one of names and one of numbers, with an unfinished and a diverged run."""
    for kind, offset in (("glu", 0.0), ("mlp", 0.2), ("<b>moe</b>", 0.005)):
        for batch_size in (4, 16, 64):
            for seed in range(2):
                loss = 3.5 + offset + 0.05 * abs(batch_size - 16) / 16 + 0.03 * seed
                config = {
                    "seed": seed,
                    "model": {"ffn": {"kind": kind, "activation": "silu"}},
                    "trainer": {"batch_size": batch_size},
                }
                unfinished = kind == "mlp" and batch_size == 64 and seed == 1
                diverged = kind == "glu" and batch_size == 4 and seed == 0
                write_sweep_run(folder, config, None if diverged else loss, finished=not unfinished)
    return folder
