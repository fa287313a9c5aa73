"""DPO and IPO from rows to gradients against TRL's trainer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmlab.alignment.batches import PreferencePairs
from lmlab.alignment.config import PreferenceLossKind
from lmlab.alignment.examples import Converter
from lmlab.alignment.objectives import PreferenceObjective
from lmlab.alignment.rows import Row
from lmlab.alignment.sequences import tokenized
from lmlab.alignment.templates import PLAIN, Template
from lmlab.tokenizer import byte_tokenizer

ROWS = [
    {"prompt": "1+1=", "chosen": "2", "rejected": "thirty"},
    {"prompt": "what is it, then?", "chosen": " a longer answer", "rejected": " no"},
    {"prompt": "x", "chosen": "yy", "rejected": "zz"},
]


class Adapter(nn.Module):
    """A model of transformers as an objective needs it."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model, self.lm_head = model, model.lm_head

    def hidden(self, ids: Tensor, *, counted: Tensor) -> Tensor:
        return self.model.model(ids).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    def auxiliary_losses(self) -> dict[str, Tensor]:
        return {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_loss_and_gradient_equal_those_of_trl(
    kind: PreferenceLossKind, theirs: str, tmp_path: Path
) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    tokenizer = byte_tokenizer(["<|endoftext|>"])
    tokenizer.to_huggingface(tmp_path / "tokenizer.json")
    end = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    processing = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **end)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=257, intermediate_size=64, **shape))
    reference = copy.deepcopy(policy)
    with torch.no_grad():  # another model than the reference, so that the loss is not log 2
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))

    converter = Converter(Template(PLAIN))
    pairs = [converter.pair(Row(values, "a")) for values in ROWS]
    sequences = [(tokenized(p.chosen, tokenizer), tokenized(p.rejected, tokenizer)) for p in pairs]

    def objective(model: LlamaForCausalLM) -> PreferenceObjective:
        return PreferenceObjective(Adapter(model), kind, 0.3, chunk_tokens=5)  # type: ignore[arg-type]

    asked = PreferencePairs(sequences, 64, None)([0, 1, 2])
    known = objective(reference)(*asked)[1]["log_probs"]
    own = objective(policy)
    batch = PreferencePairs(sequences, 64, known)([0, 1, 2])
    loss = own(*batch)[0] / own.weight(*batch)
    gradients = torch.autograd.grad(loss, list(policy.parameters()))

    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "trl"), report_to=[], use_cpu=True, bf16=False, beta=0.3,
            loss_type=[theirs], per_device_train_batch_size=3, gradient_checkpointing=False,
        ),
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=processing,
    )  # fmt: skip
    inputs = trainer.data_collator(list(trainer.train_dataset))
    policy.train()
    their_loss = trainer.compute_loss(policy, inputs)
    torch.testing.assert_close(loss, their_loss, atol=1e-6, rtol=1e-5)
    their_gradients = torch.autograd.grad(their_loss, list(policy.parameters()))
    torch.testing.assert_close(gradients, their_gradients, atol=1e-6, rtol=1e-4)
