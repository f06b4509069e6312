"""A reward model of PEFT and transformers, from the pairs and by the settings of a run of Quipu.

Usage: peer_reward.py USED.cfg [--seed N] [--dtype fp32|bf16]

USED.cfg is that of a run with job.method = "reward" on SmolLM2-135M; its shards are read, and every
setting that both have. A sequence-classification head of one output, LoRA, loss
-log sigmoid(r_chosen - r_rejected), AdamW, a linear schedule to 0, clipped gradients, pairs with a
side above data.seq_length left out. Prints one line, by tabs: the share of held-out pairs that are
ranked right, their number, their loss, training tokens per second, seconds of the whole.

Two sequences a forward pass and the gradients of a step summed: the same mathematics as a step's
batch at once, with the least padding. "fp32" is the default; "bf16" has the frozen weights in bf16
under autocast, adapter, head and rewards in fp32 (rewards in bf16 would have ties).
"""

import argparse
import os
import re
import sys
import time

import h5py
import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, GgufConfig

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHOSEN, REJECTED = 0, 1


def read_deck(path):
    """{"group.key": value}; strings and lists of strings, numbers, true and false."""
    deck, group = {}, None
    with open(path) as file:
        for line in file:
            if match := re.match(r"(\w+) = \{", line):
                group = match[1]
            elif match := re.match(r"\s+(\w+) = (.*?);(\s+#|$)", line):
                text = match[2]
                texts = re.findall(r'"([^"]*)"', text)
                deck[f"{group}.{match[1]}"] = (
                    texts if text.startswith("[") else texts[0] if texts
                    else text == "true" if text in ("true", "false") else float(text))
    same = {"job.method": "reward", "optim.schedule": "linear", "optim.warmup_steps": 0,
            "reward.margin": False, "reward.center_rewards_coefficient": 0,
            "lora.use_rslora": False, "data.overlong": "auto"}
    other = {key: deck[key] for key, value in same.items() if deck[key] != value}
    assert not other and "lora.init" not in deck, f"{path}: not what this script does: {other}"
    return deck


def read_pairs(path, max_length):
    """[(chosen, rejected)] of tokens; a side that is too long takes its pair along."""
    with h5py.File(path) as file:
        assert file.attrs["kind"] == b"reward", file.attrs["kind"]
        tokens, offsets = file["tokens"][:], file["offsets"][:]
    sides = [torch.from_numpy(tokens[first:end].astype(np.int64))
             for first, end in zip(offsets[:-1], offsets[1:])]
    return [pair for pair in zip(sides[0::2], sides[1::2]) if max(map(len, pair)) <= max_length]


def unused_token(pairs):
    """Sequence classification looks for the last token that is not padding; EOS is no padding."""
    used = set(torch.cat([side for pair in pairs for side in pair]).tolist())
    return next(token for token in range(len(used) + 1) if token not in used)


class Head(torch.nn.Module):
    """A head whose weights and rewards are fp32 whatever autocast does."""

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.nn.Parameter(linear.weight.detach().float().clone())

    def forward(self, hidden):
        with torch.autocast("cpu", enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight)


def make_model(deck, pad, half):
    model = AutoModelForSequenceClassification.from_pretrained(
        os.environ["QUIPU_REAL"], gguf_file=FILE, num_labels=1, attn_implementation="sdpa",
        dtype=torch.bfloat16 if half else torch.float32,
        quantization_config=GgufConfig(dequantize=True))
    model.config.pad_token_id = pad
    if half:
        model.score = Head(model.score)
    model = get_peft_model(model, LoraConfig(
        r=int(deck["lora.r"]), lora_alpha=deck["lora.alpha"], lora_dropout=deck["lora.dropout"],
        target_modules=deck["lora.targets"], modules_to_save=["score"], task_type=TaskType.SEQ_CLS))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    score = [p for name, p in trainable.items() if "score" in name]
    assert len(score) == 1 and all(p.dtype is torch.float32 for p in trainable.values())
    with torch.no_grad():  # transformers' own way, whatever has become of it on the way here
        score[0].normal_(0.0, deck["reward.score_init_std"])
    return model, list(trainable.values())


def rewards(model, pairs, pad, half):
    """[n, 2]"""
    rows = [side for pair in pairs for side in pair]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(input_ids=ids, attention_mask=(ids != pad).long()).logits
    return logits.float().view(-1, 2)


def losses(reward):
    return -logsigmoid(reward[:, CHOSEN] - reward[:, REJECTED])


def train(model, parameters, pairs, pad, deck, half):
    """Tokens per second."""
    steps, batch = int(deck["optim.steps"]), int(deck["batch.global_sequences"])
    optimizer = torch.optim.AdamW(
        parameters, lr=deck["optim.lr"], betas=(deck["optim.beta1"], deck["optim.beta2"]),
        eps=deck["optim.eps"], weight_decay=deck["optim.weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    norm = deck["optim.max_grad_norm"] or torch.inf
    order = []
    while len(order) < steps * batch:
        order += torch.randperm(len(pairs)).tolist()
    model.train()
    n_token, start = 0, time.perf_counter()
    for step in range(steps):
        total = 0.0
        for i in order[step * batch:(step + 1) * batch]:
            loss = losses(rewards(model, [pairs[i]], pad, half))[0] / batch
            loss.backward()
            total += loss.item()
            n_token += sum(map(len, pairs[i]))
        torch.nn.utils.clip_grad_norm_(parameters, norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        print(f"step {step + 1}/{steps} loss {total:.4f}", file=sys.stderr, flush=True)
    return n_token / (time.perf_counter() - start)


def evaluate(model, pairs, pad, half):
    """Accuracy and loss."""
    model.eval()
    by_length = sorted(pairs, key=lambda pair: max(map(len, pair)))
    with torch.inference_mode():
        reward = torch.cat([rewards(model, by_length[i:i + 4], pad, half)
                            for i in range(0, len(by_length), 4)])
    right = (reward[:, CHOSEN] > reward[:, REJECTED]).float().mean()
    return right.item(), losses(reward).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deck")
    parser.add_argument("--seed", type=int, help="job.seed by default")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    start = time.perf_counter()
    deck, half = read_deck(args.deck), args.dtype == "bf16"
    torch.manual_seed(int(deck["job.seed"]) if args.seed is None else args.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pairs, held_out = (
        [pair for path in deck[key] for pair in read_pairs(path, deck["data.seq_length"])]
        for key in ("data.train", "data.eval"))
    pad = unused_token(pairs + held_out)
    model, parameters = make_model(deck, pad, half)
    speed = train(model, parameters, pairs, pad, deck, half)
    accuracy, loss = evaluate(model, held_out, pad, half)
    print(f"{accuracy:.4f}", len(held_out), f"{loss:.4f}", f"{speed:.0f}",
          f"{time.perf_counter() - start:.0f}", sep="\t")


if __name__ == "__main__":
    main()
