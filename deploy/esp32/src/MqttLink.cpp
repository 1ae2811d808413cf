#if defined(ARDUINO_ARCH_ESP32)

#include "MqttLink.h"

#include <Arduino.h>
#include <esp_idf_version.h>
#include <esp_timer.h>
#include <freertos/FreeRTOS.h>
#include <freertos/queue.h>
#include <mqtt_client.h>

namespace {

const int kKeepAliveSeconds = 60;
const int kNetworkTimeoutMs = 8000;
const int kBufferBytes = 512;
// esp-mqtt sends an unacknowledged message again after a second on the same connection, the same bytes with the same
// age, which MQTT 5 forbids and TCP makes pointless. An hour is never: the client gives a connection up after 10 s.
const int kRetransmitMs = 3600 * 1000;

QueueHandle_t events = nullptr;
volatile bool overflow = false;
volatile uint32_t connection = 0;
esp_mqtt_client_handle_t client = nullptr;

void fromMqtt(void *argument, esp_event_base_t, int32_t id, void *data) {
  const esp_mqtt_event_t *said = static_cast<const esp_mqtt_event_t *>(data);
  LinkEvent event = LinkEvent();
  event.connection = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(argument));
  switch (id) {
    case MQTT_EVENT_CONNECTED: event.kind = LinkEvent::kConnected; break;
    case MQTT_EVENT_DISCONNECTED: event.kind = LinkEvent::kDisconnected; break;
    case MQTT_EVENT_PUBLISHED:
      event.kind = LinkEvent::kAcknowledged;
      event.value = said->msg_id;
      break;
    case MQTT_EVENT_ERROR:
      if (said->error_handle == nullptr) return;
      event.kind = LinkEvent::kFailure;
      if (said->error_handle->error_type == MQTT_ERROR_TYPE_CONNECTION_REFUSED) {
        event.failure.connack = said->error_handle->connect_return_code;
      } else {
        event.failure.esp_error = said->error_handle->esp_tls_last_esp_err;
        event.failure.tls_error = said->error_handle->esp_tls_stack_err;
        event.failure.verify_flags = static_cast<uint32_t>(said->error_handle->esp_tls_cert_verify_flags);
        event.failure.socket_errno = said->error_handle->esp_transport_sock_errno;
      }
      break;
    default: return;
  }
  MqttLink::post(event);
}

esp_mqtt_client_config_t configOf(const MqttAccount &account) {
  esp_mqtt_client_config_t c = {};
  esp_mqtt_transport_t transport = account.ca_certificate != nullptr ? MQTT_TRANSPORT_OVER_SSL : MQTT_TRANSPORT_OVER_TCP;
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 0, 0)
  c.broker.address.hostname = account.host;
  c.broker.address.port = account.port;
  c.broker.address.transport = transport;
  c.broker.verification.certificate = account.ca_certificate;
  c.credentials.client_id = account.device_id;
  c.credentials.username = account.device_id;
  c.credentials.authentication.password = account.password;
  c.session.keepalive = kKeepAliveSeconds;
  c.session.message_retransmit_timeout = kRetransmitMs;
  c.network.disable_auto_reconnect = true;
  c.network.timeout_ms = kNetworkTimeoutMs;
  c.buffer.size = kBufferBytes;
#else
  c.host = account.host;
  c.port = account.port;
  c.transport = transport;
  c.cert_pem = account.ca_certificate;
  c.client_id = account.device_id;
  c.username = account.device_id;
  c.password = account.password;
  c.keepalive = kKeepAliveSeconds;
  c.message_retransmit_timeout = kRetransmitMs;
  c.disable_auto_reconnect = true;
  c.network_timeout_ms = kNetworkTimeoutMs;
  c.buffer_size = kBufferBytes;
#endif
  return c;
}

}  // namespace

void MqttLink::begin() {
  if (events == nullptr) events = xQueueCreate(32, sizeof(LinkEvent));
}

bool MqttLink::connect(const MqttAccount &account) {
  disconnect();
  esp_mqtt_client_config_t config = configOf(account);
  client = esp_mqtt_client_init(&config);
  if (client == nullptr) return false;
  void *argument = reinterpret_cast<void *>(static_cast<uintptr_t>(connection));
  if (esp_mqtt_client_register_event(client, MQTT_EVENT_ANY, fromMqtt, argument) == ESP_OK &&
      esp_mqtt_client_start(client) == ESP_OK) {
    return true;
  }
  disconnect();
  return false;
}

void MqttLink::disconnect() {
  connection = connection + 1;  // what its task still says concerns nobody
  if (client != nullptr) esp_mqtt_client_destroy(client);
  client = nullptr;
}

int MqttLink::publish(const char *topic, const char *message, size_t length, int qos) {
  if (client == nullptr) return -1;
  return esp_mqtt_client_publish(client, topic, message, static_cast<int>(length), qos, 0);
}

bool MqttLink::next(LinkEvent &event) {
  while (events != nullptr && xQueueReceive(events, &event, 0) == pdTRUE) {
    bool mqtt = event.kind <= LinkEvent::kFailure;
    if (!mqtt || event.connection == connection) return true;
  }
  return false;
}

bool MqttLink::overflowed() {
  bool was = overflow;
  overflow = false;
  return was;
}

void MqttLink::post(LinkEvent event) {
  event.at_ms = uptimeMs();
  if (events == nullptr || xQueueSend(events, &event, 0) != pdTRUE) overflow = true;
}

uint64_t MqttLink::uptimeMs() { return static_cast<uint64_t>(esp_timer_get_time()) / 1000; }

#endif
