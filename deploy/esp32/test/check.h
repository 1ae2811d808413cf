// A few lines of test framework.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>

struct Test {
  Test(const char *name, void (*run)()) : name(name), run(run), next(first()) { first() = this; }
  const char *name;
  void (*run)();
  Test *next;
  static Test *&first() {
    static Test *head = nullptr;
    return head;
  }
};

inline int &failures() {
  static int n = 0;
  return n;
}

#define TEST(name)                               \
  static void test_##name();                     \
  static Test register_##name(#name, test_##name); \
  static void test_##name()

inline void fail(const char *file, int line, const std::string &what) {
  fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  if (++failures() > 20) exit(1);
}

#define CHECK(x) \
  do {           \
    if (!(x)) fail(__FILE__, __LINE__, #x); \
  } while (0)

inline std::string show(const std::string &s) { return "\"" + s + "\""; }
inline std::string show(const char *s) { return show(std::string(s)); }
inline std::string show(long long n) { return std::to_string(n); }
inline std::string show(unsigned long long n) { return std::to_string(n); }
inline std::string show(long n) { return std::to_string(n); }
inline std::string show(unsigned long n) { return std::to_string(n); }
inline std::string show(int n) { return std::to_string(n); }
inline std::string show(unsigned n) { return std::to_string(n); }

#define EQUAL(want, got)                                                                               \
  do {                                                                                                 \
    auto want_ = (want);                                                                               \
    auto got_ = (got);                                                                                 \
    if (!(want_ == static_cast<decltype(want_)>(got_)))                                                \
      fail(__FILE__, __LINE__, std::string(#got) + " is " + show(got_) + ", not " + show(want_));      \
  } while (0)

// random numbers that repeat.
struct Dice {
  explicit Dice(uint64_t seed) : s(seed * 0x9E3779B97F4A7C15ull + 1) {}
  uint64_t s;
  uint32_t next() {
    s = s * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(s >> 33);
  }
  uint32_t below(uint32_t n) { return next() % n; }
  bool one_in(uint32_t n) { return below(n) == 0; }
};
