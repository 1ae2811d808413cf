// How records lie in a segment: a mark, the type, the length, the payload, and a checksum of the last three. A record
// that a power cut tore has a wrong checksum and is passed over.
#pragma once

#include "entry.h"
#include "storage.h"

namespace plantops {

uint32_t checksum(uint32_t before, const void *data, size_t bytes);  // CRC-32, start with 0

enum FrameType : uint8_t {
  kReading = 1,  // an Entry
  kTime = 2,     // a boot got the time
  kAcked = 3,    // everything before a place is acknowledged
  kBegin = 4,    // the first of a segment, which may have taken the place of another one
};

const size_t kFrameOverhead = 8;
const size_t kFramePayload = 36 + kBodyBytes;

// Frame is any record. Which fields count depends on type.
struct Frame {
  FrameType type;
  Entry entry;               // kReading
  uint64_t boot;             // kTime
  int64_t offset_ms;         // kTime: Unix time minus life clock
  uint64_t life_ms;          // kTime, kBegin: when it was written
  uint32_t segment;          // kAcked: the place; kBegin: the segment that had to go, 0 for none
  uint32_t offset;           // kAcked: the place
  uint32_t dropped_total;    // kBegin
  uint32_t dropped_bound;    // kBegin
};

// pack writes a frame into out, which has kFrameOverhead + kFramePayload bytes, and returns its length.
size_t pack(const Frame &frame, uint8_t *out);

// readFrame finds the first good frame of a segment at or after offset. next is where to go on. unreadable becomes true
// when something else lay before it. false: there is none.
bool readFrame(Storage &storage, uint32_t segment, uint32_t offset, Frame &frame, uint32_t &next, bool &unreadable);

}  // namespace plantops
