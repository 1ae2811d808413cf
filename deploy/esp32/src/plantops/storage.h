// What the flash log asks of a file system.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace plantops {

// Storage keeps segments: small files that are called by a number from 1 up.
class Storage {
 public:
  virtual ~Storage() {}

  // list calls visit for each segment there is, in any order.
  virtual void list(void (*visit)(void *context, uint32_t segment, uint32_t bytes), void *context) = 0;

  enum Written {
    kWritten,  // all of it, and it would survive a power cut
    kFull,     // there is no room; nothing of it or a part may be there
    kFailed,   // something else; nothing of it or a part may be there
  };

  // append adds data at the end of a segment, which it makes when there is none.
  virtual Written append(uint32_t segment, const uint8_t *data, size_t bytes) = 0;

  // read returns how many bytes there were, at most the number asked for.
  virtual size_t read(uint32_t segment, uint32_t offset, uint8_t *data, size_t bytes) = 0;

  virtual bool remove(uint32_t segment) = 0;
};

}  // namespace plantops
