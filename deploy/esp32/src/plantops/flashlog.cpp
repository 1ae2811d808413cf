#include "flashlog.h"

namespace plantops {

namespace {

const uint32_t kKeepAll = UINT32_MAX;
const uint32_t kMarkEvery = 32;  // acknowledged readings: so many may be sent again after a power cut

bool before(Place a, Place b) { return a.segment < b.segment || (a.segment == b.segment && a.offset < b.offset); }

}  // namespace

FlashLog::FlashLog(Storage *storage, State &state, uint32_t segment_bytes, size_t max_segments)
    : storage_(storage),
      state_(state),
      segment_bytes_(segment_bytes < 1024 ? 1024 : segment_bytes),
      max_segments_(max_segments < 3 ? 3 : max_segments > kMaxSegments ? kMaxSegments : max_segments),
      used_(0),
      count_(0),
      head_{0, 0},
      next_id_(1),
      unreadable_(0),
      unmarked_(0),
      full_(false),
      torn_(false),
      boots_used_(0) {}

uint64_t FlashLog::open() {
  storage_->list(visit, this);
  Found found = {{0, 0}, 0, 0};
  scan(found);
  head_ = found.acked;
  tally();
  if (found.bound > state_.dropped_bound) state_.dropped_bound = found.bound;
  if (state_.dropped_total < state_.dropped_bound) state_.dropped_total = state_.dropped_bound;
  removeDone();
  return found.life_ms;
}

// visit collects the segments in order. More than there is room for cannot be ours; the newest stay.
void FlashLog::visit(void *context, uint32_t segment, uint32_t bytes) {
  FlashLog &log = *static_cast<FlashLog *>(context);
  if (segment == 0) return;
  if (log.used_ == kMaxSegments) {
    if (segment < log.segments_[0].id) return;
    log.forget(0);
  }
  size_t i = log.used_++;
  for (; i > 0 && log.segments_[i - 1].id > segment; i--) log.segments_[i] = log.segments_[i - 1];
  log.segments_[i] = {segment, bytes, 0, 0};
  if (segment >= log.next_id_) log.next_id_ = segment + 1;
}

void FlashLog::scan(Found &found) {
  for (size_t i = 0; i < used_; i++) {
    bool bad = false;
    uint32_t gone = 0, offset = 0;
    while (readFrame(*storage_, segments_[i].id, offset, frame_, offset, bad)) {
      seen(frame_, found);
      if (frame_.type == kBegin) gone = frame_.segment;
    }
    if (bad) unreadable_++;
    // The power went after this segment had taken the place of another one and before that was removed.
    for (size_t j = 0; gone != 0 && j < i; j++) {
      if (segments_[j].id != gone) continue;
      storage_->remove(gone);
      forget(j);
      i--;
      break;
    }
  }
}

void FlashLog::seen(const Frame &f, Found &found) {
  uint64_t life = f.life_ms;
  switch (f.type) {
    case kReading:
      life = f.entry.life_ms;
      if (f.entry.dropped_upto > found.bound) found.bound = f.entry.dropped_upto;
      break;
    case kTime:
      remember(f.boot, f.offset_ms);
      break;
    case kAcked:
      if (before(found.acked, {f.segment, f.offset})) found.acked = {f.segment, f.offset};
      return;
    case kBegin:
      if (f.dropped_total > state_.dropped_total) state_.dropped_total = f.dropped_total;
      if (f.dropped_bound > found.bound) found.bound = f.dropped_bound;
      break;
  }
  if (life > found.life_ms) found.life_ms = life;
}

// tally counts what is not acknowledged.
void FlashLog::tally() {
  for (size_t i = 0; i < used_; i++) {
    Segment &s = segments_[i];
    bool bad = false;
    for (uint32_t at = 0, next = 0; readFrame(*storage_, s.id, at, frame_, next, bad); at = next) {
      if (frame_.type != kReading || before({s.id, next - 1}, head_)) continue;
      s.readings++;
      s.loss += 1 + frame_.entry.dropped;
      count_++;
    }
  }
}

bool FlashLog::next(Place &place, Entry &entry) {
  for (size_t i = 0; i < used_; i++) {
    uint32_t id = segments_[i].id;
    if (id < place.segment) continue;
    if (id > place.segment) place = {id, 0};
    bool bad = false;
    while (readFrame(*storage_, id, place.offset, frame_, place.offset, bad)) {
      if (place.offset > segments_[i].bytes) break;  // of a write that failed; it is not counted and was kept elsewhere
      if (frame_.type != kReading) continue;
      entry = frame_.entry;
      return true;
    }
  }
  return false;
}

size_t FlashLog::append(Entry *const *entries, size_t n, uint64_t life_ms, uint32_t keep) {
  size_t written = 0;
  int refused = 0;
  while (written < n) {
    if (!room(kFrameOverhead + kFramePayload, life_ms, keep)) return written;
    Segment &s = segments_[used_ - 1];
    size_t bytes = 0, packed = 0;
    uint32_t loss = 0;
    while (written + packed < n && bytes + kFrameOverhead + kFramePayload <= sizeof batch_ &&
           s.bytes + bytes + kFrameOverhead + kFramePayload <= segment_bytes_) {
      const Entry &entry = *entries[written + packed];
      frame_.type = kReading;
      frame_.entry = entry;
      bytes += pack(frame_, batch_ + bytes);
      loss += 1 + entry.dropped;
      packed++;
    }
    if (!write(batch_, bytes)) {
      if (!full_ || ++refused > 2 || !makeRoom(keep)) return written;
      continue;
    }
    if (count_ == 0) head_ = {s.id, s.bytes - static_cast<uint32_t>(bytes)};
    s.readings += static_cast<uint32_t>(packed);
    s.loss += loss;
    count_ += packed;
    written += packed;
  }
  return written;
}

// room makes sure that the last segment takes so many bytes.
bool FlashLog::room(size_t bytes, uint64_t life_ms, uint32_t keep) {
  if (used_ > 0 && !torn_ && segments_[used_ - 1].bytes + bytes <= segment_bytes_) return true;
  return begin(life_ms, keep);
}

// begin starts a new segment. The readings that have to go for it are counted in its first record before they go.
bool FlashLog::begin(uint64_t life_ms, uint32_t keep) {
  for (int refused = 0;; refused++) {
    size_t goes = used_ >= max_segments_ ? victim(keep) : used_;
    bool evicts = goes < used_;
    if (used_ == kMaxSegments && !evicts) return false;
    uint32_t loss = evicts ? segments_[goes].loss : 0;
    frame_.type = kBegin;
    frame_.segment = evicts ? segments_[goes].id : 0;
    frame_.dropped_total = state_.dropped_total + loss;
    frame_.dropped_bound = state_.dropped_bound;
    frame_.life_ms = life_ms;
    uint32_t id = next_id_++;
    size_t bytes = pack(frame_, batch_);
    Storage::Written written = storage_->append(id, batch_, bytes);
    full_ = written == Storage::kFull;
    if (written == Storage::kWritten) {
      if (evicts) giveUp(goes);
      segments_[used_++] = {id, static_cast<uint32_t>(bytes), 0, 0};
      torn_ = false;
      return true;
    }
    storage_->remove(id);  // whatever there is of it
    if (!full_ || refused > 0 || !makeRoom(keep)) return false;
  }
}

// makeRoom gives a segment up when the file system is full before max_segments are in use: not even a record of it can
// be written, so a power cut right now would lose the count.
bool FlashLog::makeRoom(uint32_t keep) {
  size_t goes = victim(keep);
  if (goes == used_) return false;
  giveUp(goes);
  return true;
}

// victim is the oldest segment that may go, used_ for none. Of those up to keep something may have arrived, so they
// stay while there is another one.
size_t FlashLog::victim(uint32_t keep) const {
  if (keep == kKeepAll) return used_;
  for (size_t i = 0; i + 1 < used_; i++) {
    if (segments_[i].id > keep || segments_[i].readings == 0) return i;
  }
  return used_ > 1 ? 0 : used_;
}

void FlashLog::giveUp(size_t i) {
  storage_->remove(segments_[i].id);
  state_.dropped_total += segments_[i].loss;
  count_ -= segments_[i].readings;
  forget(i);
}

void FlashLog::forget(size_t i) {
  used_--;
  for (; i < used_; i++) segments_[i] = segments_[i + 1];
}

bool FlashLog::write(const uint8_t *data, size_t bytes) {
  Segment &s = segments_[used_ - 1];
  Storage::Written written = storage_->append(s.id, data, bytes);
  full_ = written == Storage::kFull;
  torn_ = written != Storage::kWritten;
  if (!torn_) s.bytes += static_cast<uint32_t>(bytes);
  return !torn_;
}

void FlashLog::acknowledged(Place place, uint32_t dropped) {
  for (size_t i = 0; i < used_; i++) {
    Segment &s = segments_[i];
    if (s.id != place.segment || s.readings == 0) continue;
    s.readings--;
    s.loss -= 1 + dropped;
    count_--;
  }
  if (before(head_, place)) head_ = place;
  unmarked_++;
  removeDone();
  if (count_ > 0 && unmarked_ >= kMarkEvery && used_ > 0 && !torn_) {
    frame_.type = kAcked;
    frame_.segment = head_.segment;
    frame_.offset = head_.offset;
    size_t bytes = pack(frame_, batch_);
    if (segments_[used_ - 1].bytes + bytes <= segment_bytes_) write(batch_, bytes);
    unmarked_ = 0;
  }
}

// removeDone removes the segments at the front of which nothing is left. The last one goes only with everything.
void FlashLog::removeDone() {
  while (used_ > 0 && segments_[0].readings == 0 && (used_ > 1 || count_ == 0)) {
    if (!storage_->remove(segments_[0].id)) return;  // the next acknowledgement tries again
    forget(0);
  }
  if (used_ == 0) unmarked_ = 0;
}

void FlashLog::dated(uint64_t boot, int64_t offset_ms, uint64_t life_ms) {
  remember(boot, offset_ms);
  if (count_ == 0 || !room(kFrameOverhead + 24, life_ms, kKeepAll)) return;
  frame_.type = kTime;
  frame_.boot = boot;
  frame_.offset_ms = offset_ms;
  frame_.life_ms = life_ms;
  size_t bytes = pack(frame_, batch_);
  write(batch_, bytes);
}

void FlashLog::remember(uint64_t boot, int64_t offset_ms) {
  size_t i = 0;
  while (i < boots_used_ && boots_[i].boot != boot) i++;
  if (i == kMaxBoots) {  // the oldest is forgotten
    for (i = 0; i + 1 < kMaxBoots; i++) boots_[i] = boots_[i + 1];
    boots_used_--;
  }
  if (i == boots_used_) boots_used_++;
  boots_[i].boot = boot;
  boots_[i].offset_ms = offset_ms;
}

bool FlashLog::offsetOf(uint64_t boot, int64_t &offset_ms) const {
  for (size_t i = 0; i < boots_used_; i++) {
    if (boots_[i].boot != boot) continue;
    offset_ms = boots_[i].offset_ms;
    return true;
  }
  return false;
}

}  // namespace plantops
