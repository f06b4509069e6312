#!/usr/bin/env python3
"""Goldens of reward modelling, DPO and PPO: what TRL 0.11.4 computes for the tiny model "tied".

Usage: make_rlhf.py [FOLDER]       (in the environment of tools/setup --trl: $QUIPU_TRL/bin/python)

The model, its adapter and the hash are those of make_model.py; fp32, CPU, no dropout. The adapter's
A and B are both non-zero, so the policy differs from the reference (the adapter switched off).
Streams of that hash that are new here; token t of sequence i of a set is word t of the stream
"rlhf.<set>.<i>" modulo 96:
  prompt, chosen, rejected   4 of each, lengths in PAIRS: the sequences prompt + chosen and
                             prompt + rejected of reward model and DPO
  query, response            8 of each, lengths in PPO_LENGTHS: query + response of PPO
  score                      uniform("score", (1, 64), 0.5), head of the reward model
  v_head.weight, v_head.bias uniform(.., (1, 64), 0.5), uniform(.., (1,), 0.5), value head of PPO
Parameters are called as in model_tied.safetensors ("layers.0.q_proj.A"), and as the heads above.

rlhf_reward: reward.<side>, at the last token; of the losses "plain", "margin" (with MARGIN) and
"center" (center_rewards_coefficient) of RewardTrainer: loss.<loss>, grad.<loss>.<parameter>. TRL's
collator makes margins [4], which its loss subtracts from rewards [4, 1]: all 16 combinations. Here
margins are [4, 1], so that each pair has its own.

rlhf_dpo: logprob.{policy,reference}.<side>, sums over the completion; of each loss in DPO_LOSSES:
<loss>.loss (the mean over pairs), .losses (of each pair), .chosen_rewards, .rejected_rewards,
grad.<loss>.<parameter>. For "ipo" TRL puts the mean per token of the completion where the sum is
else, in the loss and in the rewards.

rlhf_ppo: one PPOTrainer.step(): old.*, what is known before the first update; update.<u>.*, update
u of 4; grad.<u>.<parameter>, of the first and the last; param.<parameter>, after the step; kl_coef,
before and after it; stats.*, as step() returns them. "alt." is another step from the same start,
with the options ALT: scores are scaled, normalised and clipped (alt.score), the penalty is |kl|,
rewards are whitened; values have so small a range that some are clipped, and the target of KL is so
near that its controller's error is not. moments.*: the running mean and standard deviation of
scores after that step, and after moments.score too.
Arrays of tokens are ragged: those of the responses, one after another, and in an update those of
the mini-batch in the order in which "permutation" [epoch, 8] has its samples. Padding is on the
left: TRL's whitening makes rewards of padding non-zero, and from the right of a response they would
leak into its advantages.
"""
import os
import sys
import tempfile
import warnings
from collections import defaultdict
from unittest import mock

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false",
                  TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn.functional import log_softmax, logsigmoid
from transformers import (LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification,
                          PreTrainedTokenizerFast)
from trl import (AutoModelForCausalLMWithValueHead, DPOConfig, DPOTrainer, PPOConfig, PPOTrainer,
                 RewardConfig, RewardTrainer)
from trl.core import masked_mean, masked_whiten
from trl.trainer.utils import RunningMoments

from make_model import COMMON, MODELS, fill, short, uniform, words

CONFIG, LORA = {**COMMON, **MODELS["tied"][0]}, MODELS["tied"][1]
N_VOCAB = CONFIG["vocab_size"]

PAIRS = dict(prompt=[7, 1, 3, 12], chosen=[9, 2, 14, 5], rejected=[4, 13, 6, 1])
MARGIN = [0.5, 0.0, 1.25, 2.0]
CENTER = 0.01
DPO_LOSSES = {"sigmoid": dict(loss_type="sigmoid"),
              "smoothed": dict(loss_type="sigmoid", label_smoothing=0.1),
              "hinge": dict(loss_type="hinge"),
              "ipo": dict(loss_type="ipo")}
BETA = 0.1
SCRATCH = tempfile.TemporaryDirectory()  # where transformers' Trainer would put checkpoints

PPO_LENGTHS = dict(query=[6, 3, 11, 1, 8, 4, 9, 2], response=[5, 2, 9, 1, 7, 12, 3, 6])
SCORE = [1.5, -0.75, 0.25, 2.0, -1.25, 0.5, -0.5, 1.0]
MORE_SCORES = [3.0, -1.0, 0.75, 2.5, -0.25]  # the running moments' second batch
PPO = dict(batch_size=8, mini_batch_size=4, gradient_accumulation_steps=1, ppo_epochs=2,
           learning_rate=1e-3)
ALT = dict(whiten_rewards=True, use_score_scaling=True, use_score_norm=True, score_clip=0.5,
           kl_penalty="abs", target=9.0, cliprange_value=0.05)
# statistics of one update: our name -> TRL's
UPDATE = dict(loss_policy="loss/policy", loss_value="loss/value", loss_total="loss/total",
              entropy="policy/entropy", approxkl="policy/approxkl", policykl="policy/policykl",
              clipfrac_policy="policy/clipfrac", clipfrac_value="val/clipfrac",
              advantages_mean="policy/advantages_mean", vpred="val/vpred", error="val/error")


# --- model and tokens ----------------------------------------------------------------------------

def sequences(name, lengths):
    return [torch.from_numpy((words(f"rlhf.{name}.{i}", n) % np.uint64(N_VOCAB)).astype(np.int64))
            for i, n in enumerate(lengths)]


def key_of(name):
    """PyTorch's name of a trainable parameter -> ours."""
    if "layers" in name:
        return short(name)
    return "v_head." + name.split(".")[-1] if "v_head" in name else "score"


def trainable(model):
    return {key_of(n): p for n, p in model.named_parameters() if p.requires_grad}


def fill_named(parameters):
    """The adapter as in make_model.py, and the heads."""
    with torch.no_grad():
        for key, p in parameters.items():
            scale = 0.25 if key.startswith("layers") else 0.5
            p.copy_(torch.from_numpy(uniform(key, tuple(p.shape), scale)))


def tiny(kind, task, **config):
    model = kind(LlamaConfig(**CONFIG, **config, attn_implementation="eager")).float()
    with torch.no_grad():
        fill(model)
    model = get_peft_model(model, LoraConfig(
        r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=0.0, target_modules=LORA["targets"],
        task_type=task))
    fill_named(trainable(model))
    return model


def tokenizer(padding_side, *used):
    """Only pads; with a token that no sequence has, for sequence classification looks for it."""
    pad = next(t for t in range(N_VOCAB) if all(t not in s for s in used))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({str(t): t for t in range(N_VOCAB)}, unk_token="0")),
        pad_token=str(pad), padding_side=padding_side)


def trainer_args():
    """What transformers' Trainer wants, although no step of it is made."""
    return dict(output_dir=SCRATCH.name, report_to="none", use_cpu=True,
                remove_unused_columns=False, max_length=64)


# --- checks --------------------------------------------------------------------------------------

def check(what, ours, theirs, tolerance=1e-5):
    """Largest difference, in units of the largest value if that is above 1."""
    ours, theirs = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
    worst = (ours - theirs).abs().max() / max(1.0, theirs.abs().max())
    assert ours.shape == theirs.shape and worst <= tolerance, f"{what}: differs by {worst}"


def check_gradients(what, model, loss):
    """The gradients that are there against those of a loss of ours, without padding."""
    theirs = gradients(model)
    model.zero_grad()
    loss.backward()
    for key, value in gradients(model).items():
        scale = np.abs(theirs[key]).max()
        assert scale > 0, f"{what}: no gradient of {key}"
        check(f"{what}: gradient of {key}", value / scale, theirs[key] / scale, 2e-5)


def gradients(model):
    return {key: p.grad.numpy().copy() for key, p in trainable(model).items()}


def completion(causal, prompt, tokens):
    """Log-probs of tokens after a prompt, and the hidden states they are predicted from."""
    out = causal(input_ids=torch.cat([prompt, tokens])[None], output_hidden_states=True)
    at = slice(len(prompt) - 1, -1)
    return (log_softmax(out.logits[0, at], -1).gather(1, tokens[:, None])[:, 0],
            out.hidden_states[-1][0, at])


def put(out, prefix, values):
    for key, value in values.items():
        value = np.asarray(value.detach() if torch.is_tensor(value) else value)
        integer = np.issubdtype(value.dtype, np.integer)
        out[prefix + key] = np.atleast_1d(value).astype(np.int32 if integer else np.float32)


# --- reward model --------------------------------------------------------------------------------

def make_reward():
    tokens = {name: sequences(name, lengths) for name, lengths in PAIRS.items()}
    whole = {side: [torch.cat(s) for s in zip(tokens["prompt"], tokens[side])]
             for side in ("chosen", "rejected")}
    pad = tokenizer("right", *whole["chosen"], *whole["rejected"])
    model = tiny(LlamaForSequenceClassification, TaskType.SEQ_CLS, num_labels=1,
                 pad_token_id=pad.pad_token_id)
    trainer = RewardTrainer(model=model, tokenizer=pad, args=RewardConfig(**trainer_args()))
    batch = trainer.data_collator(
        [{f"{what}_{side}": value for side in whole for what, value in
          (("input_ids", whole[side][i]), ("attention_mask", torch.ones_like(whole[side][i])))}
         for i in range(len(MARGIN))])

    out = {}
    put(out, "length.", PAIRS)
    put(out, "", dict(margin=MARGIN))
    for name in ("plain", "margin", "center"):
        inputs = dict(batch, margin=torch.tensor(MARGIN)[:, None]) if name == "margin" else batch
        trainer.args.center_rewards_coefficient = CENTER if name == "center" else None
        loss, rewards = trainer.compute_loss(model, inputs, return_outputs=True)
        loss.backward()
        put(out, "", {"loss." + name: loss})
        put(out, f"grad.{name}.", gradients(model))

        alone = {side: torch.cat([model(input_ids=s[None]).logits[0] for s in whole[side]])
                 for side in whole}
        margin = torch.tensor(MARGIN) if name == "margin" else 0.0
        ours = -logsigmoid(alone["chosen"] - alone["rejected"] - margin).mean()
        if name == "center":
            ours = ours + CENTER * ((alone["chosen"] + alone["rejected"]) ** 2).mean()
        check(f"reward {name}", ours, loss)
        check_gradients(f"reward {name}", model, ours)
        model.zero_grad()
    for side in whole:
        put(out, "reward.", {side: rewards["rewards_" + side][:, 0]})
        check(f"reward of {side}", alone[side], rewards["rewards_" + side][:, 0])
    return out


# --- DPO -----------------------------------------------------------------------------------------

class Tokenized(list):
    """Rows that are tokens already: TRL's tokenising map() leaves them as they are."""

    def map(self, *_, **__):
        return self


class SpyDPO(DPOTrainer):
    """TRL's trainer, unchanged; keeps what its loss takes and returns."""

    def dpo_loss(self, *logps):
        self.logps, self.result = logps, super().dpo_loss(*logps)
        return self.result


def dpo_rows(tokens):
    rows = Tokenized()
    for i in range(len(PAIRS["prompt"])):
        prompt, row = tokens["prompt"][i].tolist(), {}
        for side in ("chosen", "rejected"):
            answer = tokens[side][i].tolist()
            row.update({side + "_input_ids": prompt + answer,
                        side + "_attention_mask": [1] * len(prompt + answer),
                        side + "_labels": [-100] * len(prompt) + answer})
        rows.append(row)
    return rows


def make_dpo():
    tokens = {name: sequences(name, lengths) for name, lengths in PAIRS.items()}
    rows, out = dpo_rows(tokens), {}
    put(out, "length.", PAIRS)
    for name, options in DPO_LOSSES.items():
        model = tiny(LlamaForCausalLM, TaskType.CAUSAL_LM)
        trainer = SpyDPO(model=model, ref_model=None, train_dataset=rows, tokenizer=tokenizer(
            "right"), args=DPOConfig(**trainer_args(), max_prompt_length=32, beta=BETA, **options))
        loss, _ = trainer.get_batch_loss_metrics(model, trainer.data_collator(rows))
        loss.backward()
        losses, chosen_rewards, rejected_rewards = trainer.result
        put(out, name + ".", dict(loss=loss, losses=losses, chosen_rewards=chosen_rewards,
                                  rejected_rewards=rejected_rewards))
        put(out, f"grad.{name}.", gradients(model))

        alone = {}
        for side in ("chosen", "rejected"):
            pairs = list(zip(tokens["prompt"], tokens[side]))
            alone["policy." + side] = torch.stack([completion(model, *p)[0].sum() for p in pairs])
            with torch.no_grad(), model.disable_adapter():
                alone["reference." + side] = torch.stack(
                    [completion(model, *p)[0].sum() for p in pairs])
            if name == "ipo":
                for who in ("policy.", "reference."):
                    alone[who + side] = alone[who + side] / torch.tensor(PAIRS[side])
        theirs = dict(zip(("policy.chosen", "policy.rejected", "reference.chosen",
                           "reference.rejected"), trainer.logps))
        for key, value in theirs.items():
            check(f"dpo {name}: {key}", alone[key], value)
        if name == "sigmoid":
            put(out, "logprob.", theirs)
        if name == "hinge":
            assert losses.min() == 0 < losses.max()

        logits = (alone["policy.chosen"] - alone["policy.rejected"]
                  - alone["reference.chosen"] + alone["reference.rejected"])
        eps = options.get("label_smoothing", 0)
        ours = {"hinge": torch.relu(1 - BETA * logits), "ipo": (logits - 1 / (2 * BETA)) ** 2}.get(
            name, -logsigmoid(BETA * logits) * (1 - eps) - logsigmoid(-BETA * logits) * eps).mean()
        check(f"dpo {name}", ours, loss)
        check_gradients(f"dpo {name}", model, ours)
    return out


# --- PPO -----------------------------------------------------------------------------------------

class TensorMoments(RunningMoments):
    """TRL's moments are floats, but its step() calls their .to(): as tensors they have it."""

    def update(self, xs):
        result = super().update(xs)
        self.mean, self.std = torch.as_tensor(self.mean), torch.as_tensor(self.std)
        return result


class SpyPPO(PPOTrainer):
    """TRL's trainer, unchanged; keeps what its methods take and return."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = defaultdict(list)
        self.running = TensorMoments(self.accelerator)
        self.optimizer.optimizer.register_step_pre_hook(
            lambda *_: self.seen["gradients"].append(gradients(self.model)))

    def compute_rewards(self, scores, logprobs, ref_logprobs, masks):
        result = super().compute_rewards(scores, logprobs, ref_logprobs, masks)
        self.seen["old"] = dict(logprob=logprobs, ref_logprob=ref_logprobs, reward=result[0],
                                kl=result[2])
        self.seen["score"], self.seen["mask"] = scores, masks
        return result

    def compute_advantages(self, values, rewards, mask):
        result = super().compute_advantages(values, rewards, mask)
        self.seen["old"].update(value=result[0], advantage=result[1], returns=result[2])
        return result

    def loss(self, old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns):
        result = super().loss(old_logprobs, values, logits, vpreds, logprobs, mask, advantages,
                              returns)
        stats = {name: result[2][key] for name, key in UPDATE.items()}
        stats["ratio"] = masked_mean(result[2]["policy/ratio"], mask)
        self.seen["update"].append(
            {**stats, "logprob": ragged(logprobs, mask), "value": ragged(vpreds, mask)})
        return result


def ragged(x, mask):
    return x[mask.bool()].detach().clone()


def tiny_policy():
    policy = AutoModelForCausalLMWithValueHead.from_pretrained(
        tiny(LlamaForCausalLM, TaskType.CAUSAL_LM), summary_dropout_prob=0.0)
    fill_named(trainable(policy))
    return policy


def ppo_sequences():
    return [sequences(name, lengths) for name, lengths in PPO_LENGTHS.items()]


def ppo_step(**options):
    """A trainer after its first step, and what step() returned."""
    policy = tiny_policy()
    optimizer = torch.optim.Adam(trainable(policy).values(), lr=PPO["learning_rate"])
    trainer = SpyPPO(PPOConfig(**PPO, **options), policy, None, tokenizer("left"),
                     optimizer=optimizer)
    trainer.seen["kl_coef"].append(trainer.kl_ctl.value)
    permutation = np.random.permutation

    def spied(n):
        trainer.seen["permutation"].append(permutation(n))
        return trainer.seen["permutation"][-1]

    with mock.patch.object(np.random, "permutation", spied):
        stats = trainer.step(*ppo_sequences(), [torch.tensor(s) for s in SCORE])
    trainer.seen["kl_coef"].append(trainer.kl_ctl.value)
    return trainer, stats


def whiten(x, keep_mean=False):
    return (x - x.mean()) / torch.sqrt(x.var() + 1e-8) + (x.mean() if keep_mean else 0)


def check_old(old, score, config, kl_coef):
    """Sequences alone and the recipe's formulas against what the trainer made of a padded batch."""
    policy = tiny_policy()
    logprob, ref_logprob, value = [], [], []
    with torch.no_grad():
        for pair in zip(*ppo_sequences()):
            ours, hidden = completion(policy.pretrained_model, *pair)
            logprob.append(ours)
            value.append(policy.v_head(hidden)[:, 0])
            with policy.pretrained_model.disable_adapter():
                ref_logprob.append(completion(policy.pretrained_model, *pair)[0])
    check("ppo logprob", torch.cat(logprob), old["logprob"])
    check("ppo ref_logprob", torch.cat(ref_logprob), old["ref_logprob"])
    check("ppo value", torch.cat(value), old["value"])

    kl = torch.cat(logprob) - torch.cat(ref_logprob)
    reward = -kl_coef * (kl.abs() if config.kl_penalty == "abs" else kl)
    reward[np.cumsum(PPO_LENGTHS["response"]) - 1] += score
    check("ppo reward", reward, old["reward"])
    if config.whiten_rewards:
        reward = whiten(reward, keep_mean=True)
        check("ppo reward, whitened", reward, old["reward_whitened"])
    advantage = []
    for r, v in zip(reward.split(PPO_LENGTHS["response"]), value):
        delta, last, row = r + config.gamma * torch.cat([v[1:], torch.zeros(1)]) - v, 0.0, []
        for d in reversed(delta):
            last = d + config.gamma * config.lam * last
            row.insert(0, last)
        advantage += row
    advantage = torch.stack(advantage)
    check("ppo returns", advantage + torch.cat(value), old["returns"])
    check("ppo advantage", whiten(advantage), old["advantage"])


def check_first_update(trainer, old):
    """The first update's gradient from sequences alone."""
    policy = tiny_policy()
    rows = {key: x.split(PPO_LENGTHS["response"]) for key, x in old.items()}
    tokens = ppo_sequences()
    sample = trainer.seen["permutation"][0][:PPO["mini_batch_size"]]
    config, total = trainer.config, 0.0
    for s in sample:
        logprob, hidden = completion(policy.pretrained_model, tokens[0][s], tokens[1][s])
        ratio = torch.exp(logprob - rows["logprob"][s])
        error = policy.v_head(hidden)[:, 0] - rows["returns"][s]
        total = total + (-rows["advantage"][s] * ratio + config.vf_coef * error ** 2 / 2).sum()
    for key, p in trainable(policy).items():
        p.grad = torch.from_numpy(trainer.seen["gradients"][0][key])
    check_gradients("ppo", policy, total / sum(PPO_LENGTHS["response"][s] for s in sample))


def old_of(trainer):
    old, mask = dict(trainer.seen["old"]), trainer.seen["mask"]
    if trainer.config.whiten_rewards:
        old["reward_whitened"] = masked_whiten(old["reward"] * mask, mask, shift_mean=False)
    return {key: ragged(x, mask) for key, x in old.items()}


def put_step(out, prefix, trainer, old):
    seen = trainer.seen
    put(out, prefix + "old.", old)
    put(out, prefix, dict(score=seen["score"], permutation=np.stack(seen["permutation"]),
                          kl_coef=seen["kl_coef"]))
    for u, update in enumerate(seen["update"]):
        put(out, f"{prefix}update.{u}.", update)
    put(out, prefix + "param.", trainable(trainer.model))


def put_default(out):
    trainer, stats = ppo_step()
    old, seen = old_of(trainer), trainer.seen
    put_step(out, "", trainer, old)
    put(out, "grad.0.", seen["gradients"][0])
    put(out, f"grad.{len(seen['update']) - 1}.", seen["gradients"][-1])
    put(out, "stats.", {key: value for key, value in stats.items()
                        if np.ndim(value) == 0 and not key.startswith("time/")})

    check_old(old, torch.tensor(SCORE), trainer.config, seen["kl_coef"][0])
    check_first_update(trainer, old)
    check("first ratio", seen["update"][0]["ratio"], 1.0)
    check("objective/kl", old["kl"].sum() / len(SCORE), stats["objective/kl"])
    for name, key in UPDATE.items():
        check(key, torch.stack([u[name] for u in seen["update"]]).mean(), stats["ppo/" + key])
    assert seen["update"][-1]["clipfrac_policy"] > 0  # a golden that clips nothing proves little


def put_alternative(out):
    trainer, stats = ppo_step(**ALT)
    old, seen = old_of(trainer), trainer.seen
    put_step(out, "alt.", trainer, old)
    put(out, "alt.stats.", {"objective/kl": stats["objective/kl"]})

    score = whiten(torch.tensor(SCORE)).clamp(-ALT["score_clip"], ALT["score_clip"])
    check("alt score", score, seen["score"])
    check_old(old, score, trainer.config, seen["kl_coef"][0])
    check("alt objective/kl", old["kl"].sum() / len(SCORE), stats["objective/kl"])
    assert abs(stats["objective/kl"] / ALT["target"] - 1) < 0.2
    assert seen["update"][-1]["clipfrac_value"] > 0

    running = trainer.running
    mean, std = [running.mean.item()], [running.std.item()]
    running.update(torch.tensor(MORE_SCORES))
    put(out, "moments.", dict(score=MORE_SCORES, mean=mean + [running.mean.item()],
                              std=std + [running.std.item()]))
    check("running mean", running.mean, torch.tensor(SCORE + MORE_SCORES).mean())
    check("running std", running.std, torch.tensor(SCORE + MORE_SCORES).std())


def make_ppo():
    out = {}
    put(out, "length.", PPO_LENGTHS)
    put_default(out)
    put_alternative(out)
    return out


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    for name, make in dict(reward=make_reward, dpo=make_dpo, ppo=make_ppo).items():
        torch.manual_seed(0)
        path = os.path.join(folder, f"rlhf_{name}.safetensors")
        save_file(make(), path)
        print(name, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
