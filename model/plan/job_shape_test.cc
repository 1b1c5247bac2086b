#include "model/plan/job_shape.h"

#include "gtest/gtest.h"
#include "model/plan/models.h"

namespace ll {
namespace {

JobSpec Spec() {
  JobSpec s;
  s.method = "longlora";
  s.context_length = 32768;
  s.gpus = 8;
  return s;
}

TEST(JobShape, ARowItsShardsAndItsGroups) {
  const LlamaConfig c = *BuiltInModel("7b");
  JobSpec s = Spec();
  EXPECT_EQ(RowTokens(c, s), 32768);
  EXPECT_EQ(GroupTokens(c, s), 8192);
  EXPECT_EQ(ShardTokens(c, s), 32768);
  s.context_parallel = 3;
  EXPECT_EQ(ShardTokens(c, s), 10923);  // the largest of three
  // Shorter rows than the context have its groups, as the trainer makes them.
  s.max_seq_length = 10000;
  EXPECT_EQ(RowTokens(c, s), 10000);
  EXPECT_EQ(GroupTokens(c, s), 8192);
  s.max_seq_length = 1000;
  EXPECT_EQ(GroupTokens(c, s), 1000);
  s.max_seq_length.reset();
  s.max_steps = 100;
  s.full_attention_steps = "10%";  // a plan must hold for those steps too
  EXPECT_EQ(GroupTokens(c, s), 32768);
  EXPECT_EQ(S2GroupTokens(c, s), 8192);
  s.kind = "eval";
  s.eval_seq_len = 4096;
  EXPECT_EQ(RowTokens(c, s), 4096);
}

TEST(JobShape, GroupsByASamplesLength) {
  JobSpec s = Spec();
  s.sft_group = "longlora_sft";
  s.context_length = 16384;  // a quarter of 16,384, and 8,192 of what 4,096 does not divide
  EXPECT_EQ(GroupTokens(*BuiltInModel("7b"), s), 8192);
  s.context_length = 65536;
  EXPECT_EQ(GroupTokens(*BuiltInModel("7b"), s), 16384);
}

TEST(JobShape, RanksAreAtLeastThoseOfOneRow) {
  JobSpec s = Spec();
  EXPECT_EQ(Ranks(s), 8);
  EXPECT_EQ(ContextRanks(s), 1);
  s.gpus.reset();
  s.context_parallel = 4;
  EXPECT_EQ(Ranks(s), 4);
}

TEST(JobShape, ProjectionsOfGroupedQueries) {
  const LlamaConfig c = *BuiltInModel("70b");
  EXPECT_EQ(QueryWidth(c), 8192);
  EXPECT_EQ(KvWidth(c), 1024);
  int64_t in_a_layer = 0;
  for (const Linear& l : Linears(c)) in_a_layer += l.in * l.out;
  EXPECT_EQ(in_a_layer, 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * int64_t{8192} * 28672);
  EXPECT_EQ(LinearParameterCount(c), 80 * in_a_layer);
}

TEST(JobShape, WhatTrains) {
  LlamaConfig c = *BuiltInModel("7b");
  JobSpec s = Spec();
  s.lora_rank = 8;
  s.target_modules = {"q_proj"};
  EXPECT_TRUE(Adapts(s, "q_proj"));
  EXPECT_FALSE(Adapts(s, "k_proj"));
  EXPECT_EQ(LoraParameterCount(c, s), 32 * 8 * (4096 + 4096));
  s.method = "full";
  EXPECT_FALSE(Adapts(s, "q_proj"));
  EXPECT_EQ(LoraParameterCount(c, s), 0);
  EXPECT_EQ(TrainableParameterCount(c, s), c.ParameterCount());
}

TEST(JobShape, ACpuEvaluatesInFp32AndTrainsInBf16) {
  JobSpec s = Spec();
  EXPECT_EQ(ElementBytes(s, /*gpu=*/false), 2);
  s.kind = "eval";
  EXPECT_EQ(ElementBytes(s, /*gpu=*/false), 4);
  EXPECT_EQ(ElementBytes(s, /*gpu=*/true), 2);
  s.precision = "fp32";
  EXPECT_EQ(ElementBytes(s, /*gpu=*/true), 4);
}

}  // namespace
}  // namespace ll
