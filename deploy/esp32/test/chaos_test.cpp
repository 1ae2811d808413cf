// The client with everything failing at random, at once.
#include "rig.h"

// chaos runs a device through everything at once and returns how many readings are neither stored nor reported.
static void chaos(uint64_t seed, bool with_flash, bool power_cuts, bool with_time) {
  Dice d(seed);
  Rig r;
  r.with_flash = with_flash;
  r.options.flash_delay_ms = power_cuts || d.one_in(2) ? 0 : 10000;
  r.options.segment_bytes = 1024;
  r.options.segments = 3 + d.below(6);
  r.options.time_wait_ms = with_time ? 30000 : 0;
  r.options.window = 1 + d.below(6);
  r.boot();
  bool cuts_happened = false;
  for (int step = 0; step < 400; step++) {
    try {
      switch (d.below(12)) {
        case 0: r.radio = !d.one_in(3); break;
        case 1: r.serving = !d.one_in(3); break;
        case 2: r.acking = !d.one_in(3); break;
        case 3:
          if (r.online) r.cut();
          break;
        case 4:
          if (!r.radio || d.one_in(4)) {
            if (r.online) r.cut();
            r.client->networkDown(r.now());
          }
          break;
        case 5:
          if (with_time && d.one_in(3)) r.ntp();
          break;
        case 6:
          if (with_flash) r.flash.broken = d.one_in(5);
          break;
        case 7:
          if (power_cuts && d.one_in(4)) r.flash.budget = static_cast<long>(d.below(3000));
          break;
        default:
          for (uint32_t i = d.below(12); i > 0; i--) {
            r.world_ms += d.below(3000);
            // A power cut in the middle of add: not accepted. It may come again for all that.
            Reading reading;
            reading.set("n", r.accepted + 1);
            r.truth[r.accepted + 1] = r.utc();
            r.accepted++;
            bool ok = false;
            try {
              ok = r.client->add(reading, r.now());
            } catch (PowerCut) {
              r.truth.erase(r.accepted);
              throw;
            }
            CHECK(ok);
            if (power_cuts && r.flash.broken) r.truth.erase(r.accepted);  // in memory only: what a power cut takes is no promise
            if (power_cuts && r.client->flashFailed()) r.truth.erase(r.accepted);
          }
      }
      r.run(d.below(20) == 0 ? 60000 : d.below(3000));
    } catch (PowerCut) {
      cuts_happened = true;
      r.flash.budget = -1;
      r.flash.broken = false;
      r.world_ms += d.below(5000);
      r.boot();
    }
  }
  r.flash.broken = false;
  r.flash.budget = -1;
  r.run(120000);
  if (with_time) r.ntp();
  r.drain();
  r.add();  // carries the last report
  r.drain();
  auto got = r.server.byNumber();
  long long missing = 0;
  for (auto &t : r.truth) missing += got.count(t.first) == 0;
  long long reported = r.server.dropped;
  if (cuts_happened) {
    CHECK(missing <= reported);
  } else if (!with_flash) {
    EQUAL(reported, missing);
  } else {
    CHECK(missing <= reported && reported <= missing + static_cast<long long>(r.options.window));
  }
  for (auto &s : got) {
    if (r.truth.count(s.first) == 0) continue;
    long long off = llabs(s.second.epoch - r.truth[s.first]);
    // Only who lost the power before it ever had the time may be older than it says.
    CHECK(off < 200 || (cuts_happened && s.second.aged));
  }
}

TEST(chaosInMemory) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, false, false, seed % 3 != 0);
}
TEST(chaosWithFlash) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, true, false, seed % 3 != 0);
}
TEST(chaosWithFlashAndPowerCuts) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, true, true, seed % 3 != 0);
}
