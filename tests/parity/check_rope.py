#!/usr/bin/env python3
"""Compares the tables of rotary positions with transformers', for every scaling, and reads back the written configs.

  check_rope.py --driver parity_driver

Each case is a config.json in one of the spellings that folders have. Its cos and sin must be those that transformers'
rotary embedding computes; the config.json the C++ side writes must give transformers the same frequencies again.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, logging
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

logging.set_verbosity_error()
YARN = dict(rope_type="yarn", original_max_position_embeddings=4096)
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
SCALINGS = {
    "default": None,
    "linear_2": dict(rope_type="linear", factor=2.0),
    "linear_4.5": dict(type="linear", factor=4.5),
    "linear_25": dict(rope_type="linear", factor=25.0),
    "dynamic_1": dict(rope_type="dynamic", factor=1.0),
    "dynamic_4": dict(type="dynamic", factor=4.0),
    "dynamic_other_original": dict(rope_type="dynamic", factor=4.0, original_max_position_embeddings=2048),
    "yarn_4": dict(YARN, factor=4.0),
    "yarn_25": dict(YARN, factor=25.0),
    "yarn_without_original": dict(type="yarn", factor=8.0),
    "yarn_ramp": dict(YARN, factor=4.0, beta_fast=16.0, beta_slow=2.0, truncate=False),
    "yarn_temperature": dict(YARN, factor=4.0, attention_factor=1.3),
    "llama3_8": dict(LLAMA3, factor=8.0),
    "llama3_32": dict(LLAMA3, factor=32.0),
    "llama3_without_original": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama3_ramp": dict(LLAMA3, factor=4.0, low_freq_factor=2.0, high_freq_factor=3.0),
}
EXTENSIONS = [(kind, contexts) for kind in ("linear", "ntk", "dynamic", "yarn", "llama3")
              for contexts in ([8192], [18000], [100000], [8192, 32768])]


def config_of(head_dim, theta, scaling, spelling, context=4096):
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=64, hidden_size=4 * head_dim,
                  intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=head_dim,
                  max_position_embeddings=context, hidden_act="silu", rms_norm_eps=1e-5)
    if spelling == 4:
        return config | dict(rope_theta=theta, rope_scaling=scaling)
    return config | dict(rope_parameters=dict(scaling or dict(rope_type="default"), rope_theta=theta))


def cases():
    for name, scaling in SCALINGS.items():
        for spelling in (4, 5):
            for head_dim, theta, tokens in ((8, 1e4, 16), (64, 1e4, 5000), (128, 5e5, 20000)):
                yield (f"{name}_v{spelling}_d{head_dim}_n{tokens}", config_of(head_dim, theta, scaling, spelling),
                       dict(tokens=tokens, extend=[]))
        yield f"{name}_100k", config_of(128, 1e6, scaling, 4), dict(tokens=100001, extend=[])
    for kind, contexts in EXTENSIONS:
        for head_dim in (64, 128):
            yield (f"extend_{kind}_{'_'.join(map(str, contexts))}_d{head_dim}", config_of(head_dim, 1e4, None, 4),
                   dict(tokens=contexts[-1], extend=[[kind, n] for n in contexts]))


def reference(folder, tokens):
    """cos and sin [tokens, D / 2] as transformers computes them for the folder's config."""
    config = AutoConfig.from_pretrained(folder)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(tokens)[None])
    half = config.head_dim // 2
    return cos[0, :, :half], sin[0, :, :half], config


def expected_extension(config, kind, contexts):
    """What must stand in an extended config, from the definitions: factor = ceil(target / 4096)."""
    factor = -(-contexts[-1] // 4096)
    rope = config.rope_parameters
    if kind == "ntk":
        theta = 1e4 * factor ** (config.head_dim / (config.head_dim - 2))
        return rope["rope_type"] == "default" and abs(rope["rope_theta"] / theta - 1) < 1e-12
    reach = 4096 if kind == "dynamic" else contexts[-1]
    return (rope["rope_type"], rope["factor"], config.max_position_embeddings) == (kind, factor, reach)


def check(folder, options):
    tokens, extend = options["tokens"], options["extend"]
    got = load_file(f"{folder}/out.safetensors")
    cos, sin, config = reference(f"{folder}/saved", tokens)
    problems = []
    if extend:
        if not expected_extension(config, extend[-1][0], [n for _, n in extend]):
            problems.append(f"extended config: {config.rope_parameters}, {config.max_position_embeddings}")
    else:
        for what, a, b in (("cos", cos, reference(folder, tokens)[0]), ("sin", sin, reference(folder, tokens)[1])):
            if not torch.equal(a, b):
                problems.append(f"{what} of the config written again differs from the original's")
    for what, ours, theirs in (("cos", got["cos"], cos), ("sin", got["sin"], sin)):
        error = (ours - theirs).abs().max().item()
        if not (ours.shape == theirs.shape and error <= 1e-6):
            problems.append(f"{what} differs by {error:.2e}")
    return problems


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--driver", required=True)
    driver = os.path.abspath(ap.parse_args().driver)
    torch.set_num_threads(1)
    every = list(cases())
    passed = 0
    for first in range(0, len(every), 12):  # tables of 100,000 positions: not all on the disk at once
        with tempfile.TemporaryDirectory() as root:
            batch = [(name, os.path.join(root, name), config, options) for name, config, options in every[first:first + 12]]
            for _, folder, config, options in batch:
                os.mkdir(folder)
                for file, content in (("config.json", config), ("options.json", options)):
                    with open(os.path.join(folder, file), "w") as f:
                        json.dump(content, f)
            subprocess.run([driver, "rope", *(folder for _, folder, _, _ in batch)], check=True, timeout=300)
            for name, folder, _, options in batch:
                problems = check(folder, options)
                print(f"{'ok  ' if not problems else 'FAIL'} {name}", *[f"\n     {p}" for p in problems], flush=True)
                passed += not problems
    print(f"{passed} passed, {len(every) - passed} failed")
    return 0 if every and passed == len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
