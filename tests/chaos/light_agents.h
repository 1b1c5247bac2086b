// Agents without processes: they speak the agents' protocol over real connections, and a rank is an
// entry in a map. With them a thousand ranks run on two cores, and what is measured is the
// coordinator.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "proto/workers.grpc.pb.h"

namespace ll {

// Thread-safe. A lost connection is dialled again for as long as this lives.
class LightAgents {
 public:
  using Connect = std::function<std::shared_ptr<grpc::Channel>()>;
  // `agents` of them, light-0, light-1, …, with so many slots each.
  LightAgents(Connect connect, int agents, int slots);
  ~LightAgents();

  int connected() const { return connected_; }  // welcomed in the session that stands
  int started() const { return started_; }      // ranks, repeated orders not counted
  int ended() const { return ended_; }  // ranks that the coordinator stopped or did not keep

 private:
  struct Gang {
    std::vector<std::pair<int, int>> ranks;  // rank, slot
    std::vector<v1::Report> unacknowledged;
    int64_t sequence = 0;
  };
  using Key = std::pair<std::string, int64_t>;  // job, epoch
  struct Agent {
    std::string name, incarnation;
    std::map<Key, Gang> gangs;  // the reading thread's
    int64_t highest_term = 0;
    std::thread reader;
  };

  void Run(Agent& agent);
  void Session(Agent& agent);
  v1::AgentMessage Hello(const Agent& agent) const;
  bool Welcomed(Agent& agent, const v1::Welcome& welcome, std::vector<v1::AgentMessage>& answers);
  void Start(Agent& agent, const v1::StartGang& start, std::vector<v1::AgentMessage>& answers);
  void Stop(Agent& agent, const v1::StopGang& stop, std::vector<v1::AgentMessage>& answers);
  bool stopping() const {
    absl::MutexLock lock(&mu_);
    return stopping_;
  }

  const Connect connect_;
  const int slots_;
  std::atomic<int> connected_ = 0, started_ = 0, ended_ = 0;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::map<const Agent*, grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<Agent>> agents_;
};

}  // namespace ll
