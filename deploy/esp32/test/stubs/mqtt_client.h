#pragma once
#include <stddef.h>
#include <stdint.h>

#include "esp_idf_version.h"

typedef int esp_err_t;
#define ESP_OK 0
typedef const char *esp_event_base_t;
typedef void (*esp_event_handler_t)(void *argument, esp_event_base_t base, int32_t id, void *data);
typedef struct esp_mqtt_client *esp_mqtt_client_handle_t;

typedef enum esp_mqtt_event_id_t {
  MQTT_EVENT_ANY = -1,
  MQTT_EVENT_ERROR = 0,
  MQTT_EVENT_CONNECTED,
  MQTT_EVENT_DISCONNECTED,
  MQTT_EVENT_SUBSCRIBED,
  MQTT_EVENT_UNSUBSCRIBED,
  MQTT_EVENT_PUBLISHED,
} esp_mqtt_event_id_t;
typedef enum esp_mqtt_connect_return_code_t { MQTT_CONNECTION_ACCEPTED = 0 } esp_mqtt_connect_return_code_t;
typedef enum esp_mqtt_error_type_t {
  MQTT_ERROR_TYPE_NONE = 0,
  MQTT_ERROR_TYPE_TCP_TRANSPORT,
  MQTT_ERROR_TYPE_CONNECTION_REFUSED,
} esp_mqtt_error_type_t;
typedef enum esp_mqtt_transport_t { MQTT_TRANSPORT_UNKNOWN = 0, MQTT_TRANSPORT_OVER_TCP, MQTT_TRANSPORT_OVER_SSL } esp_mqtt_transport_t;

typedef struct esp_mqtt_error_codes {
  esp_err_t esp_tls_last_esp_err;
  int esp_tls_stack_err;
  int esp_tls_cert_verify_flags;
  esp_mqtt_error_type_t error_type;
  esp_mqtt_connect_return_code_t connect_return_code;
  int esp_transport_sock_errno;
} esp_mqtt_error_codes_t;

typedef struct esp_mqtt_event_t {
  esp_mqtt_event_id_t event_id;
  esp_mqtt_client_handle_t client;
  int msg_id;
  esp_mqtt_error_codes_t *error_handle;
} esp_mqtt_event_t;

typedef struct esp_mqtt_client_config_t {
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 0, 0)
  struct {
    struct {
      const char *uri;
      const char *hostname;
      esp_mqtt_transport_t transport;
      const char *path;
      uint32_t port;
    } address;
    struct {
      const char *certificate;
      size_t certificate_len;
    } verification;
  } broker;
  struct {
    const char *username;
    const char *client_id;
    struct {
      const char *password;
    } authentication;
  } credentials;
  struct {
    bool disable_clean_session;
    int keepalive;
    int message_retransmit_timeout;
  } session;
  struct {
    int reconnect_timeout_ms;
    int timeout_ms;
    bool disable_auto_reconnect;
  } network;
  struct {
    int size;
    int out_size;
  } buffer;
#else
  const char *host;
  uint32_t port;
  const char *client_id;
  const char *username;
  const char *password;
  int keepalive;
  bool disable_auto_reconnect;
  int buffer_size;
  const char *cert_pem;
  esp_mqtt_transport_t transport;
  int network_timeout_ms;
  int message_retransmit_timeout;
#endif
} esp_mqtt_client_config_t;

extern "C" {
esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *);
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t, esp_mqtt_event_id_t, esp_event_handler_t, void *);
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t);
esp_err_t esp_mqtt_client_destroy(esp_mqtt_client_handle_t);
int esp_mqtt_client_publish(esp_mqtt_client_handle_t, const char *topic, const char *data, int len, int qos, int retain);
}
