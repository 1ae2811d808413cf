#pragma once
#include <WiFiClientSecureBearSSL.h>
typedef enum { LWMQTT_SUCCESS = 0 } lwmqtt_err_t;
class MQTTClient {
 public:
  explicit MQTTClient(int buffer_bytes);
  void begin(const char *host, int port, Client &);
  void setKeepAlive(int seconds);
  void setTimeout(int ms);
  bool connect(const char *id, const char *user, const char *password);
  bool publish(const char *topic, const char *payload, int length, bool retained, int qos);
  bool loop();
  bool disconnect();
  lwmqtt_err_t lastError();
};
