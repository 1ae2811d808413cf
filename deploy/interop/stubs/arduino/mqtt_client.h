// What the sketch uses of esp-mqtt, as IDF 4 and IDF 5 declare it.
#pragma once
#include <esp_idf_version.h>
#include <stdint.h>

typedef struct esp_mqtt_client *esp_mqtt_client_handle_t;
typedef const char *esp_event_base_t;
typedef int esp_err_t;
typedef enum {
  MQTT_EVENT_ANY = -1, MQTT_EVENT_ERROR = 0, MQTT_EVENT_CONNECTED, MQTT_EVENT_DISCONNECTED, MQTT_EVENT_SUBSCRIBED,
  MQTT_EVENT_UNSUBSCRIBED, MQTT_EVENT_PUBLISHED
} esp_mqtt_event_id_t;
#define ESP_EVENT_ANY_ID -1
typedef struct {
  esp_err_t esp_tls_last_esp_err;
  int esp_tls_stack_err;
  int error_type, connect_return_code;
} esp_mqtt_error_codes_t;
typedef struct {
  esp_mqtt_event_id_t event_id;
  int msg_id;
  esp_mqtt_error_codes_t *error_handle;
} esp_mqtt_event_t;
typedef esp_mqtt_event_t *esp_mqtt_event_handle_t;
typedef void (*esp_event_handler_t)(void *, esp_event_base_t, int32_t, void *);

#if ESP_IDF_VERSION_MAJOR >= 5
typedef struct {
  struct { struct { const char *uri; } address; struct { const char *certificate; } verification; } broker;
  struct { const char *username, *client_id; struct { const char *password; } authentication; } credentials;
  struct { int keepalive; } session;
} esp_mqtt_client_config_t;
#else
typedef struct {
  const char *uri, *client_id, *username, *password, *cert_pem;
  int keepalive;
} esp_mqtt_client_config_t;
#endif

extern "C" {
esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *);
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t, esp_mqtt_event_id_t, esp_event_handler_t, void *);
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t);
int esp_mqtt_client_publish(esp_mqtt_client_handle_t, const char *, const char *, int, int, int);
}
