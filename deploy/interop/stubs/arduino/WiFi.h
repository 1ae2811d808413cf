// What the sketch uses of the Arduino core for the ESP32, declared so that a compiler can judge the sketch.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct SerialStub {
  void begin(unsigned long);
  int printf(const char *, ...) __attribute__((format(printf, 2, 3)));
  size_t println(const char *);
};
extern SerialStub Serial;

enum wifi_mode_t { WIFI_STA = 1 };
struct WiFiStub {
  bool mode(wifi_mode_t);
  bool setAutoReconnect(bool);
  int begin(const char *, const char *);
};
extern WiFiStub WiFi;

unsigned long millis();
void delay(uint32_t);
void configTime(long, int, const char *, const char * = NULL, const char * = NULL);
