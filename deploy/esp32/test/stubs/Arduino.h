#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RTC_DATA_ATTR
#define A0 36

class Print {
 public:
  size_t print(const char *);
  size_t println(const char *);
  size_t printf(const char *, ...) __attribute__((format(printf, 2, 3)));
};
class HardwareSerial : public Print {
 public:
  void begin(unsigned long);
};
extern HardwareSerial Serial;

unsigned long millis();
void delay(uint32_t ms);
int analogRead(uint8_t pin);
void configTime(long gmt_offset, int daylight_offset, const char *server1, const char *server2 = nullptr, const char *server3 = nullptr);
