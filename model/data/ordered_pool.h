// Work on several threads whose results come back in the order they were submitted.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace ll {

// Used by one thread. With one thread the work is done by Submit itself.
template <typename Item>
class OrderedPool {
 public:
  // `work` is called on the threads and must outlive the pool.
  OrderedPool(int threads, std::function<void(Item&)> work) : work_(std::move(work)) {
    for (int i = 0; threads > 1 && i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  // Waits for the items that are being worked on; drops the rest.
  ~OrderedPool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    submitted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedPool(const OrderedPool&) = delete;
  OrderedPool& operator=(const OrderedPool&) = delete;

  void Submit(std::unique_ptr<Item> item) {
    if (threads_.empty()) work_(*item);
    {
      std::lock_guard lock(mutex_);
      slots_.push_back({std::move(item), threads_.empty()});
      if (!threads_.empty()) waiting_.push_back(&slots_.back());
    }
    submitted_.notify_one();
  }
  // Items submitted and not taken.
  size_t size() const { return slots_.size(); }
  // The oldest item, once it is done. There must be one.
  std::unique_ptr<Item> Take() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return slots_.front().done; });
    std::unique_ptr<Item> item = std::move(slots_.front().item);
    slots_.pop_front();
    return item;
  }

 private:
  struct Slot {
    std::unique_ptr<Item> item;
    bool done = false;
  };
  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      submitted_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      Slot* slot = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      work_(*slot->item);
      lock.lock();
      slot->done = true;
      done_.notify_one();
    }
  }

  const std::function<void(Item&)> work_;
  std::mutex mutex_;
  std::condition_variable submitted_, done_;
  std::deque<Slot> slots_;  // a deque moves none of its elements at either end
  std::deque<Slot*> waiting_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ll
