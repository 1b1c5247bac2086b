#include <tuple>
#include <utility>

#include "absl/hash/hash.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/job_plan.h"
#include "rpc/metric_families.h"

namespace ll {
namespace {

// Every member by name: where one is added, this does not compile until it is compared too.
auto All(const LlamaConfig& c) {
  const auto& [model_type, vocab, hidden, intermediate, layers, heads, kv_heads, head_dim,
               positions, eps, theta, initializer, rope, tied, pad, window, windowed, dtype,
               quantized, raw] = c;
  return std::tie(model_type, vocab, hidden, intermediate, layers, heads, kv_heads, head_dim,
                  positions, eps, theta, initializer, rope, tied, pad, window, windowed, dtype,
                  quantized, raw);
}
auto All(const Cluster& c) {
  const auto& [device, rates, slots, per_host, memory_factor] = c;
  const auto& [kind, memory_bytes] = device;
  const auto& [peak, gemm, attention, gemm_fp8, memory, gemm_fp32, attention_fp32, elementwise,
               loss, expansion, optimizer, extra_keys, extra_ranks, rank_wait, link, host, network,
               power, measured, shares_cores, nominal] = rates;
  return std::tie(kind, memory_bytes, peak, gemm, attention, gemm_fp8, memory, gemm_fp32,
                  attention_fp32, elementwise, loss, expansion, optimizer, extra_keys, extra_ranks,
                  rank_wait, link, host, network, power, measured, shares_cores, nominal, slots,
                  per_host, memory_factor);
}
bool Equal(const std::vector<Cluster>& a, const std::vector<Cluster>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Cluster& x, const Cluster& y) { return All(x) == All(y); });
}

// Of what may be large.
size_t BytesOf(const PlanQuestion& question, const PlanAnswer& answer) {
  return SpecToProto(question.given).ByteSizeLong() +
         SpecToProto(question.resolved).ByteSizeLong() + question.config->raw.dump().size() +
         answer.forecast.ByteSizeLong();
}

}  // namespace

bool PlanQuestion::operator==(const PlanQuestion& other) const {
  return any_worker == other.any_worker && given == other.given && resolved == other.resolved &&
         Equal(clusters, other.clusters) &&
         (config == other.config || All(*config) == All(*other.config));
}

// Of what differs between most questions; equality decides.
size_t HashOf(const PlanQuestion& question) {
  const JobSpec& spec = question.resolved;
  int64_t slots = 0;
  for (const Cluster& cluster : question.clusters) slots += cluster.slots;
  return absl::HashOf(spec.model, spec.context_length, spec.method, spec.gpus, spec.max_steps,
                      spec.global_batch_size, question.config->hidden_size, slots);
}

PlanCache::PlanCache(prometheus::Registry& registry, size_t most, size_t most_bytes)
    : PlanCache(CounterOf(registry, "ll_forecast_cache_lookups_total",
                          "Forecasts that submits asked for, by whether one like it had been made "
                          "before (hit, miss)."),
                most, most_bytes) {}

PlanCache::PlanCache(CounterFamily& lookups, size_t most, size_t most_bytes)
    : hits_(lookups.Add({{"result", "hit"}})),
      misses_(lookups.Add({{"result", "miss"}})),
      most_(most),
      most_bytes_(most_bytes) {}

std::shared_ptr<const PlanAnswer> PlanCache::Ask(PlanQuestion question, const Prices& prices) {
  {
    absl::MutexLock lock(&mu_);
    if (const auto place = places_.find(&question); place != places_.end()) {
      entries_.splice(entries_.begin(), entries_, place->second);
      hits_.Increment();
      return place->second->answer;
    }
  }
  misses_.Increment();
  auto answer = std::make_shared<const PlanAnswer>(AnswerOf(question, prices));
  const size_t bytes = BytesOf(question, *answer);
  absl::MutexLock lock(&mu_);
  if (places_.contains(&question)) return answer;  // somebody was as quick
  entries_.push_front({std::move(question), answer, bytes});
  places_.emplace(&entries_.front().question, entries_.begin());
  bytes_ += bytes;
  while (entries_.size() > most_ || bytes_ > most_bytes_) {
    bytes_ -= entries_.back().bytes;
    places_.erase(&entries_.back().question);
    entries_.pop_back();
  }
  return answer;
}

}  // namespace ll
