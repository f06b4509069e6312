"""Seconds of one PPO step of TRL 0.11.4 (PPOTrainer) with LoRA on SmolLM2, on the CPU.

    peer_ppo.py --convert FOLDER    in the environment of the peers: the GGUF file as an HF folder,
                                    which TRL's older transformers cannot make of it
    peer_ppo.py FOLDER              in the environment of TRL: a line per mode and mini-batch:
                                    name, seconds of generating, seconds of step(), peak MB, by tabs

Generation is batched, with a cache; scores are given, so no reward model is in these times. After a
step that warms up, the best of some counts. A mini-batch of fewer answers than the step has
accumulates gradients until the update has them all: answers are of one length, so the mean of means
is the mean, and every mode makes the same update. Each mode runs in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                  TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

# mode: (name, type of the weights, accelerate's mixed precision); PEFT keeps adapters in fp32
MODES = {
    "fp32": ("TRL fp32", "float32", "no"),
    "bf16": ("TRL bf16", "bfloat16", "no"),
    "autocast": ("TRL bf16, autocast", "bfloat16", "bf16"),
}
NEVER = 100_000  # StackLLaMA's way to answers of a given length: no token has this id
LOSS = 1e-4  # by how much the two versions' losses may differ


def loss_of(model):
    """A number that wrong weights, positions or norms would change."""
    import torch

    ids = torch.arange(1000, 3000, 31)[None]
    with torch.inference_mode():
        return model.eval()(input_ids=ids, labels=ids).loss.item()


def convert(folder):
    """Weights and config.json, whose names are those of transformers 4; and the loss to expect."""
    import torch
    from safetensors.torch import save_file

    from peer_model import load

    model = load(torch.float32)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k not in tied},
              os.path.join(folder, "model.safetensors"), {"format": "pt"})
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps",
            "num_attention_heads", "num_key_value_heads", "max_position_embeddings",
            "tie_word_embeddings", "bos_token_id", "eos_token_id")
    config = {key: getattr(model.config, key) for key in same}
    config.update(model_type="llama", architectures=["LlamaForCausalLM"],
                  rope_theta=model.config.rope_parameters["rope_theta"], torch_dtype="float32")
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    with open(os.path.join(folder, "loss.json"), "w") as file:
        json.dump(loss_of(model), file)


def load_policy(folder, dtype):
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import AutoModelForCausalLMWithValueHead

    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype)
    if dtype is torch.float32:
        with open(os.path.join(folder, "loss.json")) as file:
            expected = json.load(file)
        loss = loss_of(model)
        assert abs(loss / expected - 1) < LOSS, f"loss {loss}, in the other version {expected}"
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"],
                      task_type="CAUSAL_LM")
    return AutoModelForCausalLMWithValueHead.from_pretrained(model, peft_config=lora)


def run_mode(args):
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import PPOConfig, PPOTrainer

    name, dtype, mixed = MODES[args.one]
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = PreTrainedTokenizerFast(  # only pads
        tokenizer_object=Tokenizer(WordLevel({"p": 0, "e": 1}, unk_token="p")), pad_token="p",
        eos_token="e", padding_side="left")
    config = PPOConfig(batch_size=args.batch, mini_batch_size=args.mini,
                       gradient_accumulation_steps=args.batch // args.mini, ppo_epochs=args.epochs,
                       learning_rate=1e-5, max_grad_norm=1.0,
                       accelerator_kwargs=dict(cpu=True, mixed_precision=mixed))
    policy = load_policy(args.folder, getattr(torch, dtype))
    trainer = PPOTrainer(config, policy, None, tokenizer)

    def step():
        queries = list(torch.randint(100, 40000, (args.batch, args.prompt)))
        start = time.perf_counter()
        answers = trainer.generate(queries, batch_size=args.batch, return_prompt=False,
                                   remove_padding=False, do_sample=True, top_k=0, top_p=1.0,
                                   max_new_tokens=args.new, eos_token_id=NEVER, pad_token_id=0)
        generated = time.perf_counter()
        assert all(len(answer) == args.new for answer in answers)
        trainer.step(queries, answers, [torch.tensor(float(i % 3)) for i in range(args.batch)])
        return generated - start, time.perf_counter() - generated

    step()
    best = min((step() for _ in range(args.repeat)), key=sum)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"{name}, passes of {args.mini}", *(round(seconds, 2) for seconds in best), round(peak),
          sep="\t")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--convert", action="store_true")
    parser.add_argument("--modes", default="fp32,bf16", help=",".join(MODES))
    parser.add_argument("--minis", default="16", help="answers of a pass, as 4,8,16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1800, help="seconds a mode may take")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--mini", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.convert:
        convert(args.folder)
        return
    if args.one:
        run_mode(args)
        return
    for mode in args.modes.split(","):
        for mini in args.minis.split(","):
            command = [sys.executable, __file__, "--one", mode, "--mini", mini, *sys.argv[1:]]
            try:
                subprocess.run(command, check=True, timeout=args.limit)
            except subprocess.SubprocessError as error:
                print(f"not measured: {MODES[mode][0]}, passes of {mini}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
