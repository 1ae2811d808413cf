// A flash in memory, with power that goes at any byte.
#pragma once

#include <map>
#include <string>

#include "../src/plantops/storage.h"

struct PowerCut {};

struct Flash : plantops::Storage {
  std::map<uint32_t, std::string> files;
  long budget = -1;        // bytes and removals until the power goes; negative: never
  size_t capacity = SIZE_MAX;
  bool broken = false;     // every write fails, with half of it there
  unsigned long writes = 0, removes = 0;

  void spend() {
    if (budget < 0) return;
    if (budget == 0) throw PowerCut();
    budget--;
  }
  size_t used() const {
    size_t n = 0;
    for (auto &f : files) n += f.second.size();
    return n;
  }
  void list(void (*visit)(void *, uint32_t, uint32_t), void *context) override {
    for (auto f = files.rbegin(); f != files.rend(); ++f) visit(context, f->first, static_cast<uint32_t>(f->second.size()));
  }
  Written append(uint32_t segment, const uint8_t *data, size_t bytes) override {
    writes++;
    std::string &file = files[segment];
    if (broken) {
      file.append(reinterpret_cast<const char *>(data), bytes / 2);
      return kFailed;
    }
    if (used() + bytes > capacity) return kFull;
    for (size_t i = 0; i < bytes; i++) {
      spend();
      file.push_back(static_cast<char>(data[i]));
    }
    spend();
    return kWritten;
  }
  size_t read(uint32_t segment, uint32_t offset, uint8_t *data, size_t bytes) override {
    auto f = files.find(segment);
    if (f == files.end() || offset >= f->second.size()) return 0;
    if (bytes > f->second.size() - offset) bytes = f->second.size() - offset;
    f->second.copy(reinterpret_cast<char *>(data), bytes, offset);
    return bytes;
  }
  bool remove(uint32_t segment) override {
    removes++;
    spend();
    files.erase(segment);
    return true;
  }
};
