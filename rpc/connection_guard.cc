#include "rpc/connection_guard.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <grpcpp/server_context.h>
#include <linux/tcp.h>  // glibc's tcp_info ends before the bytes received
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"
#include "rpc/connection_ledger.h"

namespace ll {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

// A look takes some 3 us a socket. Headers come at up to 700 MB/s over loopback.
constexpr absl::Duration kLeastPause = absl::Milliseconds(20), kMostPause = absl::Seconds(1);
constexpr absl::Duration kPausePerSocket = absl::Milliseconds(1);
constexpr absl::Duration kForgiveEvery = absl::Seconds(10), kKeepGone = absl::Seconds(5);

// What grpc::ServerContext::peer() says of the same address: IPv4 also where it came through IPv6.
std::string PeerName(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return absl::StrCat("ipv4:", text, ":", ntohs(v4.sin_port));
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof text);
    return absl::StrCat("ipv4:", text, ":", ntohs(v6.sin6_port));
  }
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  return absl::StrCat("ipv6:%5B", text, "%5D:", ntohs(v6.sin6_port));
}

int PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET
                   ? reinterpret_cast<const sockaddr_in&>(address).sin_port
                   : reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

struct OpenSocket {
  int fd;
  ConnectionLedger::Socket facts;
};

// The connections that this process accepted at `port`.
std::vector<OpenSocket> SocketsAt(int port) {
  std::vector<OpenSocket> out;
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return out;
  const absl::Cleanup close = [folder] { closedir(folder); };
  while (const dirent* entry = readdir(folder)) {
    int fd = 0;
    if (!absl::SimpleAtoi(entry->d_name, &fd)) continue;
    tcp_info info = {};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) continue;  // no TCP socket
    sockaddr_storage here = {}, there = {};
    socklen_t here_size = sizeof here, there_size = sizeof there;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&here), &here_size) != 0 ||
        PortOf(here) != port ||
        getpeername(fd, reinterpret_cast<sockaddr*>(&there), &there_size) != 0) {
      continue;  // another socket, or the one that listens
    }
    out.push_back({fd, {PeerName(there), static_cast<int64_t>(info.tcpi_bytes_received)}});
  }
  return out;
}

// The socket stays gRPC's, which closes it when it finds the connection gone. Unlike shutdown(2)
// this also drops what came and was not read yet: thousands of streams.
void Disconnect(int fd) {
  sockaddr none = {};
  none.sa_family = AF_UNSPEC;
  if (connect(fd, &none, sizeof none) != 0) shutdown(fd, SHUT_RDWR);
}

class Guard : public ConnectionGuard {
 public:
  explicit Guard(std::function<void(const std::string&)> hung_up) : hung_up_(std::move(hung_up)) {}
  ~Guard() override {
    {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
      stopped_.SignalAll();
    }
    if (looker_.joinable()) looker_.join();
  }

  std::shared_ptr<grpc::AuthMetadataProcessor> Processor() override;
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> Factory() override;

  void Watch(int port) override {
    port_ = port;
    looker_ = std::thread([this] { LookOften(); });
  }

  void Arrived(ConnectionLedger::Identity connection) {
    std::string peer;
    if (!ledger_.CallArrived(connection, &peer)) return;
    if (peer.empty()) peer = Busiest();
    if (!peer.empty()) HangUp(peer);
  }
  void Began(ConnectionLedger::Identity connection, const std::string& peer) {
    if (connection != nullptr) ledger_.ArrivedCallBegan(connection, peer);
    if (ledger_.CallBegan(peer)) HangUp(peer);
  }
  void Ended(const std::string& peer, bool given_up) {
    if (ledger_.CallEnded(peer, given_up)) HangUp(peer);
  }
  void MessageCame(const std::string& peer) { ledger_.MessageCame(peer); }

 private:
  // The connection that brought the most bytes since the last look: while calls arrive by the
  // thousand that is the one that sends them. Were it another one, its client comes again.
  std::string Busiest() {
    std::string busiest;
    int64_t most = 0;
    const std::vector<OpenSocket> sockets = SocketsAt(port_);
    absl::MutexLock lock(&mutex_);
    for (const OpenSocket& socket : sockets) {
      const auto before = received_.find(socket.facts.peer);
      const int64_t came =
          socket.facts.bytes_received - (before == received_.end() ? 0 : before->second);
      if (came > most && !gone_.contains(socket.facts.peer)) {
        most = came;
        busiest = socket.facts.peer;
      }
    }
    return busiest;
  }

  void HangUp(const std::string& peer) {
    {
      absl::MutexLock lock(&mutex_);
      // Calls of a connection that is gone still end.
      if (!gone_.emplace(peer, RealClock().Steady() + kKeepGone).second) return;
    }
    for (const OpenSocket& socket : SocketsAt(port_)) {
      if (socket.facts.peer == peer) Disconnect(socket.fd);
    }
    hung_up_(peer);
  }

  void LookOften() {
    absl::Duration pause = kLeastPause, unforgiven;
    while (true) {
      for (absl::Duration slept;
           slept < pause && !(slept > absl::ZeroDuration() && ledger_.Crowded());
           slept += kLeastPause) {
        absl::MutexLock lock(&mutex_);
        if (stopped_.AwaitFor(mutex_, kLeastPause, [this] { return stop_; })) return;
      }
      std::vector<ConnectionLedger::Socket> sockets;
      absl::flat_hash_map<std::string, int64_t> received;
      for (OpenSocket& socket : SocketsAt(port_)) {
        received[socket.facts.peer] = socket.facts.bytes_received;
        sockets.push_back(std::move(socket.facts));
      }
      for (const std::string& peer : ledger_.Look(sockets)) HangUp(peer);
      {
        absl::MutexLock lock(&mutex_);
        const absl::Duration now = RealClock().Steady();
        absl::erase_if(gone_, [now](const auto& entry) { return entry.second < now; });
        received_ = std::move(received);
      }
      pause = std::clamp(kPausePerSocket * sockets.size(), kLeastPause, kMostPause);
      unforgiven += pause;
      if (unforgiven >= kForgiveEvery) {
        ledger_.Forgive();
        unforgiven = absl::ZeroDuration();
      }
    }
  }

  const std::function<void(const std::string&)> hung_up_;
  ConnectionLedger ledger_;
  std::atomic<int> port_ = 0;
  absl::Mutex mutex_;
  SteadyCondVar stopped_;  // stop_
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<std::string, absl::Duration> gone_
      ABSL_GUARDED_BY(mutex_);                                                  // hung up of late
  absl::flat_hash_map<std::string, int64_t> received_ ABSL_GUARDED_BY(mutex_);  // at the last look
  std::thread looker_;
};

// Some address within what gRPC holds of the connection's identity; null where it holds nothing.
ConnectionLedger::Identity IdentityOf(const grpc::AuthContext& context) {
  auto first = context.begin();
  return first == context.end() ? nullptr : (*first).first.data();
}

// Runs where the transport reads, before anything else of the call.
class ArrivalProcessor : public grpc::AuthMetadataProcessor {
 public:
  explicit ArrivalProcessor(Guard& guard) : guard_(guard) {}
  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata&, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    if (const auto connection = IdentityOf(*context)) guard_.Arrived(connection);
    return grpc::Status::OK;
  }

 private:
  Guard& guard_;
};

// Lives as long as its call is at work.
class GuardedCall : public grpc::experimental::Interceptor {
 public:
  GuardedCall(Guard& guard, ServerRpcInfo* info, std::string peer)
      : guard_(guard), info_(info), peer_(std::move(peer)) {
    guard_.Began(IdentityOf(*info_->server_context()->auth_context()), peer_);
  }
  ~GuardedCall() override { guard_.Ended(peer_, !answered_); }

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE))
      guard_.MessageCame(peer_);
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS))
      answered_ = !info_->server_context()->IsCancelled();
    methods->Proceed();
  }

 private:
  Guard& guard_;
  ServerRpcInfo* info_;
  const std::string peer_;
  bool answered_ = false;
};

class GuardFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit GuardFactory(Guard& guard) : guard_(guard) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    std::string peer = info->server_context()->peer();
    if (!absl::StartsWith(peer, "ipv")) return nullptr;
    return new GuardedCall(guard_, info, std::move(peer));
  }

 private:
  Guard& guard_;
};

std::shared_ptr<grpc::AuthMetadataProcessor> Guard::Processor() {
  return std::make_shared<ArrivalProcessor>(*this);
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> Guard::Factory() {
  return std::make_unique<GuardFactory>(*this);
}

}  // namespace

std::unique_ptr<ConnectionGuard> ConnectionGuard::Create(
    std::function<void(const std::string&)> hung_up) {
  return std::make_unique<Guard>(std::move(hung_up));
}

}  // namespace ll
