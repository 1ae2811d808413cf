#include "reading.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

namespace plantops {

namespace {

// kReserved are keys that mean something to the server; a metric may not be called so.
const char *const kReserved[] = {"timestamp", "age_ms", "boot_id", "sequence", "dropped",
                                 "ts",        "time",   "Time",    "epoch",    "dateTime"};

bool nameIsGood(const char *name) {
  if (name == nullptr) return false;
  size_t n = strlen(name);
  if (n == 0 || n > 64) return false;
  for (size_t i = 0; i < n; i++) {
    if (name[i] < ' ' || name[i] > '~' || name[i] == '"' || name[i] == '\\') return false;
  }
  for (const char *reserved : kReserved) {
    if (strcmp(name, reserved) == 0) return false;
  }
  return true;
}

}  // namespace

bool Reading::put(const char *metric, const char *value) {
  if (!nameIsGood(metric)) return good_ = false;
  int n = snprintf(body_ + length_, kBodyBytes - length_, "%s\"%s\":%s", length_ > 0 ? "," : "", metric, value);
  if (n < 0 || static_cast<size_t>(n) >= kBodyBytes - length_) return good_ = false;
  length_ += static_cast<size_t>(n);
  return true;
}

bool Reading::putNumber(const char *metric, double value, const char *format, int precision) {
  if (!isfinite(value)) return put(metric, "null");
  char text[64];
  int n = snprintf(text, sizeof text, format, precision, value);
  if (n < 0 || static_cast<size_t>(n) >= sizeof text) return good_ = false;
  return put(metric, text);
}

// A float has seven digits that mean something, a double fifteen.
bool Reading::set(const char *metric, float value) { return putNumber(metric, value, "%.*g", 7); }
bool Reading::set(const char *metric, double value) { return putNumber(metric, value, "%.*g", 15); }

bool Reading::set(const char *metric, double value, int decimals) {
  if (decimals < 0) decimals = 0;
  if (decimals > 9) decimals = 9;
  if (fabs(value) >= 1e15) return set(metric, value);
  return putNumber(metric, value, "%.*f", decimals);
}

bool Reading::set(const char *metric, bool value) { return put(metric, value ? "true" : "false"); }
bool Reading::setNull(const char *metric) { return put(metric, "null"); }

// Without %lld, which the small C library of some boards does not know.
bool Reading::set(const char *metric, unsigned long long value) {
  char text[24];
  char *at = text + sizeof text;
  *--at = '\0';
  do {
    *--at = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value > 0);
  return put(metric, at);
}

bool Reading::set(const char *metric, long long value) {
  if (value >= 0) return set(metric, static_cast<unsigned long long>(value));
  char text[24];
  char *at = text + sizeof text;
  *--at = '\0';
  unsigned long long rest = 0ULL - static_cast<unsigned long long>(value);
  do {
    *--at = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  *--at = '-';
  return put(metric, at);
}

}  // namespace plantops
