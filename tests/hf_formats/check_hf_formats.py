"""Checks that transformers and safetensors read what model/plan and model/weights write, and the other way round."""

import argparse
import io
import json
import os
import subprocess
import tempfile

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

SHAPE = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=4096)


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_configs(driver, folder):
    transformers.LlamaConfig(**SHAPE).save_pretrained(folder)
    original = os.path.join(folder, "config.json")
    for kind, context in (("linear", 18000), ("ntk", 32768), ("yarn", 16384)):
        out = os.path.join(folder, kind)
        os.makedirs(out)
        with open(os.path.join(out, "config.json"), "w") as f:
            f.write(run(driver, "extend", folder, str(context), kind))
        config = transformers.AutoConfig.from_pretrained(out)
        rope = config.rope_parameters
        factor = -(-context // 4096)
        assert config.max_position_embeddings == context, config
        assert rope["original_max_position_embeddings"] == 4096, rope
        if kind == "ntk":
            assert rope["rope_type"] == "default", rope
            assert abs(rope["rope_theta"] / (10000 * factor ** (16 / 14)) - 1) < 1e-12, rope
        else:
            assert rope["rope_type"] == kind and rope["factor"] == factor, rope
            frequencies, attention = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
            assert frequencies.shape == (8,) and attention >= 1.0
        raw = json.load(open(os.path.join(out, "config.json")))
        if kind != "ntk":  # what transformers 4 reads
            assert raw["rope_scaling"]["rope_type"] == kind and raw["rope_scaling"]["factor"] == factor
        assert raw["torch_dtype"] == raw["dtype"]
        again = json.loads(run(driver, "extend", out, str(8 * 4096), kind))
        assert again["rope_parameters"].get("factor", again.get("ntk_scaling", {}).get("factor")) == 8, again
        print(f"config {kind}: ok")
    assert json.load(open(original))["max_position_embeddings"] == 4096


def check_safetensors(driver, folder):
    torch.manual_seed(0)
    tensors = {f"t.{dtype}": (torch.randn(3, 5) * 3).to(dtype) for dtype in
               (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8,
                torch.bool)}
    tensors |= {"scalar": torch.tensor(2.0), "empty": torch.empty(0, 4), "odd": torch.ones(7, dtype=torch.bool)}
    a, b = os.path.join(folder, "a.safetensors"), os.path.join(folder, "b.safetensors")
    save_file(tensors, a, metadata={"format": "pt", "k": "v"})
    run(driver, "copy", a, b)
    back = load_file(b)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    print("safetensors: ok")


def check_sentencepiece_beside_torch(driver, folder):
    out = io.BytesIO()
    lines = ["in the beginning was the word number %d" % i for i in range(400)]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, vocab_size=100,
                                             model_type="bpe", minloglevel=2)
    path = os.path.join(folder, "t.model")
    with open(path, "wb") as f:
        f.write(out.getvalue())
    want = sum(sentencepiece.SentencePieceProcessor(model_file=path).encode("in the beginning"))
    assert int(run(driver, "spiece", path)) == want
    print("sentencepiece beside torch: ok")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    driver = parser.parse_args().driver
    with tempfile.TemporaryDirectory() as folder:
        check_configs(driver, folder)
        check_safetensors(driver, folder)
        check_sentencepiece_beside_torch(driver, folder)


if __name__ == "__main__":
    main()
