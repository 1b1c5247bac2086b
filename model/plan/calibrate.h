// Measurements of this host that plans are made with: made by `ll-trainer probe`, kept in a folder
// (a user's cache, an agent's), one file a kind of device and host, and made again when stale.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/plan/devices.h"

namespace ll {

// $XDG_CACHE_HOME/ll/probes, else $HOME/.cache/ll/probes.
std::string ProbeFolder(const std::function<std::string(const std::string&)>& environment);
// This machine's name and this program's version, as a probe writes them.
std::string ThisHost();
std::string ThisBuild();

// What is kept for plans made here: of a GPU's kind the newest measurement of any host, of the CPU
// this host's alone, whose speed no other host tells. Errors name the file.
absl::StatusOr<std::map<std::string, Calibration>> KeptCalibrations(const std::string& folder,
                                                                    const std::string& host);

// Why a measurement is to be made again, or "": older than `max_age`, from the future, of another
// host or build, or without a time that can be read.
std::string WhyStale(const Calibration& kept, const std::string& host, const std::string& build,
                     absl::Time now, absl::Duration max_age);

struct CalibrateOptions {
  std::string trainer;          // the program; empty: ll-trainer beside this one
  std::string device = "auto";  // auto, cpu or cuda
  int threads = 0;              // of a CPU slot; 0: all
  absl::Duration max_age = absl::Hours(30 * 24);
  bool again = false;      // also where what is kept is fresh
  bool never_now = false;  // what is kept serves, however old; NotFound where there is nothing
};

struct CalibrateResult {
  Calibration calibration;
  std::string text;    // as the probe printed it
  std::string path;    // where it is kept
  std::string reason;  // why it was measured now; "": it was kept
};

// The kept measurement of this host's device, or a new one, which is then kept. Errors: no such
// program, a probe that failed or took longer than kProbeTimeout, a folder that cannot be written.
inline constexpr absl::Duration kProbeTimeout = absl::Minutes(2);
absl::StatusOr<CalibrateResult> Calibrate(const CalibrateOptions& options,
                                          const std::string& folder, absl::Time now);

}  // namespace ll
