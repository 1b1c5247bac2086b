// Whole command lines against a coordinator in this process: output, requests, errors and exit
// codes.
#pragma once

#include "llctl/cli.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include "base/fake_clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "llctl/errors.h"
#include "llctl/fake_coordinator.h"
#include "nlohmann/json.hpp"

namespace ll {

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

class CliTest : public ::testing::Test {
 protected:
  struct Told : std::stringbuf {
    explicit Told(const std::function<void(const std::string&)>& hear) : hear(hear) {}
    std::streamsize xsputn(const char* bytes, std::streamsize size) override {
      const std::streamsize taken = std::stringbuf::xsputn(bytes, size);
      if (hear) hear(str());
      return taken;
    }
    const std::function<void(const std::string&)>& hear;
  };

  void SetUp() override {
    variables_["LLCTL_COORDINATOR"] = coordinator_.address();
    variables_["LL_DATA_DIR"] = folder_.path();
    coordinator_.job.set_job_id("job-000000000001");
    coordinator_.job.set_state(v1::QUEUED);
    coordinator_.job.set_reason("waits for 2 slots");
  }

  Outcome Run(const std::vector<std::string>& arguments, bool terminal = false) {
    Told told(on_output_);
    std::ostream out(&told);
    std::ostringstream err;
    const Environment environment = {
        .variable = [this](const std::string& name) { return variables_[name]; },
        .out = out,
        .err = err,
        .out_is_terminal = terminal,
        .columns = 80,
        .rows = 24,
        .clock = RealClock(),
        .random = random_,
        .interrupt = interrupt_,
    };
    const int code = RunLlctl(arguments, environment);
    return {code, told.str(), err.str()};
  }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_.path() + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  v1::WatchResponse JobMessage(v1::JobState state, const std::string& reason = "") {
    v1::WatchResponse message;
    *message.mutable_job() = coordinator_.job;
    message.mutable_job()->set_state(state);
    message.mutable_job()->set_reason(reason);
    message.mutable_job()->mutable_progress()->set_max_steps(4);
    return message;
  }
  static v1::WatchResponse StepMessage(int64_t step) {
    v1::WatchResponse message;
    message.mutable_step()->set_step(step);
    message.mutable_step()->set_loss(3.5 - 0.25 * static_cast<double>(step));
    message.mutable_step()->set_tokens_per_second(1234);
    message.mutable_step()->set_step_seconds(2);
    return message;
  }

  FakeCoordinator coordinator_;
  std::map<std::string, std::string> variables_;
  const TempDir folder_;
  // Is told all output so far after each piece of it.
  std::function<void(const std::string&)> on_output_;
  SeededRandom random_{7};
  Interrupt interrupt_;
};

}  // namespace ll
