#pragma once
#include <stddef.h>
#include <stdint.h>
#define FILE_READ "r"
#define FILE_APPEND "a"
class File {
 public:
  explicit operator bool() const;
  size_t write(const uint8_t *, size_t);
  size_t read(uint8_t *, size_t);
  bool seek(uint32_t);
  size_t size() const;
  const char *name() const;
  void close();
  File openNextFile(const char *mode = FILE_READ);
};
class LittleFSFS {
 public:
  bool begin(bool format_on_fail = false);
  File open(const char *path, const char *mode = FILE_READ, bool create = false);
  bool exists(const char *);
  bool mkdir(const char *);
  bool remove(const char *);
  size_t totalBytes();
  size_t usedBytes();
};
extern LittleFSFS LittleFS;
