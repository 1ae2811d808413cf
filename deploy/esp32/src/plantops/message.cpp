#include "message.h"

#include <string.h>

namespace plantops {

namespace {

// Text appends; encode's worst case is 150 bytes and a body, and kMessageBytes holds it.
struct Text {
  char *at;

  void add(const char *s, size_t n) {
    memcpy(at, s, n);
    at += n;
  }
  void add(const char *s) { add(s, strlen(s)); }
  void add(uint64_t n) {
    char digits[20];
    size_t first = sizeof digits;
    do {
      digits[--first] = static_cast<char>('0' + n % 10);
      n /= 10;
    } while (n > 0);
    add(digits + first, sizeof digits - first);
  }
};

}  // namespace

void hexBoot(uint64_t boot, char out[17]) {
  for (int i = 0; i < 16; i++) out[i] = "0123456789abcdef"[boot >> (60 - 4 * i) & 15];
  out[16] = '\0';
}

size_t encode(const Entry &entry, int64_t epoch_ms, uint64_t age_ms, char out[kMessageBytes]) {
  static_assert(kMessageBytes >= kBodyBytes + 150, "a message must fit");
  Text text = {out};
  char boot[17];
  hexBoot(entry.boot, boot);
  if (epoch_ms > 0) {
    text.add("{\"timestamp\":");
    text.add(static_cast<uint64_t>(epoch_ms));
  } else {
    text.add("{\"age_ms\":");
    text.add(age_ms);
  }
  text.add(",\"boot_id\":\"");
  text.add(boot, 16);
  text.add("\",\"sequence\":");
  text.add(static_cast<uint64_t>(entry.sequence));
  if (entry.dropped > 0) {
    text.add(",\"dropped\":");
    text.add(static_cast<uint64_t>(entry.dropped));
  }
  text.add(",");
  text.add(entry.body, entry.length);
  text.add("}");
  return static_cast<size_t>(text.at - out);
}

}  // namespace plantops
