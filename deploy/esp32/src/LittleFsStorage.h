// The flash log's files in LittleFS, in a folder of their own.
#pragma once

#include "plantops/storage.h"

class LittleFsStorage : public plantops::Storage {
 public:
  // begin mounts the file system, and formats a flash that has none. false: there is no partition for it.
  bool begin();

  void list(void (*visit)(void *context, uint32_t segment, uint32_t bytes), void *context) override;
  Written append(uint32_t segment, const uint8_t *data, size_t bytes) override;
  size_t read(uint32_t segment, uint32_t offset, uint8_t *data, size_t bytes) override;
  bool remove(uint32_t segment) override;
};
