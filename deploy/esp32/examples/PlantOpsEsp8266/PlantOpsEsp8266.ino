// The same promise on an ESP8266, which has no esp-mqtt: the client of the library with the MQTT library by Joel
// Gaehwiler (256dpi), whose publish with QoS 1 returns when the PUBACK is there, and BearSSL.
#include <ESP8266WiFi.h>
#include <MQTT.h>
#include <WiFiClientSecureBearSSL.h>
#include <plantops/client.h>
#include <sys/time.h>

using plantops::Action;

const char *WIFI_NAME = "YOUR WIFI";
const char *WIFI_PASSWORD = "YOUR WIFI PASSWORD";
const char *HOST = "plantops.local";
const char *DEVICE_ID = "bed-1";
const char *DEVICE_PASSWORD = "WHAT plantops device add PRINTED";
const char *TELEMETRY = "devices/bed-1/telemetry";
const char *HEARTBEAT = "devices/bed-1/heartbeat";
const char CA_CERTIFICATE[] PROGMEM = R"EOF(
-----BEGIN CERTIFICATE-----
paste what "plantops certs show --pem" prints
-----END CERTIFICATE-----
)EOF";

uint32_t randomBits() { return RANDOM_REG32; }
uint64_t uptimeMs() { return micros64() / 1000; }

plantops::Memory<48> memory;
plantops::Client client(plantops::Options(), memory.state, memory.entries, 48, nullptr, randomBits);
BearSSL::WiFiClientSecure network;
BearSSL::X509List authority(CA_CERTIFICATE);
MQTTClient mqtt(512);
bool joined = false;
uint64_t next_reading = 0, next_time = 0;

void setup() {
  Serial.begin(115200);
  WiFi.persistent(false);
  WiFi.setAutoReconnect(false);
  WiFi.mode(WIFI_STA);
  network.setBufferSizes(1024, 512);  // enough for this server, and leaves the memory that TLS needs
  network.setTrustAnchors(&authority);
  configTime(0, 0, "pool.ntp.org");   // BearSSL checks the dates of certificates
  mqtt.begin(HOST, 8883, network);
  mqtt.setKeepAlive(60);
  mqtt.setTimeout(9000);
  client.begin(static_cast<uint64_t>(randomBits()) << 32 | randomBits());
}

// follow tells the client what has changed.
void follow() {
  uint64_t now = uptimeMs();
  bool up = WiFi.status() == WL_CONNECTED;
  if (up != joined) up ? client.networkUp(now) : client.networkDown(now);
  joined = up;
  if (client.online() && !mqtt.loop()) client.disconnected(now);
  if (now >= next_time) {
    next_time = now + 60000;
    struct timeval t;
    gettimeofday(&t, nullptr);
    client.time(static_cast<int64_t>(t.tv_sec) * 1000 + t.tv_usec / 1000, now);  // 1970 until NTP has answered: refused
  }
}

void act() {
  Action action = client.next(uptimeMs());
  switch (action.kind) {
    case Action::kJoin: WiFi.begin(WIFI_NAME, WIFI_PASSWORD); break;
    case Action::kConnect:
      if (mqtt.connect(DEVICE_ID, DEVICE_ID, DEVICE_PASSWORD)) {
        client.connected(uptimeMs());
      } else {
        char why[80];
        int error = network.getLastSSLError(why, sizeof why);
        Serial.printf("no connection: MQTT %d, TLS %d %s\n", static_cast<int>(mqtt.lastError()), error, error ? why : "");
        client.disconnected(uptimeMs());
      }
      break;
    case Action::kRejoin:
      WiFi.disconnect();
      joined = false;
      client.networkDown(uptimeMs());
      // fall through
    case Action::kDisconnect:
      mqtt.disconnect();
      client.disconnected(uptimeMs());
      break;
    case Action::kPublish: {
      bool acknowledged = mqtt.publish(TELEMETRY, action.message, static_cast<int>(action.length), false, 1);
      client.published(acknowledged ? 1 : -1);
      if (acknowledged) client.acknowledged(1, uptimeMs());
      break;
    }
    case Action::kHeartbeat: mqtt.publish(HEARTBEAT, "", 0, false, 0); break;
    default: break;
  }
}

void loop() {
  follow();
  act();
  if (uptimeMs() < next_reading) return;
  next_reading = uptimeMs() + 60000;
  plantops::Reading reading;
  reading.set("temperature", 21.5f);  // read your sensor here
  client.add(reading, uptimeMs());
}
