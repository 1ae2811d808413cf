// The client: a state machine that keeps readings until the server has acknowledged them.
//
// The shell around it has a network, an MQTT client, a clock and perhaps a file system. It tells what happened and calls
// next until that says kWait. Times are milliseconds since the shell started; they never jump and never wrap.
#pragma once

#include "backoff.h"
#include "clock.h"
#include "flashlog.h"
#include "message.h"
#include "reading.h"
#include "ring.h"

namespace plantops {

struct Options {
  Options();
  int64_t not_before_ms;        // an earlier time is no time; the day the sketch was compiled is a good choice
  uint32_t time_wait_ms;        // a reading waits so long for the time once the network is there; 0 for no NTP
  uint32_t ack_timeout_ms;      // then the connection is given up. The server answers or closes within 10 s
  uint32_t connect_timeout_ms;  // for TCP, TLS and MQTT together
  uint32_t join_timeout_ms;     // for the Wi-Fi
  uint32_t backoff_min_ms, backoff_max_ms;
  uint32_t heartbeat_ms;        // without a reading for so long a heartbeat is sent; 0 for none
  size_t window;                // messages on their way at the same time, 1 to kMaxWindow
  uint32_t flash_delay_ms;      // a reading that is not acknowledged by then goes to flash; 0: each one, at once
  uint32_t segment_bytes;       // of the flash log
  size_t segments;
};

// Action is what the shell has to do now.
struct Action {
  enum Kind {
    kWait,        // nothing before at_ms, unless something happens
    kJoin,        // join the Wi-Fi (again), and say networkUp when there is an address
    kConnect,     // make a new MQTT connection, then connected or disconnected
    kDisconnect,  // end the MQTT connection, whatever state it is in, then disconnected
    kRejoin,      // end the MQTT connection, then leave the Wi-Fi, then disconnected and networkDown
    kPublish,     // message to the telemetry topic with QoS 1, then published
    kHeartbeat,   // an empty message to the heartbeat topic with QoS 0
    kAskTime,     // ask NTP now
  } kind;
  uint64_t at_ms;
  const char *message;  // holds until the next call of next
  size_t length;
};

class Client {
 public:
  // storage is nullptr without flash. Nothing is allocated; state and entries are a Memory.
  Client(const Options &options, State &state, Entry *entries, size_t capacity, Storage *storage, Random random);

  // begin starts a new boot with an id that no other boot has, or goes on after a deep sleep.
  void begin(uint64_t boot);
  // wake goes on with what sleep left. false: it is damaged or never was; call begin.
  bool wake(uint64_t slept_ms);
  // sleep seals the memory; now_ms ends there.
  void sleep(uint64_t now_ms);

  // add accepts a reading taken now. false: it was not good, or could not be kept. What is accepted is sent until it is
  // acknowledged, or counted as dropped.
  bool add(const Reading &reading, uint64_t now_ms);

  void networkUp(uint64_t now_ms);
  void networkDown(uint64_t now_ms);
  void connected(uint64_t now_ms);
  void disconnected(uint64_t now_ms);
  void acknowledged(uint16_t packet_id, uint64_t now_ms);
  Clock::Answer time(int64_t epoch_ms, uint64_t now_ms);

  Action next(uint64_t now_ms);
  // published answers kPublish: the packet id, or a negative number when it could not be sent.
  void published(int packet_id);

  size_t waiting() const { return ring_.count() + (flash_ ? log_.count() : 0); }
  bool online() const { return link_ == kOnline; }
  const Clock &clock() const { return clock_; }
  int64_t unixTime(uint64_t now_ms) const { return clock_.known() ? clock_.at(life(now_ms)) : 0; }
  uint32_t dropped() const { return state_.dropped_total; }  // readings given up, and what they reported
  uint32_t unreadable() const { return flash_ ? log_.unreadable() : 0; }
  bool flashFailed() const { return flash_failed_; }

 private:
  enum Link { kOffline, kConnecting, kOnline };

  // Flight is a message on its way.
  struct Flight {
    int id;
    bool acked, aged, flash;
    Place end;         // in flash
    uint32_t dropped;  // that it reports
    uint64_t sent_ms;
  };

  uint64_t life(uint64_t now_ms) const { return life_base_ + now_ms; }
  void start();
  uint32_t sum();
  void dropOldest();
  bool flush(uint64_t now_ms);
  void date(Clock::Answer answer, const ClockState &before, uint64_t life_ms);
  int64_t epochOf(const Entry &entry, uint64_t now_ms) const;
  void settle();
  bool take(uint64_t now_ms);
  Action nextJoin(uint64_t now_ms, Action wait);
  Action nextConnect(uint64_t now_ms, Action wait);
  Action nextOnline(uint64_t now_ms, Action wait);
  Action publish(uint64_t now_ms);

  Options options_;
  State &state_;
  Ring ring_;
  Clock clock_;
  Storage *flash_;
  FlashLog log_;
  Backoff backoff_, join_backoff_;

  uint64_t life_base_;  // the life clock when now_ms was 0

  bool network_, joining_;
  uint64_t join_ms_, network_ms_, retry_join_ms_;
  Link link_;
  bool broken_;  // the connection is to be ended
  uint64_t connect_ms_, retry_connect_ms_, said_ms_;
  bool ask_time_;
  uint64_t ask_ms_;
  bool flash_failed_;
  uint64_t retry_flash_ms_, retry_read_ms_;

  // The window: first what is on its way from flash, then what is on its way from the front of the ring.
  Flight window_[kMaxWindow];
  size_t flying_;
  size_t ring_flying_;    // of them from the ring
  size_t ring_risky_;     // so many at the front of the ring may have arrived
  uint32_t flash_risky_;  // the last segment of which something may have arrived
  Place flash_next_;      // where in flash to go on

  Entry current_;  // what kPublish was about
  Flight flight_;
  char message_[kMessageBytes];
};

}  // namespace plantops
