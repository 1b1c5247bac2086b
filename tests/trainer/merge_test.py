"""Merged folders as transformers reads them: equal to the adapter beside its base, whole or not there at all."""
import json
import os
import resource
import shutil
import signal
import subprocess
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import harness
from harness import TrainerTest, read, run, train

TOKENIZER = {
    "tokenizer.json": json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(96)}, "unk_token": "w0"}}),
    "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32}),
    "chat_template.jinja": "{{ messages[0].content }}",
    "generation_config.json": json.dumps({"bos_token_id": 1, "eos_token_id": 2, "max_length": 32}),
}


class MergeTest(TrainerTest):
    def setUp(self):
        super().setUp()
        self.add_tokenizer(self.model)
        self.out = self.path("merged")

    def add_tokenizer(self, folder):
        for name, text in TOKENIZER.items():
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)

    def checkpoint(self, out="out", **changes):
        done = train(self.write_spec(save_steps=0, max_steps=3, **changes), self.path(out), timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.path(out, "checkpoints", "step-000003")

    def merge(self, adapter, *more, out=None, code=0, **options):
        done = run("merge", "--adapter", adapter, "--out", out or self.out, "--threads", 1, *more, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr.strip().splitlines()[-1]

    def logits(self, model):
        torch.manual_seed(harness.SEED)
        with torch.no_grad():
            return model.eval().float()(torch.randint(3, 96, (2, 60))).logits

    def load(self, folder=None, **options):
        return AutoModelForCausalLM.from_pretrained(folder or self.out, dtype=torch.float32, **options)

    def adapter_on(self, adapter, base=None):
        config = AutoConfig.from_pretrained(adapter if os.path.exists(os.path.join(adapter, "config.json")) else base)
        model = AutoModelForCausalLM.from_pretrained(base or self.model, config=config, dtype=torch.float32)
        return PeftModel.from_pretrained(model, adapter)

    def assert_near(self, want, got, message=None):
        """In fp32, beside the largest logit: both add the same numbers in another order."""
        self.assertLess((want - got).abs().max().item() / max(1.0, want.abs().max().item()), 1e-5, message)

    def assert_merged(self, adapter, base=None):
        want, got = self.logits(self.adapter_on(adapter, base)), self.logits(self.load())
        self.assertGreater((want - self.logits(self.load(base or self.model))).abs().max().item(), 1e-3,
                           "the adapter changes nothing, so this test shows nothing")
        self.assert_near(want, got)

    def test_a_tied_model(self):
        adapter = self.checkpoint()
        result = self.merge(adapter)
        self.assert_merged(adapter)
        self.assertEqual((result["context_length"], result["dtype"], result["shards"]), (64, "float32", 1))
        self.assertNotIn("lm_head.weight", load_file(os.path.join(self.out, "model.safetensors")))
        model = self.load()
        self.assertTrue(torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight))
        config = json.loads(read(self.out, "config.json"))
        self.assertEqual(config["max_position_embeddings"], 64)
        self.assertEqual(config["rope_scaling"]["factor"], 2.0)
        self.assertEqual(config["rope_scaling"]["original_max_position_embeddings"], 32)
        self.assertEqual(config["rope_parameters"]["factor"], 2.0)
        self.assertEqual((config["vocab_size"], config["dtype"], config["torch_dtype"]), (96, "float32", "float32"))
        # What limited the old context no longer does.
        self.assertEqual(json.loads(read(self.out, "tokenizer_config.json"))["model_max_length"], 64)
        self.assertEqual(json.loads(read(self.out, "generation_config.json"))["max_length"], 64)
        self.assertEqual(read(self.out, "chat_template.jinja"), TOKENIZER["chat_template.jinja"])
        self.assertEqual(AutoTokenizer.from_pretrained(self.out)("w7 w9")["input_ids"], [7, 9])
        # No temporary file, nothing beside it.
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith("merged")], ["merged"])
        self.assertFalse([n for n in os.listdir(self.out) if ".tmp" in n])

    def test_our_own_evaluation_agrees(self):
        adapter = self.checkpoint()
        self.merge(adapter)
        nll = []
        for args in (("--model", self.model, "--adapter", adapter), ("--model", self.out)):
            done = run("eval", "perplexity", "--data", self.data, "--seq-len", 64, "--sliding-window", 64, *args)
            nll.append(json.loads(done.stdout)["nll"])
        self.assertLess(abs(nll[0] - nll[1]), 1e-6)

    def test_an_untied_model_with_every_linear_layer_in_shards(self):
        self.model = self.make_model("untied", tie_word_embeddings=False)
        self.add_tokenizer(self.model)
        adapter = self.checkpoint(target_modules=["all-linear"], use_rslora=True)
        result = self.merge(adapter, "--max-shard-size", "30KB")
        self.assert_merged(adapter)
        shards = sorted(n for n in os.listdir(self.out) if n.endswith(".safetensors"))
        self.assertEqual(len(shards), result["shards"])
        self.assertGreater(len(shards), 3)
        self.assertEqual(shards[0], f"model-00001-of-{len(shards):05d}.safetensors")
        index = json.loads(read(self.out, "model.safetensors.index.json"))
        self.assertEqual(index["metadata"]["total_size"], result["bytes"])
        self.assertEqual(set(index["weight_map"].values()), set(shards))

    def test_an_extended_model_extended_again(self):
        """Claim 14: what was scaled by 2 and is extended by 2 has factor 4 in total."""
        self.model = self.make_model("eight", max_position_embeddings=64,
                                     rope_scaling={"type": "linear", "factor": 2.0})
        self.add_tokenizer(self.model)
        adapter = self.checkpoint(context_length=128)
        self.merge(adapter)
        config = json.loads(read(self.out, "config.json"))
        self.assertEqual((config["rope_scaling"]["factor"], config["max_position_embeddings"]), (4.0, 128))
        self.assert_merged(adapter)

    def test_dtype_of_the_weights(self):
        base = self.path("unnamed")
        shutil.copytree(self.model, base)
        config = json.loads(read(base, "config.json"))
        for key in ("dtype", "torch_dtype"):
            config.pop(key, None)
        with open(os.path.join(base, "config.json"), "w") as f:
            json.dump(config, f)
        weights = os.path.join(base, "model.safetensors")
        save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
        self.assertEqual(self.merge(base)["dtype"], "bfloat16")
        self.assertEqual(AutoModelForCausalLM.from_pretrained(base, dtype="auto").dtype, torch.bfloat16)

    def test_dtypes(self):
        adapter = self.checkpoint()
        exact = self.adapter_on(adapter).merge_and_unload().state_dict()
        for flag, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
            out = self.path(flag)
            self.assertEqual(self.merge(adapter, "--dtype", flag, out=out)["dtype"], str(dtype)[6:])
            tensors = load_file(os.path.join(out, "model.safetensors"))
            for name, tensor in tensors.items():
                self.assertEqual(tensor.dtype, dtype)
                # Rounded once: at most half a unit of the type away from the sum in fp32.
                error = (tensor.float() - exact[name]).abs().max().item()
                self.assertLessEqual(error, exact[name].abs().max().item() * torch.finfo(dtype).eps / 2 + 1e-6)

    def test_a_quantised_base_both_ways(self):
        adapter = self.checkpoint(method="longqlora", lora_rank=4, learning_rate=0.05)
        results = {}
        for onto in ("16bit", "nf4"):
            results[onto] = self.merge(adapter, "--onto", onto, "--verify", self.data, "--verify-windows", 3, out=self.path(onto))
            verify = results[onto]["verify"]
            self.assertEqual((verify["windows"], verify["seq_len"], verify["tokens"]), (3, 64, 3 * 63))
            self.assertEqual([(m["onto"], m["written"]) for m in verify["merged"]],
                             [(onto, True), ("nf4" if onto == "16bit" else "16bit", False)])
        by_onto = {m["onto"]: m for m in results["nf4"]["verify"]["merged"]}
        # The values that the adapter saw give what the adapter gave; the original ones are near.
        self.assertLess(by_onto["nf4"]["kl"], 1e-9)
        self.assertGreater(by_onto["16bit"]["kl"], 1e-6)
        self.assertLess(by_onto["16bit"]["kl"], 0.5)
        self.assertAlmostEqual(by_onto["nf4"]["nll"], results["nf4"]["verify"]["adapter_on"]["nll"], places=5)
        # Measured from the disk and made in memory are one.
        other = {m["onto"]: m for m in results["16bit"]["verify"]["merged"]}
        for onto in ("16bit", "nf4"):
            self.assertAlmostEqual(by_onto[onto]["nll"], other[onto]["nll"], places=6)
        # onto 16bit is what PEFT makes of the original weights.
        want = self.logits(self.adapter_on(adapter))
        self.assert_near(want, self.logits(self.load(self.path("16bit"))))
        # A base that lies in NF4 gives the same values.
        self.assertEqual(run("quantize", "--model", self.model, "--out", self.path("q")).returncode, 0)
        before = self.checkpoint("before", method="longqlora", lora_rank=4, learning_rate=0.05, model=self.path("q"))
        result = self.merge(before, out=self.path("from-nf4"))
        self.assertEqual(result["onto"], "nf4")
        a, b = (load_file(os.path.join(self.path(n), "model.safetensors")) for n in ("nf4", "from-nf4"))
        self.assertTrue(all((a[n] - b[n]).abs().max() < 1e-5 for n in a))
        self.assertNotIn("quantization_config", json.loads(read(self.path("from-nf4"), "config.json")))
        self.assertIn("--onto: expected nf4", self.merge(before, "--onto", "16bit", out=self.path("x"), code=20))
        dense = self.checkpoint("dense")
        self.assertIn("--onto: expected 16bit", self.merge(dense, "--onto", "nf4", out=self.path("x"), code=20))

    def test_written_in_nf4(self):
        adapter = self.checkpoint()
        self.merge(adapter, "--quantization", "nf4", "--verify", self.data)
        config = json.loads(read(self.out, "config.json"))
        self.assertEqual(config["quantization_config"]["bnb_4bit_quant_type"], "nf4")
        done = run("eval", "perplexity", "--model", self.out, "--data", self.data, "--seq-len", 64)
        self.assertEqual(done.returncode, 0, done.stderr)
        AutoModelForCausalLM.from_pretrained(self.out, device_map="cpu")

    def test_a_full_checkpoint_is_copied(self):
        checkpoint = self.checkpoint(method="full")
        result = self.merge(checkpoint, "--dtype", "bf16")
        self.assertEqual(result["adapter"], "")
        want = {n: t.to(torch.bfloat16) for n, t in load_file(os.path.join(checkpoint, "model.safetensors")).items()}
        got = load_file(os.path.join(self.out, "model.safetensors"))
        self.assertTrue(all(torch.equal(got[n], want[n]) for n in want))
        self.assertTrue(os.path.exists(os.path.join(self.out, "tokenizer.json")))
        self.assertFalse(os.path.exists(os.path.join(self.out, "optimizer-00-of-01.safetensors")))

    def peft_adapter(self, base, name="peft", **config):
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                               LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **config}))
        torch.manual_seed(harness.SEED)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.05)
        model.save_pretrained(self.path(name))
        return self.path(name), self.logits(model)

    def test_adapters_that_peft_wrote(self):
        untied = self.make_model("untied", tie_word_embeddings=False)
        self.add_tokenizer(untied)
        for i, (base, options) in enumerate((
                (self.model, {}), (self.model, {"use_rslora": True}), (self.model, {"modules_to_save": ["embed_tokens"]}),
                (self.model, {"modules_to_save": ["lm_head"]}), (untied, {"modules_to_save": ["embed_tokens", "lm_head", "norm"]}),
                (self.model, {"target_modules": ["q_proj", "lm_head"]}), (untied, {"target_modules": ["q_proj", "lm_head"]}))):
            adapter, want = self.peft_adapter(base, f"peft-{i}", **options)
            out = self.path(f"merged-{i}")
            self.merge(adapter, "--model", base, out=out)
            got = self.logits(self.load(out))
            self.assert_near(want, got, options)

    def test_positions_of_an_adapter_without_config(self):
        adapter, _ = self.peft_adapter(self.model)
        result = self.merge(adapter, "--model", self.model, "--context-length", 100)
        self.assertEqual(result["context_length"], 128)
        self.assertEqual(json.loads(read(self.out, "config.json"))["rope_scaling"]["factor"], 4.0)

    def test_more_tokens_than_the_base(self):
        """LongLoRA adds [PAD]: the adapter's embedding has a row more, the head's new row is the mean of the others."""
        self.model = self.make_model("untied", tie_word_embeddings=False)
        self.add_tokenizer(self.model)
        adapter, _ = self.peft_adapter(self.model, modules_to_save=["embed_tokens"])
        path = os.path.join(adapter, "adapter_model.safetensors")
        tensors = load_file(path)
        name = "base_model.model.model.embed_tokens.weight"
        tensors[name] = torch.cat([tensors[name], tensors[name].mean(0, keepdim=True)])
        save_file(tensors, path)
        self.merge(adapter, "--model", self.model)
        self.assertEqual(json.loads(read(self.out, "config.json"))["vocab_size"], 97)
        head = load_file(os.path.join(self.out, "model.safetensors"))["lm_head.weight"]
        self.assertTrue(torch.allclose(head[96], head[:96].mean(0), atol=1e-6))
        self.assertEqual(self.logits(self.load()).shape[-1], 97)

    def test_an_adapter_of_another_base(self):
        adapter = self.checkpoint()
        wide = self.make_model("wide", hidden_size=96)
        self.add_tokenizer(wide)
        line = self.merge(adapter, "--model", wide, code=20)
        self.assertIn("model.embed_tokens.weight", line)
        self.assertIn("another base", line)
        os.remove(os.path.join(adapter, "config.json"))  # as PEFT writes folders
        line = self.merge(adapter, "--model", wide, code=20)
        self.assertRegex(line, r"adapter_model.safetensors: base_model.model.*expected shape \[.*found \[")
        deep, _ = self.peft_adapter(self.make_model("deep", num_hidden_layers=3), "deep-adapter")
        self.assertIn("model.layers.2.", self.merge(deep, "--model", self.model, code=20))
        self.assertFalse(os.path.exists(self.out))

    def test_a_base_of_the_same_shape_is_told_apart(self):
        adapter = self.checkpoint()
        moved = self.path("moved")
        shutil.copytree(self.model, moved)
        self.merge(adapter, "--model", moved, out=self.path("fine"))
        path = os.path.join(moved, "model.safetensors")
        tensors = {n: t * 1.5 for n, t in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        line = self.merge(adapter, "--model", moved, code=20)
        self.assertIn("--model: expected the weights the adapter was trained on", line)
        self.merge(adapter, "--model", moved, "--allow-other-base")

    def test_a_missing_tokenizer(self):
        adapter = self.checkpoint()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            os.remove(os.path.join(self.model, name))
        line = self.merge(adapter, code=20)
        self.assertIn("tokenizer", line)
        self.assertIn("--allow-missing-tokenizer", line)
        self.merge(adapter, "--allow-missing-tokenizer")

    def test_damaged_weights_are_named(self):
        adapter = self.checkpoint()
        path = os.path.join(adapter, "adapter_model.safetensors")
        tensors = load_file(path)
        name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
        tensors[name][3, 1] = float("inf")
        save_file(tensors, path)
        self.assertIn("model.layers.1.self_attn.q_proj.weight: expected finite values", self.merge(adapter, code=20))
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith("merged")], [])

    # ---- what is there stays there

    def snapshot(self, folder):
        return {n: read(folder, n, mode="rb") for n in os.listdir(folder)}

    def leftovers(self):
        return [n for n in os.listdir(self.dir) if ".partial-" in n]

    def test_an_existing_folder(self):
        adapter = self.checkpoint()
        self.merge(adapter)
        before = self.snapshot(self.out)
        self.assertIn("--overwrite", self.merge(adapter, "--dtype", "bf16", code=20))
        self.assertEqual(self.snapshot(self.out), before)
        self.merge(adapter, "--dtype", "bf16", "--overwrite")
        self.assertEqual(json.loads(read(self.out, "config.json"))["dtype"], "bfloat16")
        self.assertEqual(self.leftovers(), [])
        # Nothing that was not a model, and nothing that is read.
        os.makedirs(self.path("precious"))
        self.assertIn("no config.json", self.merge(adapter, "--overwrite", out=self.path("precious"), code=20))
        for out in (self.model, self.dir, adapter):
            self.assertIn("--out", self.merge(adapter, "--overwrite", out=out, code=20))

    def test_a_disk_that_is_full(self):
        adapter = self.checkpoint()
        self.merge(adapter)
        before = self.snapshot(self.out)

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit is an error
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        line = self.merge(adapter, "--overwrite", code=30, preexec_fn=limit)
        self.assertIn("cannot write", line)
        self.assertEqual(self.snapshot(self.out), before)
        self.assertEqual(self.leftovers(), [])

    def test_a_disk_without_room(self):
        adapter = self.checkpoint()
        disk = self.path("disk")
        os.makedirs(disk)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode == 0
        if not mounted:
            print("mount is not allowed here: RLIMIT_FSIZE alone stands for a full disk")
            return
        self.addCleanup(subprocess.run, ["umount", disk])
        line = self.merge(adapter, out=os.path.join(disk, "merged"), code=30)
        self.assertIn("free space", line)
        self.assertEqual(os.listdir(disk), [])

    def start(self, adapter):
        """A merge of a larger model, caught while it writes."""
        process = subprocess.Popen([harness.TRAINER, "merge", "--adapter", adapter, "--out", self.out, "--overwrite",
                                    "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + harness.DEADLINE_S
        while process.poll() is None and time.monotonic() < deadline:
            partial = self.path(f"merged.partial-{process.pid}")
            if os.path.isdir(partial) and any(n.endswith(".tmp") for n in os.listdir(partial)):
                break
            time.sleep(0.001)
        return process

    def test_a_folder_whose_name_is_no_text(self):
        adapter, _ = self.peft_adapter(self.model)
        out = os.fsdecode(os.fsencode(self.path("merged-")) + b"\xff")
        self.assertIn("merged-\ufffd", self.merge(adapter, out=out)["out"])
        self.assertTrue(os.path.isdir(out))

    def test_killed_in_the_middle(self):
        self.model = self.make_model("large", hidden_size=768, intermediate_size=2048, num_hidden_layers=6, head_dim=128)
        self.add_tokenizer(self.model)
        adapter, _ = self.peft_adapter(self.model)
        self.merge(adapter)
        before = self.snapshot(self.out)
        for kind in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
            process = self.start(adapter)
            process.send_signal(kind)
            code = process.wait(harness.DEADLINE_S)
            self.assertNotEqual(code, 0, "the merge was over before the signal came")
            self.assertEqual(self.snapshot(self.out), before)
            self.assertEqual(len(self.leftovers()), 1 if kind == signal.SIGKILL else 0)
        self.merge(adapter, "--overwrite")  # the next run takes away what the killed one left
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(self.snapshot(self.out).keys(), before.keys())

    # ---- the card, and handing over

    def test_the_model_card(self):
        with open(os.path.join(self.model, "README.md"), "w") as f:
            f.write("---\nlicense: llama2\nlanguage: en\n---\n# base\n")
        adapter = self.checkpoint(eval_steps=2, eval_data=self.data)
        self.merge(adapter, "--verify", self.data)
        card = read(self.out, "README.md")
        self.assertTrue(card.startswith("---\nbase_model: \"model\"\nlibrary_name: transformers\n"), card[:200])
        self.assertNotIn(self.dir, card)  # it is published: no paths
        for text in ("license: llama2", "- longlora", "| context | 64 tokens |", "linear, factor 2, from 32 tokens",
                     "3 steps", "lora_rank: 8", "Perplexity while training, step 2", "merged onto 16bit (this folder)",
                     "base: model.safetensors", "adapter: MANIFEST.json", "data (fingerprint)", "convert_hf_to_gguf.py",
                     "vllm serve", "AutoModelForCausalLM.from_pretrained(\"merged\""):
            self.assertIn(text, card)
        import hashlib
        with open(os.path.join(self.model, "model.safetensors"), "rb") as f:
            self.assertIn(hashlib.sha256(f.read()).hexdigest(), card)
        try:
            from huggingface_hub import ModelCard
        except ImportError:
            return
        self.assertEqual(ModelCard(card).data.license, "llama2")

    def test_publish(self):
        self.merge(self.checkpoint())
        to = self.path("hub", "name")
        done = run("publish", self.out, "--to", to)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.snapshot(to), self.snapshot(self.out))
        self.assertEqual(len(json.loads(done.stdout)["sha256"]), len(os.listdir(to)))
        for args, words in (((self.out, "--to", to), "--overwrite"), ((self.out, "--to", "gs://bucket/x"), "s3://BUCKET"),
                            ((self.dir, "--to", self.path("y")), "no config.json")):
            done = run("publish", *args)
            self.assertEqual(done.returncode, 20)
            self.assertIn(words, done.stderr)

    def test_as_a_job(self):
        adapter = self.checkpoint()
        spec = self.path("merge.json")
        for changes, code in (({}, 0), ({"gpus": 2}, 20), ({"merge_out": "a/b"}, 20)):
            with open(spec, "w") as f:
                json.dump({"kind": "merge", "adapter": adapter, "merge_dtype": "bf16", **changes}, f)
            done = train(spec, self.path("job"))
            self.assertEqual(done.returncode, code, done.stderr)
            if code == 0:
                result = [e["result"] for e in harness.events_of(done.stdout) if e["event"] == "done"][0]
                self.assertEqual(result["out"], self.path("job", "merged"))
        self.assertEqual(self.load(self.path("job", "merged")).config.max_position_embeddings, 64)


class FlopsTest(TrainerTest):
    def test_the_papers_table(self):
        done = run("profile", "flops", "--model", "llama-2-7b", "--ctx", "8192,65536")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [line.split() for line in done.stdout.splitlines()[2:]]
        self.assertEqual(lines[0][:6] + lines[0][-2:], ["8192", "full", "35.2", "35.2", "70.9", "2.2", "24.5", "%"])
        self.assertAlmostEqual(float(lines[0][6]), 143.5, delta=0.11)
        self.assertEqual(lines[3][:3] + lines[3][-2:], ["65536", "s2", "562.9", "39.4", "%"])
        done = run("profile", "flops", "--model", self.model, "--ctx", 64, "-o", "json")
        self.assertEqual(json.loads(done.stdout)[0]["group_tokens"], 16)
        done = run("profile", "flops", "--model", "no-such", "--ctx", 64)
        self.assertEqual(done.returncode, 20)
        self.assertIn("llama-2-7b", done.stderr)


if __name__ == "__main__":
    harness.main()
