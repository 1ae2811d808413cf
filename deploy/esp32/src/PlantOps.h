// PlantOps for the ESP32: readings that arrive. See README.md, and the examples.
//
// The thinking is in the folder plantops, which knows no Arduino; this is the shell around it: Wi-Fi, esp-mqtt, NTP,
// LittleFS and deep sleep. Nothing here or there allocates memory after begin, except esp-mqtt and TLS for a connection.
#pragma once

#include <Arduino.h>

#include "plantops/client.h"
#include "plantops/explain.h"

// PlantOpsConfig is what a sketch fills in. The texts must stay where they are.
struct PlantOpsConfig {
  const char *wifi_name = nullptr;
  const char *wifi_password = nullptr;
  const char *host = nullptr;            // the server's name or address, one that its certificate has
  uint16_t port = 8883;
  const char *device_id = nullptr;
  const char *password = nullptr;
  const char *ca_certificate = nullptr;  // PEM. nullptr: without TLS, for a test on the desk
  const char *ntp_server = "pool.ntp.org";  // nullptr: no internet, no time; readings carry their age
  bool flash = false;                    // keep readings through a power cut, in LittleFS
  Print *log = &Serial;                  // nullptr: silence
  plantops::Options options;             // all with sensible values
};

class PlantOps {
 public:
  // memory is a global variable: plantops::Memory<64>.
  template <size_t N>
  explicit PlantOps(plantops::Memory<N> &memory) : state_(memory.state), entries_(memory.entries), capacity_(N) {}
  PlantOps(const PlantOps &) = delete;
  PlantOps &operator=(const PlantOps &) = delete;

  void begin(const PlantOpsConfig &config);

  // loop does what there is to do. It waits for nothing but a slow network, a few seconds at most. Call it often.
  void loop();

  // every is true once in so many milliseconds, the first time at once.
  bool every(uint32_t ms);

  // add accepts a reading taken now; see plantops::Client::add.
  bool add(const plantops::Reading &reading);

  size_t waiting() const;  // readings that the server has not acknowledged
  bool online() const;
  uint32_t dropped() const;   // readings given up because there was no room
  int64_t unixTimeMs() const;  // 0: nobody knows

  // deliver runs loop until nothing waits, but no longer than ms. true: nothing waits.
  bool deliver(uint32_t ms);

  // sleep ends the connection and sleeps deeply for so many seconds; setup runs afterwards. The memory must be
  // declared with RTC_DATA_ATTR, or what waits in it is lost.
  void sleep(uint32_t seconds);

 private:
  plantops::Client &client() { return *reinterpret_cast<plantops::Client *>(client_); }
  const plantops::Client &client() const { return *reinterpret_cast<const plantops::Client *>(client_); }
  void restore();
  void takeEvents();
  bool act();
  void join();
  void connect();
  void disconnect();
  void publish(const plantops::Action &action);
  void say(const char *text);

  plantops::State &state_;
  plantops::Entry *entries_;
  size_t capacity_;
  PlantOpsConfig config_;
  alignas(plantops::Client) uint8_t client_[sizeof(plantops::Client)];
  bool begun_ = false;
  bool first_ = true;
  uint64_t next_ms_ = 0;
  bool flash_said_ = false;
  char telemetry_[96];
  char heartbeat_[96];
};
