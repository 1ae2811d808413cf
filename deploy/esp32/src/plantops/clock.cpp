#include "clock.h"

namespace plantops {

namespace {

const uint64_t kToleranceMs = 2000;  // between two answers beyond what the clock itself may be wrong

uint64_t distance(int64_t a, int64_t b) { return a > b ? static_cast<uint64_t>(a - b) : static_cast<uint64_t>(b - a); }

}  // namespace

uint64_t Clock::error(uint64_t now_ms) const {
  uint64_t since = now_ms > s_.synced_life_ms ? now_ms - s_.synced_life_ms : 0;
  return s_.slept_error_ms + since / 100000;  // 10 ppm
}

void Clock::slept(uint64_t ms) {
  uint64_t error = s_.slept_error_ms + ms / 20;
  s_.slept_error_ms = error > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(error);
}

Clock::Answer Clock::answered(int64_t epoch_ms, uint64_t life_ms) {
  if (epoch_ms < not_before_ms_ || epoch_ms >= kYear2100Ms) return kRefused;
  int64_t offset = epoch_ms - static_cast<int64_t>(life_ms);
  Answer answer = kFirst;
  if (s_.known) {
    // A quartz may be 100 ppm off in the heat, ten times what is expected of it.
    uint64_t tolerance = kToleranceMs + s_.slept_error_ms + 10 * (error(life_ms) - s_.slept_error_ms);
    if (distance(offset, s_.offset_ms) <= tolerance) {
      answer = kAdjusted;
    } else if (s_.doubted && distance(offset, s_.doubted_offset_ms) <= tolerance) {
      answer = kStepped;
    } else {
      s_.doubted = 1;
      s_.doubted_offset_ms = offset;
      return kDoubted;
    }
  }
  s_.known = 1;
  s_.doubted = 0;
  s_.offset_ms = offset;
  s_.synced_life_ms = life_ms;
  s_.slept_error_ms = 0;
  return answer;
}

}  // namespace plantops
