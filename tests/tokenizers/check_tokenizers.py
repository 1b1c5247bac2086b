"""Checks model/text against the Python packages `tokenizers` and `sentencepiece` on fuzzed Unicode.

Small tokenizers of every kind are trained here, at test time; with LL_SMOLLM2=DIR the real one is checked too. The
seed is printed; --seed repeats a run.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS = ("the of and to in a is that it he was for on are as with his they I at be this have from "
         "or one had by word but not what all were we when your can said there Don't we're I'LL it'S "
         "naïve Straße 東京 привет мир मनुष्य العربية ελληνικά 한국어 日本語 1234 3.14 1,000,000 <|x|> "
         "foo_bar C++ http://a.b/c?d=e").split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u2003", "\u3000",
          "\u0085", "\u180e", "\u200b", "\ufeff", "\u2028", "\x0b", "\x1c"]
ODD = ["\u0301", "\u0327", "e\u0301", "\u1100\u1161\u11a8", "👩‍👩‍👧", "🏳️‍🌈", "🇬🇧", "\U0001f44d\U0001f3fd", "ﬁ", "①", "Ⅷ",
       "½", "٣", "߁", "\ufffd", "\uffff", "\x00", "\x7f", "\u00ad", "\U0010ffff", "\ue000", "ſ", "'ſ", "İ", "ß", "Å",
       "▁", "▁▁", "Ġ", "<s>", "</s>", "<unk>", "<0x41>", "<|im_start|>", "<|im_end|>", "[SEP]", "user_word"]


def fuzz(rng, count):
    """Strings of words, white-space runs, odd characters and random assigned code points."""
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(0, 14)):
            kind = rng.random()
            if kind < 0.4:
                parts.append(rng.choice(WORDS))
            elif kind < 0.7:
                parts.append(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5]))
            elif kind < 0.85:
                parts.append(rng.choice(ODD))
            else:
                parts.append("".join(random_char(rng) for _ in range(rng.randint(1, 6))))
        yield "".join(parts)


def random_char(rng):
    """A code point that every Unicode version in use agrees on (Python's database of 3.2 is the common ground)."""
    while True:
        top = rng.choice([0x80, 0x250, 0x1000, 0x10000, 0x20000])
        c = chr(rng.randrange(top))
        if unicodedata.ucd_3_2_0.category(c) not in ("Cs", "Cn") and \
                unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c):
            return c


def corpus(rng):
    return [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(2000)]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(rng, pre_tokenizer, ignore_merges):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(rng), trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=SPECIAL,
        show_progress=False))
    return t


def smollm2_like(rng):
    return byte_level(rng, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                    pre_tokenizers.ByteLevel(add_prefix_space=False)]), False)


def gpt2_like(rng):
    t = byte_level(rng, pre_tokenizers.ByteLevel(add_prefix_space=True), False)
    t.normalizer = normalizers.NFC()
    t.add_tokens([AddedToken("user_word", single_word=True), AddedToken("[SEP]", lstrip=True, rstrip=True)])
    return t


def llama3_like(rng):
    return byte_level(rng, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), True)


def llama2_like(rng, metaspace):
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if metaspace:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        t.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(" ", 1, 0)])
    with_bytes = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(corpus(rng)[:300], trainers.BpeTrainer(vocab_size=700, special_tokens=with_bytes,
                                                                 show_progress=False))
    state = json.loads(t.to_str())  # the byte tokens are ordinary vocabulary, as in Llama-2's file
    state["added_tokens"] = state["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(state))


def unknown_like(rng):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits()])
    t.decoder = decoders.Fuse()
    t.train_from_iterator(corpus(rng)[:100], trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"],
                                                                 show_progress=False))
    return t


def sentencepiece_model(rng, kind):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(rng)), model_writer=out, vocab_size=600, model_type=kind, byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2)
    return out.getvalue()


def run(driver, path, texts):
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    done = subprocess.run([driver, path], input=lines, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        sys.exit(f"{path}: the driver failed: {done.stderr}")
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def check(name, texts, got, expected, ties=False):
    """ties: the same pieces in another order are as good. The best of a unigram model's ways to cut a text is the one
    with the highest sum of scores, and between two sums that are equal the library's versions choose differently."""
    bad = tied = 0
    assert len(got) == len(texts), (len(got), len(texts))
    for text, have, (ids, decoded) in zip(texts, got, expected):
        if ties and have["ids"] != ids and sorted(have["ids"]) == sorted(ids) and have["text"] == decoded:
            tied += 1
        elif have["ids"] != ids or have["text"] != decoded:
            bad += 1
            if bad <= 3:
                print(f"  {name}: {text!r}\n    ids  {have['ids']}\n    want {ids}\n"
                      f"    text {have['text']!r}\n    want {decoded!r}")
    print(f"{name}: {len(texts) - bad} of {len(texts)} equal" + (f", {tied} of them tied" if tied else ""))
    assert tied <= 0.01 * len(texts), "more ties than chance makes"
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--count", type=int, default=3000)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    rng = random.Random(args.seed)
    texts = list(fuzz(rng, args.count)) + ["", " ", "\n" * 300, " " * 3000 + "x", "a" * 5000]
    bad = 0
    kinds = {"smollm2-like": smollm2_like, "gpt2-like": gpt2_like, "llama3-like": llama3_like,
             "llama2-like": lambda r: llama2_like(r, False), "metaspace": lambda r: llama2_like(r, True),
             "unknown": unknown_like}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in kinds.items():
            tokenizer = make(rng)
            path = os.path.join(folder, name + ".json")
            tokenizer.save(path)
            want = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
            bad += check(name, texts, run(args.driver, path, texts), [(i, tokenizer.decode(i)) for i in want])
        for kind in ("bpe", "unigram"):
            path = os.path.join(folder, kind + ".model")
            with open(path, "wb") as f:
                f.write(sentencepiece_model(rng, kind))
            model = sentencepiece.SentencePieceProcessor(model_file=path)
            plain = [t for t in texts if "\x00" not in t]
            want = [model.encode(t) for t in plain]
            bad += check("sentencepiece " + kind, plain, run(args.driver, path, plain),
                         [(i, model.decode(i)) for i in want], ties=kind == "unigram")
    smollm2 = os.environ.get("LL_SMOLLM2")
    if smollm2:
        tokenizer = Tokenizer.from_file(os.path.join(smollm2, "tokenizer.json"))
        want = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        bad += check("SmolLM2", texts, run(args.driver, smollm2, texts), [(i, tokenizer.decode(i)) for i in want])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
