"""The frozen base divided over the ranks: the same losses, bit for bit, in less memory."""
import harness
from harness import Gang, TrainerTest, losses


class ShardBaseTest(TrainerTest):
    def gang(self, out, world, codes=None, **spec):
        gang = Gang(self.write_spec(f"{out}.yaml", **spec), self.path(out), world)
        self.assertEqual(gang.wait(), codes or [0] * world, gang.stderr)
        return gang

    def test_same_bits_as_a_whole_base(self):
        for world, spec in ((2, dict(global_batch_size=3, zero_stage=2)), (3, dict(method="longqlora", global_batch_size=4, max_steps=4)),
                            (4, dict(precision="bf16", context_parallel=2, recompute="full", global_batch_size=3)),
                            (2, dict(eval_data=self.data, eval_steps=2, eval_seq_len=480, max_steps=2, global_batch_size=1))):
            runs = [self.gang(f"{world}-{len(spec)}-{divided}", world, shard_base=divided, **spec) for divided in (False, True)]
            whole, divided = (losses(run.events[0]) for run in runs)
            self.assertGreater(len(whole), 0)
            self.assertEqual(whole, divided)
            perplexities = [[e["perplexity"] for e in run.events[0] if e["event"] == "eval"] for run in runs]
            self.assertEqual(perplexities[0], perplexities[1])
            self.assertEqual(len(perplexities[0]), 1 if "eval_data" in spec else 0)

    def test_a_rank_holds_less(self):
        model = self.make_model("large", hidden_size=512, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=8,
                                num_key_value_heads=8, head_dim=64)
        base = 4 * 16 * (4 * 512 * 512 + 3 * 512 * 2048)  # bytes of fp32 matrices
        peaks = {}
        for divided in (False, True):
            gang = self.gang(f"large-{divided}", 2, model=model, shard_base=divided, max_steps=1, global_batch_size=2, save_steps=0,
                             trainable=["none"])
            peaks[divided] = [e["peak_bytes"] for e in gang.events[0] if e["event"] == "step"][0]
        saved = peaks[False] - peaks[True]
        print(f"base {base / 1e6:.0f} MB: a rank of two peaks at {peaks[False] / 1e6:.0f} MB with all of it, "
              f"at {peaks[True] / 1e6:.0f} MB with a half", flush=True)
        # Half of the base, less the two buffers of one of 16 layers.
        self.assertGreater(saved, 0.8 * (base / 2 - 2 * base / 16))

    def test_what_does_not_go_together_is_named(self):
        for changes, text in ((dict(method="full"), "method full"), (dict(eval_data=self.data, eval_steps=2, passkey_lengths=[64]), "passkey_lengths")):
            gang = self.gang("refused", 1, codes=[20], shard_base=True, **changes)
            self.assertIn("shard_base", gang.stderr[0])
            self.assertIn(text, gang.stderr[0])


if __name__ == "__main__":
    harness.main()
