// How long to wait before the next attempt.
#pragma once

#include <stdint.h>

namespace plantops {

typedef uint32_t (*Random)();  // 32 random bits

// Backoff doubles from shortest to longest and takes a random half of it off, so that devices that lost their
// server together do not come back together.
class Backoff {
 public:
  Backoff(uint32_t shortest_ms, uint32_t longest_ms, Random random)
      : shortest_(shortest_ms), longest_(longest_ms), next_(shortest_ms), random_(random) {}

  uint32_t failed() {
    uint32_t wait = next_;
    next_ = next_ > longest_ / 2 ? longest_ : next_ * 2;
    return wait - random_() % (wait / 2 + 1);
  }
  void succeeded() { next_ = shortest_; }

 private:
  uint32_t shortest_, longest_, next_;
  Random random_;
};

}  // namespace plantops
