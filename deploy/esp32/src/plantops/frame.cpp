#include "frame.h"

#include <string.h>

namespace plantops {

namespace {

const uint8_t kMark = 0xA7;

uint8_t *put(uint8_t *at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) *at++ = static_cast<uint8_t>(value >> (8 * i));
  return at;
}

uint64_t get(const uint8_t *&at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= static_cast<uint64_t>(*at++) << (8 * i);
  return value;
}

uint32_t get32(const uint8_t *&at) { return static_cast<uint32_t>(get(at, 4)); }

uint8_t *putPayload(const Frame &f, uint8_t *at) {
  switch (f.type) {
    case kReading:
      at = put(at, f.entry.life_ms, 8);
      at = put(at, static_cast<uint64_t>(f.entry.epoch_ms), 8);
      at = put(at, f.entry.boot, 8);
      at = put(at, f.entry.sequence, 4);
      at = put(at, f.entry.dropped, 4);
      at = put(at, f.entry.dropped_upto, 4);
      memcpy(at, f.entry.body, f.entry.length);
      return at + f.entry.length;
    case kTime:
      at = put(at, f.boot, 8);
      at = put(at, static_cast<uint64_t>(f.offset_ms), 8);
      return put(at, f.life_ms, 8);
    case kAcked:
      at = put(at, f.segment, 4);
      return put(at, f.offset, 4);
    case kBegin:
      at = put(at, f.segment, 4);
      at = put(at, f.dropped_total, 4);
      at = put(at, f.dropped_bound, 4);
      return put(at, f.life_ms, 8);
  }
  return at;
}

bool getPayload(Frame &f, const uint8_t *at, size_t length) {
  switch (f.type) {
    case kReading:
      if (length < 36 || length > kFramePayload) return false;
      f.entry.life_ms = get(at, 8);
      f.entry.epoch_ms = static_cast<int64_t>(get(at, 8));
      f.entry.boot = get(at, 8);
      f.entry.sequence = get32(at);
      f.entry.dropped = get32(at);
      f.entry.dropped_upto = get32(at);
      f.entry.length = static_cast<uint16_t>(length - 36);
      memcpy(f.entry.body, at, f.entry.length);
      return true;
    case kTime:
      if (length != 24) return false;
      f.boot = get(at, 8);
      f.offset_ms = static_cast<int64_t>(get(at, 8));
      f.life_ms = get(at, 8);
      return true;
    case kAcked:
      if (length != 8) return false;
      f.segment = get32(at);
      f.offset = get32(at);
      return true;
    case kBegin:
      if (length != 20) return false;
      f.segment = get32(at);
      f.dropped_total = get32(at);
      f.dropped_bound = get32(at);
      f.life_ms = get(at, 8);
      return true;
  }
  return false;
}

}  // namespace

uint32_t checksum(uint32_t before, const void *data, size_t bytes) {
  const uint8_t *at = static_cast<const uint8_t *>(data);
  uint32_t crc = ~before;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= at[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

size_t pack(const Frame &frame, uint8_t *out) {
  uint8_t *end = putPayload(frame, out + 4);
  out[0] = kMark;
  out[1] = frame.type;
  put(out + 2, static_cast<uint64_t>(end - (out + 4)), 2);
  end = put(end, checksum(0, out + 1, static_cast<size_t>(end - (out + 1))), 4);
  return static_cast<size_t>(end - out);
}

bool readFrame(Storage &storage, uint32_t segment, uint32_t offset, Frame &frame, uint32_t &next, bool &unreadable) {
  uint8_t raw[kFrameOverhead + kFramePayload];
  for (;; offset++, unreadable = true) {
    size_t have = storage.read(segment, offset, raw, sizeof raw);
    if (have < kFrameOverhead) {
      if (have > 0) unreadable = true;
      return false;
    }
    size_t skip = 0;  // to the next byte that may begin a frame, without reading again for each
    while (skip < have && raw[skip] != kMark) skip++;
    if (skip > 0) {
      offset += static_cast<uint32_t>(skip) - 1;
      continue;
    }
    size_t length = static_cast<size_t>(raw[2] | raw[3] << 8);
    if (length > kFramePayload || have < kFrameOverhead + length) continue;
    const uint8_t *sum = raw + 4 + length;
    if (checksum(0, raw + 1, 3 + length) != get32(sum)) continue;
    frame.type = static_cast<FrameType>(raw[1]);
    if (!getPayload(frame, raw + 4, length)) continue;
    next = offset + static_cast<uint32_t>(kFrameOverhead + length);
    return true;
  }
}

}  // namespace plantops
