// What a reading is while it waits, and the memory it waits in.
//
// Everything in this folder is plain C++11 without Arduino, sockets, clocks or heap: events and the time come in,
// actions go out. The folder above it is the thin shell for the ESP32.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace plantops {

const size_t kBodyBytes = 194;     // the metrics of one reading, as JSON without braces
const size_t kMessageBytes = 352;  // a whole message; what message.cpp adds to a body fits
const size_t kMaxWindow = 16;      // messages on their way at the same time, at most

// Entry is one accepted reading. Its identity for the server is boot and sequence, whatever else changes.
// It has no constructor: arrays of it live in memory that survives deep sleep.
struct Entry {
  uint64_t life_ms;       // the life clock (clock.h) when it was taken
  int64_t epoch_ms;       // Unix time when it was taken, 0 while nobody knows
  uint64_t boot;          // of the boot that took it
  uint32_t sequence;      // counts up within the boot, from 1
  uint32_t dropped;       // readings given up that this one reports, 0 for none
  uint32_t dropped_upto;  // the device's running number of the last of them
  uint16_t length;        // of body
  char body[kBodyBytes];  // "soil_moisture":45.2,"temperature":null
};

// ClockState is what the clock keeps through deep sleep.
struct ClockState {
  int64_t offset_ms;         // Unix time minus life clock
  uint64_t synced_life_ms;   // when the last good answer came
  int64_t doubted_offset_ms; // of an answer that contradicts the clock and waits for a second one
  uint32_t slept_error_ms;   // how wrong the sleeps since the last good answer may have made it
  uint8_t known;             // offset_ms holds
  uint8_t doubted;           // doubted_offset_ms holds
};

// State is what the client keeps through deep sleep, before the readings themselves.
struct State {
  uint32_t seal;  // 0 while awake, else a checksum of the rest and of the readings
  uint32_t sequence;
  uint64_t boot;
  uint64_t life_ms;        // the life clock when it was sealed
  uint32_t dropped_total;  // readings given up so far
  uint32_t dropped_bound;  // of them, those that some entry reports
  uint16_t first, count;   // the ring
  ClockState clock;
};

// Memory holds up to N readings. Make it a global variable; RTC_DATA_ATTR in front keeps it through deep sleep.
template <size_t N>
struct Memory {
  static_assert(N >= 8 && N <= 4096, "between 8 and 4096 readings");
  State state;
  Entry entries[N];
};

}  // namespace plantops
