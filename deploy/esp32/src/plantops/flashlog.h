// The readings that wait in flash, oldest first: records that are only ever appended to segments, and segments that
// are only ever removed as a whole. Nothing is written twice in one place, which is what flash likes.
#pragma once

#include "frame.h"

namespace plantops {

const size_t kMaxSegments = 64;
const size_t kMaxBoots = 16;  // whose time is remembered

// Place is where a record lies, or where the next one will be looked for.
struct Place {
  uint32_t segment, offset;
};

class FlashLog {
 public:
  // max_segments is 3 to kMaxSegments. state has the numbers of readings given up.
  FlashLog(Storage *storage, State &state, uint32_t segment_bytes, size_t max_segments);

  // open finds what is there. It returns the highest time of the life clock that was written, 0 without any.
  uint64_t open();

  size_t count() const { return count_; }       // readings that are not acknowledged
  Place head() const { return head_; }          // of the oldest of them
  uint32_t last() const { return used_ > 0 ? segments_[used_ - 1].id : 0; }
  uint32_t unreadable() const { return unreadable_; }  // damaged places that open met

  // next reads the first reading at or after place and moves place behind it. false: there is none.
  bool next(Place &place, Entry &entry);

  // append writes readings, the time of the life clock being life_ms, and returns how many it wrote. When there is no
  // room the oldest segment is given up, but none up to keep, of which something has been sent and may have arrived.
  size_t append(Entry *const *entries, size_t n, uint64_t life_ms, uint32_t keep);

  // acknowledged says that the oldest reading, which ends at place and reports dropped, is with the server.
  void acknowledged(Place place, uint32_t dropped);

  // dated remembers the time of a boot: Unix time minus life clock.
  void dated(uint64_t boot, int64_t offset_ms, uint64_t life_ms);
  bool offsetOf(uint64_t boot, int64_t &offset_ms) const;

 private:
  struct Segment {
    uint32_t id, bytes;
    uint32_t readings;  // not acknowledged
    uint32_t loss;      // those, and what they report
  };
  struct Found {
    Place acked;
    uint64_t life_ms;
    uint32_t bound;
  };

  static void visit(void *context, uint32_t segment, uint32_t bytes);
  void scan(Found &found);
  void tally();
  void seen(const Frame &frame, Found &found);
  void remember(uint64_t boot, int64_t offset_ms);
  bool room(size_t bytes, uint64_t life_ms, uint32_t keep);
  bool begin(uint64_t life_ms, uint32_t keep);
  bool makeRoom(uint32_t keep);
  size_t victim(uint32_t keep) const;
  void giveUp(size_t i);
  void forget(size_t i);
  void removeDone();
  bool write(const uint8_t *data, size_t bytes);

  Storage *storage_;  // nullptr: nobody calls anything that needs it
  State &state_;
  uint32_t segment_bytes_;
  size_t max_segments_;

  Segment segments_[kMaxSegments];
  size_t used_;
  size_t count_;
  Place head_;
  uint32_t next_id_;
  uint32_t unreadable_;
  uint32_t unmarked_;  // acknowledged since the last kAcked
  bool full_;          // the last write said so
  bool torn_;          // the last write failed, so nobody knows where the last segment ends: another one is begun

  struct {
    uint64_t boot;
    int64_t offset_ms;
  } boots_[kMaxBoots];
  size_t boots_used_;

  Frame frame_;  // too large for the stack of a small task
  uint8_t batch_[1024];
};

}  // namespace plantops
