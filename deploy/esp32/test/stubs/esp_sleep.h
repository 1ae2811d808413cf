#pragma once
#include <stdint.h>
typedef enum { ESP_SLEEP_WAKEUP_UNDEFINED = 0, ESP_SLEEP_WAKEUP_TIMER = 4 } esp_sleep_wakeup_cause_t;
extern "C" esp_sleep_wakeup_cause_t esp_sleep_get_wakeup_cause(void);
extern "C" void esp_deep_sleep(uint64_t us) __attribute__((noreturn));
