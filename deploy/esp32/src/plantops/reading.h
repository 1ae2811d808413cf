// One reading: the values that were measured at one moment.
#pragma once

#include "entry.h"

namespace plantops {

// Reading collects metrics: reading.set("temperature", 21.5). NaN and infinity (a broken sensor) are sent as null, so
// that the other metrics of the reading are not lost with it. set returns false, and the reading is refused as a whole
// by add, when a name is not 1 to 64 bytes of printable ASCII without quotes and backslashes, when it is one of the
// names that the library itself sends (kReserved in reading.cpp), or when the reading is larger than kBodyBytes.
class Reading {
 public:
  Reading() : length_(0), good_(true) {}

  bool set(const char *metric, float value);
  bool set(const char *metric, double value);
  bool set(const char *metric, double value, int decimals);  // 0 to 9 decimals
  bool set(const char *metric, bool value);
  bool set(const char *metric, int value) { return set(metric, static_cast<long long>(value)); }
  bool set(const char *metric, unsigned value) { return set(metric, static_cast<unsigned long long>(value)); }
  bool set(const char *metric, long value) { return set(metric, static_cast<long long>(value)); }
  bool set(const char *metric, unsigned long value) { return set(metric, static_cast<unsigned long long>(value)); }
  bool set(const char *metric, long long value);
  bool set(const char *metric, unsigned long long value);
  bool setNull(const char *metric);

  bool good() const { return good_ && length_ > 0; }
  const char *body() const { return body_; }
  size_t length() const { return length_; }

 private:
  bool put(const char *metric, const char *value);
  bool putNumber(const char *metric, double value, const char *format, int precision);

  char body_[kBodyBytes];
  size_t length_;
  bool good_;
};

}  // namespace plantops
