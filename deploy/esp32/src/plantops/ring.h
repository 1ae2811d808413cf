// The readings that wait in memory, oldest first.
#pragma once

#include "entry.h"

namespace plantops {

class Ring {
 public:
  Ring(State &state, Entry *entries, size_t capacity) : s_(state), entries_(entries), capacity_(capacity) {}

  size_t count() const { return s_.count; }
  bool full() const { return s_.count == capacity_; }
  size_t capacity() const { return capacity_; }
  Entry &at(size_t i) { return entries_[(s_.first + i) % capacity_]; }

  void push(const Entry &entry) {  // there is room
    entries_[(s_.first + s_.count) % capacity_] = entry;
    s_.count++;
  }
  void popFront(size_t n) {
    s_.first = static_cast<uint16_t>((s_.first + n) % capacity_);
    s_.count = static_cast<uint16_t>(s_.count - n);
  }
  // remove takes out the i-th; the ones before it move up.
  void remove(size_t i) {
    for (; i > 0; i--) at(i) = at(i - 1);
    popFront(1);
  }

 private:
  State &s_;
  Entry *entries_;
  size_t capacity_;
};

}  // namespace plantops
