#include "explain.h"

#include <stdio.h>

namespace plantops {

namespace {

struct Meaning {
  int code;
  const char *text;
};

// MQTT 3.1.1, table 3.1.
const Meaning kConnack[] = {
    {1, "the server speaks no MQTT 3.1.1"},
    {2, "the server refuses this device id: is another device using it?"},
    {3, "the server is not ready"},
    {4, "user name or password is wrong: get a new password with \"plantops device rotate\""},
    {5, "the server does not let this device in: is it registered (\"plantops device list\"), is the password right?"},
};

// mbedtls/x509.h, MBEDTLS_X509_BADCERT_*; the first that is set is said.
const Meaning kVerify[] = {
    {0x01, "the server's certificate has expired, or this device's clock is wrong"},
    {0x0200, "the server's certificate is not valid yet: this device's clock is behind"},
    {0x04, "the server's certificate is for another name: connect to a name that \"plantops certs show\" lists"},
    {0x08, "the server's certificate is not signed by the CA in this sketch: was the CA made anew? Compare \"plantops certs show\""},
    {0x02, "the server's certificate was revoked"},
    {0x4000, "the signature of the server's certificate uses a method that this device does not take"},
    {0x8000, "the kind of key of the server's certificate is not taken by this device"},
    {0x10000, "the key of the server's certificate is too weak for this device"},
};

// mbedtls, errors as negative numbers.
const Meaning kTls[] = {
    {-0x2700, "the server's certificate could not be verified"},
    {-0x7780, "the server ended the TLS handshake: is a client certificate required?"},
    {-0x7200, "what answers there speaks no TLS: is this the TLS port (8883)?"},
    {-0x7280, "the server closed the connection during the TLS handshake"},
    {-0x6E00, "no TLS version or cipher that both sides know"},
    {-0x6E80, "no TLS version that both sides know"},
    {-0x7F00, "not enough memory for TLS: about 45 kB must be free in one piece"},
    {-0x2880, "not enough memory to read the certificate"},
    {-0x0010, "not enough memory for the TLS handshake"},
    {-0x008D, "not enough memory for the TLS handshake"},
    {-0x2180, "the CA certificate in the sketch is damaged: paste it whole, with its BEGIN and END lines"},
    {-0x1080, "the CA certificate in the sketch is damaged: its BEGIN or END line is missing"},
    {-0x1100, "the CA certificate in the sketch is damaged"},
    {-0x6800, "the server did not answer the TLS handshake in time"},
    {-0x0050, "the server closed the connection during the TLS handshake"},
    {-0x004C, "the connection broke during the TLS handshake"},
};

// esp_tls_errors.h, ESP_ERR_ESP_TLS_BASE 0x8000.
const Meaning kEsp[] = {
    {0x8001, "the server's name is not known here: check MQTT_HOST, or use the address. Names that end in .local need mDNS"},
    {0x8002, "no socket is left"},
    {0x8004, "nobody answers at this address and port: is the server running, is a firewall between?"},
    {0x8006, "the server did not answer in time: check address, port and firewall"},
    {0x8008, "the connection was closed by the server"},
    {0x101, "not enough memory for a connection"},
};

// newlib's errno.h, as the ESP32's C library has it
const Meaning kErrno[] = {
    {104, "the server closed the connection"},
    {111, "nobody listens at this port: is the server running? TLS is on 8883"},
    {113, "the connection broke: was the Wi-Fi lost?"},
    {114, "there is no way to the server: is it in the same network?"},
    {118, "there is no way to the server: is it in the same network?"},
    {116, "the server did not answer in time"},
    {119, "the server did not answer in time"},
    {128, "the connection was closed by the server"},
    {11, "the server did not answer in time"},
};

// esp_wifi_types.h, wifi_err_reason_t
const Meaning kWifi[] = {
    {2, "the access point says that the authentication has expired"},
    {3, "the access point left"},
    {4, "the access point sent this device away for being quiet"},
    {5, "the access point has too many clients"},
    {8, "the Wi-Fi was left on purpose"},
    {14, "the encryption of the Wi-Fi failed"},
    {15, "the password of the Wi-Fi is wrong"},
    {200, "the access point is not heard any more: too far away?"},
    {201, "no Wi-Fi of this name is in reach: check the name; the ESP32 knows 2.4 GHz only"},
    {202, "the access point refuses the authentication: check the password"},
    {203, "the access point does not take this device now"},
    {204, "the password of the Wi-Fi is wrong"},
    {205, "the connection to the access point failed"},
};

template <size_t N>
const char *find(const Meaning (&table)[N], int code) {
  for (const Meaning &m : table) {
    if (m.code == code) return m.text;
  }
  return nullptr;
}

}  // namespace

const char *explain(const Failure &f, char *out, size_t bytes) {
  int tls = f.tls_error > 0 ? -f.tls_error : f.tls_error;
  const char *text = nullptr;
  if (f.connack != 0) {
    text = find(kConnack, f.connack);
    snprintf(out, bytes, "%s (CONNACK %d)", text != nullptr ? text : "the server refuses the connection", f.connack);
    return out;
  }
  for (const Meaning &m : kVerify) {
    if (f.verify_flags & static_cast<uint32_t>(m.code)) {
      snprintf(out, bytes, "%s (TLS verification 0x%lx)", m.text, static_cast<unsigned long>(f.verify_flags));
      return out;
    }
  }
  if (tls != 0) {
    text = find(kTls, tls);
    snprintf(out, bytes, "%s (TLS error -0x%04x)", text != nullptr ? text : "the TLS handshake failed", static_cast<unsigned>(-tls));
    return out;
  }
  if (f.socket_errno != 0 && (text = find(kErrno, f.socket_errno)) != nullptr) {
    snprintf(out, bytes, "%s (errno %d)", text, f.socket_errno);
    return out;
  }
  if (f.esp_error != 0) {
    text = find(kEsp, f.esp_error);
    snprintf(out, bytes, "%s (error 0x%x)", text != nullptr ? text : "the connection failed", static_cast<unsigned>(f.esp_error));
    return out;
  }
  snprintf(out, bytes, "the connection ended (errno %d)", f.socket_errno);
  return out;
}

const char *explainWifi(int reason) {
  const char *text = find(kWifi, reason);
  return text != nullptr ? text : "the Wi-Fi was lost";
}

}  // namespace plantops
