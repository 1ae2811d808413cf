#include "client.h"

#include <string.h>

namespace plantops {

namespace {

const uint64_t kNever = UINT64_MAX;
const uint32_t kFlashRetryMs = 60000;
const uint32_t kAskTimeMs = 15000;  // NTP servers refuse who asks more often

Action action(Action::Kind kind) { return Action{kind, 0, nullptr, 0}; }

// due tells whether at has come; if not, the wait ends no later.
bool due(uint64_t now, uint64_t at, Action &wait) {
  if (now >= at) return true;
  if (at < wait.at_ms) wait.at_ms = at;
  return false;
}

size_t windowOf(const Options &options, size_t capacity) {
  size_t window = options.window < 1 ? 1 : options.window > kMaxWindow ? kMaxWindow : options.window;
  return window > capacity / 2 ? capacity / 2 : window;
}

}  // namespace

Options::Options()
    : not_before_ms(kYear2020Ms),
      time_wait_ms(30000),
      ack_timeout_ms(10000),
      connect_timeout_ms(30000),
      join_timeout_ms(20000),
      backoff_min_ms(1000),
      backoff_max_ms(60000),
      heartbeat_ms(60000),
      window(4),
      flash_delay_ms(10000),
      segment_bytes(16384),
      segments(16) {}

Client::Client(const Options &options, State &state, Entry *entries, size_t capacity, Storage *storage, Random random)
    : options_(options),
      state_(state),
      ring_(state, entries, capacity),
      clock_(state.clock, options.not_before_ms),
      flash_(storage),
      log_(storage, state, options.segment_bytes, options.segments),
      backoff_(options.backoff_min_ms, options.backoff_max_ms, random),
      join_backoff_(options.backoff_min_ms, options.backoff_max_ms, random),
      life_base_(0),
      network_(false),
      joining_(false),
      join_ms_(0),
      network_ms_(0),
      retry_join_ms_(0),
      link_(kOffline),
      broken_(false),
      connect_ms_(0),
      retry_connect_ms_(0),
      said_ms_(0),
      ask_time_(false),
      ask_ms_(0),
      flash_failed_(false),
      retry_flash_ms_(0),
      retry_read_ms_(0),
      flying_(0),
      ring_flying_(0),
      ring_risky_(0),
      flash_risky_(0),
      flash_next_{0, 0} {
  options_.window = windowOf(options, capacity);
}

void Client::begin(uint64_t boot) {
  memset(&state_, 0, sizeof state_);
  state_.boot = boot;
  start();
}

void Client::start() {
  if (flash_ == nullptr) return;
  uint64_t remembered = log_.open();
  if (remembered > life_base_) life_base_ = remembered;
  flash_next_ = log_.head();
}

// sum is a checksum of the state and of the readings that it counts; never 0.
uint32_t Client::sum() {
  const size_t skip = sizeof state_.seal;
  uint32_t crc = checksum(0, reinterpret_cast<const uint8_t *>(&state_) + skip, sizeof state_ - skip);
  for (size_t i = 0; i < ring_.count(); i++) crc = checksum(crc, &ring_.at(i), sizeof(Entry));
  return crc | 1;
}

void Client::sleep(uint64_t now_ms) {
  state_.life_ms = life(now_ms);
  state_.seal = sum();
}

bool Client::wake(uint64_t slept_ms) {
  uint32_t seal = state_.seal;
  state_.seal = 0;
  if (seal == 0 || ring_.count() > ring_.capacity() || state_.first >= ring_.capacity() || seal != sum()) return false;
  life_base_ = state_.life_ms + slept_ms;
  clock_.slept(slept_ms);
  ring_risky_ = ring_.count() < options_.window ? ring_.count() : options_.window;  // of the time before
  start();
  return true;
}

bool Client::add(const Reading &reading, uint64_t now_ms) {
  if (!reading.good()) return false;
  if (ring_.full()) flush(now_ms);
  if (ring_.full()) dropOldest();
  Entry entry;
  memset(&entry, 0, sizeof entry);
  entry.life_ms = life(now_ms);
  if (clock_.sure(entry.life_ms)) entry.epoch_ms = clock_.at(entry.life_ms);
  entry.boot = state_.boot;
  entry.sequence = ++state_.sequence;
  entry.dropped = state_.dropped_total - state_.dropped_bound;
  entry.dropped_upto = state_.dropped_bound = state_.dropped_total;
  entry.length = static_cast<uint16_t>(reading.length());
  memcpy(entry.body, reading.body(), reading.length());
  ring_.push(entry);
  if (options_.flash_delay_ms == 0 && now_ms >= retry_flash_ms_) flush(now_ms);
  return true;
}

// dropOldest gives up the oldest reading of the ring that cannot have arrived. Its number is reported by the next
// reading that is added, and what it reported itself with it: the sum stays right.
void Client::dropOldest() {
  size_t i = ring_risky_ < ring_.count() ? ring_risky_ : ring_.count() - 1;
  state_.dropped_total += 1 + ring_.at(i).dropped;
  ring_.remove(i);
}

// flush moves the ring to flash. false: not all of it. What is on its way from the ring is sent again from flash; for
// the server it is the same reading.
bool Client::flush(uint64_t now_ms) {
  if (flash_ == nullptr) return false;
  flying_ -= ring_flying_;
  ring_flying_ = 0;
  bool sure = clock_.sure(life(now_ms));
  while (ring_.count() > 0) {
    Entry *some[8];
    size_t n = 0;
    for (; n < 8 && n < ring_.count(); n++) {
      some[n] = &ring_.at(n);
      if (sure && some[n]->epoch_ms == 0) some[n]->epoch_ms = clock_.at(some[n]->life_ms);
    }
    size_t written = log_.append(some, n, life(now_ms), flash_risky_);
    ring_.popFront(written);
    if (ring_risky_ > 0 && written > 0) flash_risky_ = log_.last();
    ring_risky_ = ring_risky_ > written ? ring_risky_ - written : 0;
    flash_failed_ = written < n;
    if (flash_failed_) {
      retry_flash_ms_ = now_ms + kFlashRetryMs;
      return false;
    }
  }
  return true;
}

void Client::networkUp(uint64_t now_ms) {
  network_ = true;
  joining_ = false;
  network_ms_ = now_ms;
  retry_connect_ms_ = now_ms;
  join_backoff_.succeeded();
}

void Client::networkDown(uint64_t now_ms) {
  network_ = joining_ = false;
  retry_join_ms_ = now_ms + join_backoff_.failed();
}

void Client::connected(uint64_t now_ms) {
  link_ = kOnline;
  said_ms_ = now_ms;
}

void Client::disconnected(uint64_t now_ms) {
  link_ = kOffline;
  broken_ = false;
  flying_ = ring_flying_ = 0;
  if (flash_ != nullptr) flash_next_ = log_.head();
  retry_connect_ms_ = now_ms + backoff_.failed();
}

void Client::acknowledged(uint16_t packet_id, uint64_t) {
  for (size_t i = 0; i < flying_; i++) {
    if (window_[i].id != packet_id || window_[i].acked) continue;
    window_[i].acked = true;
    backoff_.succeeded();
    break;
  }
  settle();
}

// settle lets go of what is acknowledged, in order.
void Client::settle() {
  size_t done = 0;
  for (; done < flying_ && window_[done].acked; done++) {
    const Flight &f = window_[done];
    if (f.flash) {
      log_.acknowledged(f.end, f.dropped);
      continue;
    }
    ring_.popFront(1);
    ring_flying_--;
    if (ring_risky_ > 0) ring_risky_--;
  }
  flying_ -= done;
  for (size_t i = 0; i < flying_; i++) window_[i] = window_[i + done];
}

Clock::Answer Client::time(int64_t epoch_ms, uint64_t now_ms) {
  ClockState before = state_.clock;
  Clock::Answer answer = clock_.answered(epoch_ms, life(now_ms));
  if (answer == Clock::kDoubted) {
    ask_time_ = true;
    ask_ms_ = now_ms + kAskTimeMs;
  } else if (answer != Clock::kRefused) {
    ask_time_ = false;
    date(answer, before, life(now_ms));
  }
  return answer;
}

// date gives the readings that wait their time. Between two answers the life clock is stretched to fit both: the slow
// clock of deep sleep is some percent wrong, but always the same.
void Client::date(Clock::Answer answer, const ClockState &before, uint64_t life_ms) {
  int64_t moved = state_.clock.offset_ms - before.offset_ms;
  uint64_t from = answer == Clock::kAdjusted ? before.synced_life_ms : life_ms;
  for (size_t i = 0; i < ring_.count(); i++) {
    Entry &entry = ring_.at(i);
    if (entry.epoch_ms != 0) {
      if (answer == Clock::kStepped) entry.epoch_ms += moved;
      continue;
    }
    entry.epoch_ms = clock_.at(entry.life_ms);
    if (entry.life_ms > from && entry.life_ms < life_ms) {
      double part = static_cast<double>(life_ms - entry.life_ms) / static_cast<double>(life_ms - from);
      entry.epoch_ms -= static_cast<int64_t>(static_cast<double>(moved) * part);
    }
  }
  bool news = answer != Clock::kAdjusted || moved > 500 || moved < -500;
  if (news && flash_ != nullptr) log_.dated(state_.boot, clock_.offset(), life_ms);
}

// epochOf is 0 when only the age is known. A reading of an earlier boot that never had the time is at least as old as
// the life clock says, which lacks the time without power.
int64_t Client::epochOf(const Entry &entry, uint64_t now_ms) const {
  int64_t offset;
  if (entry.epoch_ms != 0) return entry.epoch_ms;
  if (entry.boot == state_.boot) return clock_.sure(life(now_ms)) ? clock_.at(entry.life_ms) : 0;
  if (log_.offsetOf(entry.boot, offset)) return static_cast<int64_t>(entry.life_ms) + offset;
  return 0;
}

Action Client::next(uint64_t now_ms) {
  Action wait = action(Action::kWait);
  wait.at_ms = kNever;
  if (flash_ != nullptr && ring_.count() > 0 && ring_flying_ == 0) {
    uint64_t age = life(now_ms) - ring_.at(0).life_ms;
    uint64_t at = age >= options_.flash_delay_ms ? now_ms : now_ms + options_.flash_delay_ms - age;
    if (at < retry_flash_ms_) at = retry_flash_ms_;
    if (due(now_ms, at, wait)) flush(now_ms);
  }
  if (broken_ || (!network_ && link_ != kOffline)) return action(Action::kDisconnect);
  if (!network_) return nextJoin(now_ms, wait);
  if (ask_time_ && due(now_ms, ask_ms_, wait)) {
    ask_ms_ = now_ms + kAskTimeMs;
    return action(Action::kAskTime);
  }
  return link_ == kOnline ? nextOnline(now_ms, wait) : nextConnect(now_ms, wait);
}

Action Client::nextJoin(uint64_t now_ms, Action wait) {
  if (!due(now_ms, joining_ ? join_ms_ + options_.join_timeout_ms : retry_join_ms_, wait)) return wait;
  if (joining_) {  // it takes too long: again, later
    networkDown(now_ms);
    due(now_ms, retry_join_ms_, wait);
    return wait;
  }
  joining_ = true;
  join_ms_ = now_ms;
  return action(Action::kJoin);
}

Action Client::nextConnect(uint64_t now_ms, Action wait) {
  if (link_ == kConnecting) {
    if (!due(now_ms, connect_ms_ + options_.connect_timeout_ms, wait)) return wait;
    broken_ = true;
    return action(Action::kDisconnect);
  }
  if (!due(now_ms, retry_connect_ms_, wait)) return wait;
  link_ = kConnecting;
  connect_ms_ = now_ms;
  return action(Action::kConnect);
}

Action Client::nextOnline(uint64_t now_ms, Action wait) {
  if (flying_ > 0 && due(now_ms, window_[0].sent_ms + options_.ack_timeout_ms, wait)) {
    // What carries an age must not arrive late. Only leaving the Wi-Fi throws away what TCP would still send.
    bool aged = false;
    for (size_t i = 0; i < flying_; i++) aged = aged || window_[i].aged;
    broken_ = true;
    return action(aged ? Action::kRejoin : Action::kDisconnect);
  }
  bool timeless = !clock_.sure(life(now_ms)) && !due(now_ms, network_ms_ + options_.time_wait_ms, wait);
  if (!timeless && flying_ < options_.window && take(now_ms)) return publish(now_ms);
  if (options_.heartbeat_ms > 0 && due(now_ms, said_ms_ + options_.heartbeat_ms, wait)) {
    said_ms_ = now_ms;
    return action(Action::kHeartbeat);
  }
  return wait;
}

// take finds the oldest reading that is not on its way.
bool Client::take(uint64_t now_ms) {
  size_t from_flash = flying_ - ring_flying_;
  if (ring_flying_ == 0 && flash_ != nullptr && log_.count() > from_flash && now_ms >= retry_read_ms_) {
    Place end = flash_next_;
    if (log_.next(end, current_)) {
      flight_ = Flight{-1, false, false, true, end, current_.dropped, now_ms};
      return true;
    }
    retry_read_ms_ = now_ms + kFlashRetryMs;  // it was there: the flash cannot be read now
  }
  if (ring_flying_ >= ring_.count()) return false;
  current_ = ring_.at(ring_flying_);
  flight_ = Flight{-1, false, false, false, {0, 0}, current_.dropped, now_ms};
  return true;
}

Action Client::publish(uint64_t now_ms) {
  Action publish = action(Action::kPublish);
  int64_t epoch = epochOf(current_, now_ms);
  uint64_t now = life(now_ms);
  flight_.aged = epoch <= 0;
  publish.message = message_;
  publish.length = encode(current_, epoch, now > current_.life_ms ? now - current_.life_ms : 0, message_);
  // Whatever becomes of it, it may arrive from here on.
  if (flight_.flash) {
    flash_next_ = flight_.end;
    if (flash_risky_ < flight_.end.segment) flash_risky_ = flight_.end.segment;
  } else if (ring_risky_ <= ring_flying_) {
    ring_risky_ = ring_flying_ + 1;
  }
  said_ms_ = now_ms;
  return publish;
}

void Client::published(int packet_id) {
  if (packet_id < 0) {
    broken_ = true;
    return;
  }
  flight_.id = packet_id;
  window_[flying_++] = flight_;
  if (!flight_.flash) ring_flying_++;
}

}  // namespace plantops
