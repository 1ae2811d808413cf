// The time that devices and server share. While anything is on its way it runs like real time; when everything is
// quiet it leaps to the next thing that is due. The server of the test reads the same file.
#pragma once

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

inline int64_t realMs() {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
}

class WorldClock {
 public:
  explicit WorldClock(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(nullptr, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
      perror(path);
      exit(2);
    }
    close(fd);
    offset_ = static_cast<std::atomic<int64_t> *>(at);
  }
  int64_t now() const { return realMs() + *offset_; }  // Unix time in ms
  void leap(int64_t ms) { *offset_ += ms; }

 private:
  std::atomic<int64_t> *offset_;
};
