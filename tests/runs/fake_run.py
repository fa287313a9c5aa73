"""Run directories as the training loop leaves them, with invented numbers."""

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

NASTY = (
    "</script><script>alert(1)</script>\n</pre><img src=x onerror=alert(2)><!-- "
    "\x00\x1b[31m\r\x9b \u202e \U0001f600 \u2028 é &amp; {{ 7 * 7 }}"
)
CONFIG = {
    "name": "demo",
    "seed": 0,
    "lr": 0.002,
    "task": {"kind": "pretrain"},
    "tokenizer": {
        "kind": "bpe",
        "vocab_size": 4096,
        "pattern": "gpt2",
        "special_tokens": ["<|endoftext|>"],
    },
    "data": {"kind": "stdlib", "cache_dir": "data", "validation_fraction": 0.01},
    "model": {
        "vocab_size": None,
        "context_length": 128,
        "d_model": 128,
        "num_layers": 4,
        "norm": "rms",
        "norm_placement": "pre",
        "tie_embeddings": False,
        "attention": {"kind": "gqa", "num_heads": 4, "num_kv_heads": None, "backend": "sdpa"},
        "ffn": {"kind": "swiglu", "d_ff": None},
        "position": {"kind": "rope", "theta": 10000.0},
    },
    "optimizer": {
        "kind": "adamw",
        "lr": 0.002,
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.1,
    },
    "schedule": {"kind": "cosine", "warmup_fraction": 0.05, "min_lr_ratio": 0.1},
    "budget": {"kind": "steps", "steps": 1200},
    "trainer": {"batch_size": 16, "micro_batch_size": None, "eval_every": 100, "precision": "auto"},
    "logger": {"kind": "none"},
}
ENVIRONMENT = {
    "command": "python train.py",
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": False,
    "hostname": "laptop",
    "device": "cpu",
    "python": "3.11.9",
    "packages": {"torch": "2.11.0", "numpy": "2.3.1", "hydra-core": "1.3.8"},
}
SAMPLE = '''def _parse_header(self, line):
    """Return the header of the given line."""
    if not line.startswith("#"):
        raise ValueError("invalid header: %r" % line)
    for name, value in self._headers.items():
        if name.lower() == key:
            return value
    return None
'''


Row = dict[str, Any]


def metrics(steps: int = 1200, log_every: int = 5, eval_every: int = 100) -> list[Row]:
    """Rows of a run that learns, for training and for validation."""
    rng, rows = random.Random(0), []

    def loss(step: int) -> float:
        return 3.05 + 5.27 * (1 + step / 18) ** -0.62

    for step in range(steps + 1):
        place = {
            "step": step,
            "tokens": step * 2048,
            "seconds": round(step * 0.148 + step // 100, 3),
        }
        if step and step % log_every == 0:
            rows.append(
                place
                | {
                    "train/loss": loss(step) + rng.gauss(0, 0.09),
                    "lr": 0.002 * min(step / 60, 0.55 + 0.45 * math.cos(math.pi * step / steps)),
                    "grad_norm": 0.4 + 2 * math.exp(-step / 50) + abs(rng.gauss(0, 0.08)),
                    "tokens_per_second": 13800 + rng.gauss(0, 300),
                    "mfu": None,
                }
            )
        if step % eval_every == 0:
            value = loss(step) + 0.06
            rows.append(place | {"val/loss": value, "val/bits_per_byte": value * 0.4193})
    return rows


def write_run(
    directory: Path, rows: list[Row] | None = None, status: str | None = "finished"
) -> Path:
    """Write a whole run directory; with `status=None` one without a result."""
    rows = metrics() if rows is None else rows
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (directory / "environment.json").write_text(json.dumps(ENVIRONMENT))
    texts = {0: NASTY, 500: "import os\n\n\ndef self.the(return\n" * 3, 1200: SAMPLE}
    (directory / "samples.txt").write_text(
        "".join(f"=== step {step} ===\n{text}\n\n" for step, text in texts.items()),
        encoding="utf-8",
    )
    if status:
        validation = [row for row in rows if "val/loss" in row] or [{}]
        last = validation[-1]
        result = {
            "status": status,
            "val_loss": last.get("val/loss"),
            "val_bits_per_byte": last.get("val/bits_per_byte"),
            "steps": rows[-1]["step"] if rows else 0,
            "tokens": rows[-1]["tokens"] if rows else 0,
            "seconds": 189.6,
            "tokens_per_second": 13794.2,
            "parameters": 2_135_168,
            "flops": 3.15e13,
            "xz_bits_per_byte": 1.62,
            "config_fingerprint": "9f2c1e",
        }
        (directory / "result.json").write_text(json.dumps(result))
    return directory
