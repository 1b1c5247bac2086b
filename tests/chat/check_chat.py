"""Checks model/chat against transformers: what templates print, the ids of samples, and which of them are trained.

The tokenizers are trained here. The seed is printed; --seed repeats a run.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import templates

WORDS = ("the answer is a long context of tokens and I think that Paris in France naïve Straße 東京 привет 1234 3.14 "
         "Don't x + y = z; [INST] </s> def f(): return\n\n\t*bold* “quoted” 👩‍👩‍👧 e\u0301 \u00a0 …").split(" ")
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def text(rng, low=1, high=12):
    words = [rng.choice([w for w in WORDS if w != "</s>"]) for _ in range(rng.randint(low, high))]
    ends = ["", "", "", " ", "\n", "  \n"]
    made = rng.choice(ends) + rng.choice([" ", " ", "  ", "\n"]).join(words) + rng.choice(ends)
    return made if made.strip() else text(rng, low, high)  # an empty answer is an error, tested elsewhere


def byte_level(rng):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([text(rng, 20, 40) for _ in range(300)], trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=SPECIAL,
        show_progress=False))
    return t


def llama_like(rng):
    """Byte fallback, a space put in front, BOS from the post-processor."""
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    with_bytes = SPECIAL + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator([text(rng, 8, 16) for _ in range(200)], trainers.BpeTrainer(
        vocab_size=800, special_tokens=with_bytes, show_progress=False))
    state = json.loads(t.to_str())
    state["added_tokens"] = state["added_tokens"][:len(SPECIAL)]
    t = Tokenizer.from_str(json.dumps(state))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def make_folder(root, name, tokenizer, template):
    folder = os.path.join(root, name)
    os.makedirs(folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    eos = "<|im_end|>" if "im_end" in template else "</s>"
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": eos}, "tokenizer_class": "PreTrainedTokenizerFast",
                   "clean_up_tokenization_spaces": False,
                   **({"chat_template": template} if len(name) % 2 else {})}, f)
    if len(name) % 2 == 0:
        with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
            f.write(template)
    return folder


def conversation(rng, wrong=0.0):
    messages = [{"role": "system", "content": text(rng)}] if rng.random() < 0.4 else []
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text(rng)})
        messages.append({"role": "assistant", "content": text(rng)})
    if rng.random() < wrong:
        rng.shuffle(messages)
    return messages


class Check:
    def __init__(self, driver):
        self.driver, self.bad, self.count = driver, 0, 0

    def run(self, args, lines):
        done = subprocess.run([self.driver, *map(str, args)], input="".join(json.dumps(x) + "\n" for x in lines),
                              capture_output=True, text=True, timeout=240)
        if done.returncode != 0:
            sys.exit(f"the driver failed on {args}: {done.stderr}")
        answers = [json.loads(line) for line in done.stdout.split("\n") if line]
        assert len(answers) == len(lines), (len(answers), len(lines))
        return answers

    def equal(self, what, got, want, context):
        self.count += 1
        if got != want:
            self.bad += 1
            if self.bad <= 5:
                print(f"{what}:\n  got  {got!r}\n  want {want!r}\n  for {context!r}")


def rendered(hf, messages, add):
    try:
        return hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)
    except Exception as error:  # the template's refusals and Jinja's errors alike
        return error


def check_rendering(check, folder, hf, rng, count):
    requests = [{"messages": conversation(rng, wrong=0.2), "add_generation_prompt": rng.random() < 0.5}
                for _ in range(count)]
    for request, got in zip(requests, check.run(["render", folder], requests)):
        want = rendered(hf, request["messages"], request["add_generation_prompt"])
        if isinstance(want, Exception):
            check.equal("refusal", "error" in got, True, (request, str(want)))
        else:
            check.equal("rendering", got.get("text", got), want, request)


def turn_spans(hf, messages):
    """Characters of each answer with its closing mark, found with Python alone."""
    whole, spans = rendered(hf, messages, False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            begin = len(rendered(hf, messages[:i], True))
            end = len(rendered(hf, messages[:i + 1], False).rstrip()) if i + 1 < len(messages) else len(whole.rstrip())
            spans.append((begin, end))
    return whole, spans


def trained(answer):
    return [i for start, end in answer["loss_spans"] for i in range(start, end)]


def check_mask(check, hf, got, want, whole, spans, context):
    """The same tokens; more only where a merge across a border changed tokens in front of it."""
    ids, have = got["ids"], trained(got)
    exact = all(ids[:len(p)] == p for p in (hf(whole[:at], add_special_tokens=False).input_ids for at in sum(spans, ())))
    if exact or not set(want) <= set(have) or len(have) > len(want) + 3 * len(spans):
        check.equal("mask", have, want, context)
    else:
        check.count += 1


def check_masks(check, folder, hf, rng, count, marks):
    lines = [{"kind": "messages", "messages": conversation(rng)} for _ in range(count)]
    for line, got in zip(lines, check.run(["encode", folder, "chat_template"], lines)):
        messages = line["messages"]
        if "error" in got:
            check.equal("encoding", got["error"], "no error", line)
            continue
        if marks:
            want = hf.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            check.equal("ids", got["ids"], want["input_ids"], line)
            inside = [i for i, m in enumerate(want["assistant_masks"]) if m]
            check_mask(check, hf, got, inside, *turn_spans(hf, messages), line)
            continue
        whole, spans = turn_spans(hf, messages)
        want = hf(whole, add_special_tokens=False, return_offsets_mapping=True)
        check.equal("ids", got["ids"], want["input_ids"], line)
        inside = [i for i, (a, b) in enumerate(want["offset_mapping"])
                  if any(a < end and b > begin and b > a for begin, end in spans)]
        check_mask(check, hf, got, inside, whole, spans, (line, whole))


def check_longlora(check, folder, hf, rng, count):
    """LongLoRA's supervised-fine-tune.py: joint ids, the source's length masked, cut at the end."""
    lines = [{"kind": "instruction", "instruction": text(rng), "output": text(rng)} for _ in range(count)]
    for limit in (0, 24):
        more = [limit, "right"] if limit else []
        for line, got in zip(lines, check.run(["encode", folder, "longlora", *more], lines)):
            source = f"[INST]{line['instruction']}[/INST]"
            ids = hf(source + line["output"] + hf.eos_token).input_ids
            masked = len(hf(source).input_ids)
            ids = ids[:limit or None]
            if masked >= len(ids):
                check.equal("nothing to train", "no token of the answer" in got.get("error", ""), True, (line, got))
                continue
            check.equal("longlora ids", got.get("ids", got), ids, line)
            check.equal("longlora mask", trained(got), list(range(masked, len(ids))), line)
            if not limit:
                check.equal("last target", got["ids"][trained(got)[-1]], hf.eos_token_id, line)


def check_vicuna(check, folder, hf, rng, count):
    """LongQLoRA's dataset: prompt and answer tokenized apart, no BOS, loss on answer and EOS."""
    prompt = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
              "detailed, and polite answers to the user's questions.\nUSER: {}\nASSISTANT: ")
    lines = [{"kind": "pair", "input": text(rng), "output": text(rng)} for _ in range(count)]
    for line, got in zip(lines, check.run(["encode", folder, "vicuna"], lines)):
        before = hf(prompt.format(line["input"].strip()), add_special_tokens=False).input_ids
        answer = hf(line["output"].strip(), add_special_tokens=False).input_ids + [hf.eos_token_id]
        check.equal("vicuna ids", got.get("ids", got), before + answer, line)
        check.equal("vicuna mask", trained(got), list(range(len(before), len(before + answer))), line)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    rng, check = random.Random(args.seed), Check(args.driver)
    tokenizers = {"byte_level": byte_level(rng), "llama_like": llama_like(rng)}
    with tempfile.TemporaryDirectory() as root:
        for kind, tokenizer in tokenizers.items():
            for name, template in {**templates.TEMPLATES, "odds": templates.ODDS}.items():
                folder = make_folder(root, f"{kind}-{name}", tokenizer, template)
                hf = PreTrainedTokenizerFast.from_pretrained(folder)
                check_rendering(check, folder, hf, rng, args.count)
                if name != "odds":
                    check_masks(check, folder, hf, rng, args.count, name == "generation")
            check_longlora(check, folder, hf, rng, args.count)
            check_vicuna(check, folder, hf, rng, args.count)
    print(f"{check.count - check.bad} of {check.count} equal")
    sys.exit(1 if check.bad else 0)


if __name__ == "__main__":
    main()
