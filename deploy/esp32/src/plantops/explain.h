// Connection errors in words, with what to do about them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace plantops {

// Failure is what esp-mqtt tells about a connection that did not come about or ended (esp_mqtt_error_codes_t).
struct Failure {
  int connack;            // the server's answer to CONNECT when it refused, else 0
  int esp_error;          // esp_tls_last_esp_err
  int tls_error;          // esp_tls_stack_err, an error of mbedtls, of either sign
  uint32_t verify_flags;  // esp_tls_cert_verify_flags
  int socket_errno;       // esp_transport_sock_errno
};

// explain writes a sentence into out, NUL-terminated, and returns out.
const char *explain(const Failure &failure, char *out, size_t bytes);

// explainWifi says in words why the Wi-Fi was left or not joined (wifi_err_reason_t).
const char *explainWifi(int reason);

}  // namespace plantops
