// What time it is, and how sure that is.
#pragma once

#include "entry.h"

namespace plantops {

const int64_t kYear2020Ms = 1577836800000LL;
const int64_t kYear2100Ms = 4102444800000LL;

// Clock relates two clocks. The life clock counts milliseconds and never jumps: it is the uptime, continued through
// deep sleep and, by what the flash remembers, through a restart (then it lacks the time without power). Unix time is
// the life clock plus an offset that answers of NTP give.
//
// An answer before not_before (no earlier than 2020) or after 2100 is refused. One that contradicts a clock that was
// set already is believed when a second one says the same; until then the old time holds.
class Clock {
 public:
  explicit Clock(ClockState &state, int64_t not_before_ms = kYear2020Ms)
      : s_(state), not_before_ms_(not_before_ms > kYear2020Ms ? not_before_ms : kYear2020Ms) {}

  enum Answer {
    kRefused,   // impossible
    kFirst,     // the first one: what was taken before can be dated now
    kAdjusted,  // agrees with the clock
    kDoubted,   // contradicts it: ask again
    kStepped,   // the second that contradicts it: the clock was wrong before
  };

  // answered takes what NTP said when the life clock showed life_ms.
  Answer answered(int64_t epoch_ms, uint64_t life_ms);

  // slept says that ms of the life clock were measured by the slow clock of deep sleep, which may be 5 % wrong.
  void slept(uint64_t ms);

  // sure tells whether at() is right to a second: a quartz of 10 ppm takes 27 hours to be a second wrong.
  bool sure(uint64_t now_ms) const { return s_.known && error(now_ms) <= kMaxErrorMs; }
  bool known() const { return s_.known != 0; }
  bool doubted() const { return s_.doubted != 0; }
  int64_t at(uint64_t life_ms) const { return static_cast<int64_t>(life_ms) + s_.offset_ms; }
  int64_t offset() const { return s_.offset_ms; }

 private:
  static const uint64_t kMaxErrorMs = 1000;
  uint64_t error(uint64_t now_ms) const;

  ClockState &s_;
  int64_t not_before_ms_;
};

}  // namespace plantops
