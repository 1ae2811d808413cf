#pragma once
#include <stdint.h>

#include <functional>
typedef enum { WL_IDLE_STATUS = 0, WL_CONNECTED = 3, WL_DISCONNECTED = 6 } wl_status_t;
typedef enum { WIFI_OFF = 0, WIFI_STA = 1 } wifi_mode_t;
typedef enum { WIFI_REASON_ASSOC_LEAVE = 8 } wifi_err_reason_t;
typedef enum { ARDUINO_EVENT_WIFI_STA_DISCONNECTED = 5, ARDUINO_EVENT_WIFI_STA_GOT_IP = 7 } arduino_event_id_t;
typedef struct {
  uint8_t ssid[32];
  uint8_t reason;
} wifi_event_sta_disconnected_t;
typedef union {
  wifi_event_sta_disconnected_t wifi_sta_disconnected;
} arduino_event_info_t;
typedef void (*WiFiEventSysCb)(arduino_event_id_t, arduino_event_info_t);

class WiFiClass {
 public:
  void persistent(bool);
  bool setAutoReconnect(bool);
  bool mode(wifi_mode_t);
  wl_status_t begin(const char *name, const char *password = nullptr);
  bool disconnect(bool off = false, bool erase = false);
  wl_status_t status();
  size_t onEvent(WiFiEventSysCb, arduino_event_id_t);
};
extern WiFiClass WiFi;
