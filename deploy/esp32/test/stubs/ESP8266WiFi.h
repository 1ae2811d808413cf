#pragma once
#include <WiFi.h>
#include <time.h>
#define PROGMEM
#define RANDOM_REG32 (*stub_random())
volatile uint32_t *stub_random();
uint64_t micros64();
