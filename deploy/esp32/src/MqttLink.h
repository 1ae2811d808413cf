// esp-mqtt, and what happens in other tasks, as events that loop takes one by one.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "plantops/explain.h"

// LinkEvent is something that happened in the task of esp-mqtt, of the Wi-Fi or of NTP.
struct LinkEvent {
  enum Kind : uint8_t { kConnected, kDisconnected, kAcknowledged, kFailure, kNetworkUp, kNetworkDown, kTime } kind;
  uint32_t connection;  // of which connection, for those of esp-mqtt
  int value;            // packet id, or why the Wi-Fi was lost
  int64_t epoch_ms;     // kTime
  uint64_t at_ms;       // when, as uptime
  plantops::Failure failure;
};

struct MqttAccount {
  const char *host;
  uint16_t port;
  const char *device_id;
  const char *password;
  const char *ca_certificate;  // nullptr: without TLS
};

// MqttLink has at most one connection. Each one is a new client of esp-mqtt: its outbox forgets nothing by itself, and
// would send on a new connection what belonged to the old one, ages and all. It is never called from the tasks that
// make events.
class MqttLink {
 public:
  void begin();  // once
  bool connect(const MqttAccount &account);
  void disconnect();
  int publish(const char *topic, const char *message, size_t length, int qos);  // packet id, negative: it failed

  bool next(LinkEvent &event);  // what happened; events of connections that are over are left out
  bool overflowed();            // more happened than was taken: the connection has to be made anew
  static void post(LinkEvent event);
  static uint64_t uptimeMs();
};
