// What goes over the wire.
#pragma once

#include "entry.h"

namespace plantops {

// hexBoot writes a boot's id as the server gets it: 16 digits, and a NUL.
void hexBoot(uint64_t boot, char out[17]);

// encode writes the message of entry into out and returns its length. With epoch_ms it has a timestamp, with 0 the
// age, which holds at the moment of sending.
size_t encode(const Entry &entry, int64_t epoch_ms, uint64_t age_ms, char out[kMessageBytes]);

}  // namespace plantops
