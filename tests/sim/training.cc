#include "tests/sim/training.h"

#include <algorithm>

#include "coordinator/core/retry.h"

namespace ll::sim {
namespace {
// The trainer's: of class USER and INFRASTRUCTURE.
constexpr int kExitBadInput = 20, kExitLostPeer = 30;
std::string Name(const GangKey& key) { return absl::StrCat(key.first.value(), "/", key.second); }
}  // namespace

void Training::StartRank(RankStart start) {
  const GangKey key = start.gang;
  const int rank = start.rank;
  const bool first = gangs_.count(key) == 0;
  Gang& gang = gangs_[key];
  if (!gang.ever.insert(rank).second)
    world_.Violation(absl::StrCat(Name(key), " rank ", rank, " was started twice"));
  int64_t from = 0;
  if (!start.resume_from.empty()) {
    const auto written = checkpoints_.find(start.resume_from);
    if (written == checkpoints_.end() || (!shared_ && written->second.host != start.host)) {
      world_.Violation(absl::StrCat(Name(key), " cannot read its checkpoint ", start.resume_from,
                                    " from ", start.host));
    } else {
      from = written->second.step;
    }
  }
  if (first) {
    gang.world_size = start.world_size;
    gang.hangs = world_.Chance(0.3);
    gang.step = from;
    newest_epoch_[key.first] = std::max(newest_epoch_[key.first], key.second);
    world_.After(absl::Seconds(1), [this, key] { Tick(key); });
  }
  if (start.world_size != gang.world_size || rank >= gang.world_size)
    world_.Violation(absl::StrCat(Name(key), " rank ", rank, " of ", start.world_size,
                                  " joins a gang of ", gang.world_size));
  world_.Trace(absl::StrCat("rank ", Name(key), "#", rank, " runs on ", start.host));
  gang.alive[rank] = RankProcess{std::move(start), rank == 0, false};
  if (rank != 0) return;
  world_.After(world_.Between(absl::Milliseconds(10), absl::Seconds(2)), [this, key] {
    if (Alive(key, 0))
      gangs_[key].alive[0].start.on_event(R"({"event":"rendezvous","address":"host:1"})");
  });
}

void Training::Rendezvous(const GangKey& key, int rank) {
  if (Alive(key, rank)) gangs_[key].alive[rank].rendezvous = true;
}

void Training::RequestStop(const GangKey& key, int rank) {
  if (Alive(key, rank)) gangs_[key].alive[rank].stop = true;
}

void Training::Kill(const GangKey& key, int rank) {
  auto it = gangs_.find(key);
  if (it != gangs_.end()) it->second.alive.erase(rank);
}

void Training::Doom(const GangKey& key, int rank) {
  if (Alive(key, rank)) gangs_[key].alive[rank].doomed = true;
}

bool Training::Alive(const GangKey& key, int rank) const {
  auto it = gangs_.find(key);
  return it != gangs_.end() && it->second.alive.count(rank) > 0;
}

std::vector<Training::LivingRank> Training::Living(const JobId& job) const {
  std::vector<LivingRank> living;
  for (auto it = gangs_.lower_bound({job, 0}); it != gangs_.end() && it->first.first == job; ++it) {
    for (const auto& [rank, process] : it->second.alive)
      living.push_back({it->first.second, process.start.host, process.doomed});
  }
  return living;
}

void Training::Exit(const GangKey& key, int rank, int code, int signal, absl::Duration delay) {
  world_.After(delay, [this, key, rank, code, signal] {
    // What is being killed ends by that alone.
    if (!Alive(key, rank) || gangs_[key].alive[rank].doomed) return;
    const RankStart ended = std::move(gangs_[key].alive[rank].start);
    gangs_[key].alive.erase(rank);
    ended.on_exit({code, signal});
  });
}

void Training::CrashRandomRank() {
  std::vector<std::pair<GangKey, int>> all, stopping;
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [rank, process] : gang.alive) {
      all.push_back({key, rank});
      if (process.stop || gang.ending) stopping.push_back({key, rank});
    }
  }
  if (!stopping.empty() && world_.Chance(0.7)) all = std::move(stopping);
  if (all.empty()) return;
  const auto& [key, rank] = all[world_.random.Below(all.size())];
  world_.Trace(absl::StrCat("fault: rank ", Name(key), "#", rank, " crashes"));
  if (world_.Chance(0.1)) return Exit(key, rank, kExitBadInput, 0, absl::ZeroDuration());
  Exit(key, rank, -1, 11, absl::ZeroDuration());
}

void Training::CrashPeerOf(const std::string& host) {
  for (const auto& [key, gang] : gangs_) {
    const auto is_there = [&host](const auto& rank) { return rank.second.start.host == host; };
    const auto there = std::find_if(gang.alive.begin(), gang.alive.end(), is_there);
    const auto elsewhere = std::find_if_not(gang.alive.begin(), gang.alive.end(), is_there);
    if (there == gang.alive.end() || elsewhere == gang.alive.end()) continue;
    world_.Trace(absl::StrCat("fault: rank ", Name(key), "#", elsewhere->first, " crashes"));
    return Exit(key, elsewhere->first, -1, 11, absl::ZeroDuration());
  }
}

void Training::WriteCheckpoint(const GangKey& key, Gang& gang) {
  if (newest_epoch_[key.first] > key.second) {
    world_.Violation(absl::StrCat(Name(key), " writes a checkpoint after epoch ",
                                  newest_epoch_[key.first], " began"));
  }
  ++checkpoints_written_;
  const RankStart& writer = gang.alive.at(0).start;
  const std::string path = absl::StrCat(writer.out, "/checkpoints/step-", gang.step);
  if (!writer.files->MakeDirs(path).ok()) return;  // a warning of the trainer; it goes on
  checkpoints_[path] = {gang.step, writer.host};
  writer.on_event(absl::StrCat(R"({"event":"checkpoint","step":)", gang.step, R"(,"path":")", path,
                               R"(","manifest_sha256":"hash"})"));
}

// Once a second while a rank lives.
void Training::Tick(const GangKey& key) {
  Gang& gang = gangs_[key];
  if (gang.alive.empty() && gang.ticks > 0) return;
  ++gang.ticks;
  world_.After(absl::Seconds(1), [this, key] { Tick(key); });
  bool whole = static_cast<int>(gang.alive.size()) == gang.world_size, stop = false;
  for (const auto& [rank, process] : gang.alive) {
    whole = whole && process.rendezvous && !process.doomed;
    stop = stop || process.stop;
  }
  if (gang.ending) return;
  if (!whole) {
    // A missing peer is noticed sooner or later; a rendezvous gives up.
    for (const auto& [rank, process] : gang.alive) {
      const bool gives_up = !gang.hangs && (gang.trained ? world_.Chance(0.2) : gang.ticks > 60);
      if (process.stop && !gang.trained) {
        Exit(key, rank, -1, 15, absl::ZeroDuration());
      } else if (gives_up) {
        Exit(key, rank, kExitLostPeer, 0, world_.Between(absl::ZeroDuration(), absl::Seconds(1)));
      }
    }
    return;
  }
  const auto defined = work_.find(key.first);
  const Work work = defined == work_.end() ? kScheduledWork : defined->second;
  if (!gang.trained) {
    gang.trained = true;
    for (const auto& [rank, process] : gang.alive) {
      process.start.on_event(
          absl::StrCat(R"({"event":"phase","phase":"train","step":)", gang.step, "}"));
    }
    return;
  }
  if (gang.step < work.steps) ++gang.step;
  const bool done = gang.step >= work.steps;
  if (done || stop || gang.step % work.checkpoint_every == 0) WriteCheckpoint(key, gang);
  if (!done && !stop) return;
  gang.ending = true;
  if (done) {
    gang.alive.at(0).start.on_event(
        absl::StrCat(R"({"event":"done","result":{"steps":)", gang.step, "}}"));
  }
  for (const auto& [rank, process] : gang.alive) {
    Exit(key, rank, done ? kExitDone : kExitCheckpointed, 0,
         world_.Between(absl::ZeroDuration(), absl::Seconds(3)));
  }
}

}  // namespace ll::sim
