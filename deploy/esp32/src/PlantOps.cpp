#if defined(ARDUINO_ARCH_ESP32)

#include "PlantOps.h"

#include <WiFi.h>
#include <esp_random.h>
#include <esp_sleep.h>
#include <esp_sntp.h>
#include <sys/time.h>

#include <new>

#include "LittleFsStorage.h"
#include "MqttLink.h"

using plantops::Action;

namespace {

LittleFsStorage storage;
MqttLink mqtt;

RTC_DATA_ATTR int64_t slept_at_ms;  // the system's clock when sleep began; it runs on in deep sleep

int64_t systemMs() {
  struct timeval now;
  gettimeofday(&now, nullptr);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_usec / 1000;
}

void timeCame(struct timeval *now) {
  LinkEvent event = LinkEvent();
  event.kind = LinkEvent::kTime;
  event.epoch_ms = static_cast<int64_t>(now->tv_sec) * 1000 + now->tv_usec / 1000;
  MqttLink::post(event);
}

void wifiCame(arduino_event_id_t, arduino_event_info_t) {
  LinkEvent event = LinkEvent();
  event.kind = LinkEvent::kNetworkUp;
  MqttLink::post(event);
}

void wifiWent(arduino_event_id_t, arduino_event_info_t info) {
  LinkEvent event = LinkEvent();
  event.kind = LinkEvent::kNetworkDown;
  event.value = info.wifi_sta_disconnected.reason;
  if (event.value != WIFI_REASON_ASSOC_LEAVE) MqttLink::post(event);  // that was us
}

// compiledMs is the day before this was compiled: no reading is older. __DATE__ is "Jan  7 2026".
int64_t compiledMs() {
  const char *date = __DATE__;
  const char *months = "JanFebMarAprMayJunJulAugSepOctNovDec";
  int month = 0;
  while (month < 12 && strncmp(months + 3 * month, date, 3) != 0) month++;
  int64_t year = atoi(date + 7);
  int64_t days = (year - 1970) * 365 + (year - 1969) / 4 + month * 30 + atoi(date + 4) - 3;  // never too late
  return days * 86400000LL;
}

uint32_t randomBits() { return esp_random(); }

}  // namespace

void PlantOps::begin(const PlantOpsConfig &config) {
  config_ = config;
  snprintf(telemetry_, sizeof telemetry_, "devices/%s/telemetry", config.device_id);
  snprintf(heartbeat_, sizeof heartbeat_, "devices/%s/heartbeat", config.device_id);
  mqtt.begin();
  // The radio is what makes random numbers random; the boot's id is one.
  WiFi.persistent(false);
  WiFi.setAutoReconnect(false);  // plantops::Client does it, with a backoff
  WiFi.mode(WIFI_STA);
  WiFi.onEvent(wifiCame, ARDUINO_EVENT_WIFI_STA_GOT_IP);
  WiFi.onEvent(wifiWent, ARDUINO_EVENT_WIFI_STA_DISCONNECTED);

  plantops::Options options = config.options;
  if (options.not_before_ms < compiledMs()) options.not_before_ms = compiledMs();
  if (config.ntp_server == nullptr) options.time_wait_ms = 0;
  bool flash = config.flash && storage.begin();
  if (config.flash && !flash) say("no flash for readings: the board needs a partition for LittleFS (\"spiffs\")");
  if (config.ca_certificate == nullptr) say("no CA certificate: connecting without TLS, the password can be read on the way");
  new (client_) plantops::Client(options, state_, entries_, capacity_, flash ? &storage : nullptr, randomBits);
  restore();
  begun_ = true;
  if (config.ntp_server != nullptr) {
    sntp_set_time_sync_notification_cb(timeCame);
    configTime(0, 0, config.ntp_server);
  }
}

// restore goes on after a deep sleep, or begins a new boot.
void PlantOps::restore() {
  if (esp_sleep_get_wakeup_cause() != ESP_SLEEP_WAKEUP_UNDEFINED) {
    int64_t slept = systemMs() - static_cast<int64_t>(MqttLink::uptimeMs()) - slept_at_ms;
    if (client().wake(slept > 0 ? static_cast<uint64_t>(slept) : 0)) return;
    say("what waited did not survive the sleep: is RTC_DATA_ATTR in front of the memory?");
  }
  client().begin(static_cast<uint64_t>(esp_random()) << 32 | esp_random());
}

void PlantOps::loop() {
  if (!begun_) return;
  takeEvents();
  for (int i = 0; i < 8 && act(); i++) takeEvents();
  if (client().flashFailed() && !flash_said_) say("the flash cannot be written: readings wait in memory only");
  flash_said_ = client().flashFailed();
}

void PlantOps::takeEvents() {
  LinkEvent event;
  char text[192];
  while (mqtt.next(event)) {
    switch (event.kind) {
      case LinkEvent::kConnected:
        say("connected");
        client().connected(event.at_ms);
        break;
      case LinkEvent::kDisconnected:
        mqtt.disconnect();
        client().disconnected(event.at_ms);
        break;
      case LinkEvent::kAcknowledged:
        client().acknowledged(static_cast<uint16_t>(event.value), event.at_ms);
        break;
      case LinkEvent::kFailure:
        say(plantops::explain(event.failure, text, sizeof text));
        break;
      case LinkEvent::kNetworkUp:
        say("Wi-Fi joined");
        client().networkUp(event.at_ms);
        break;
      case LinkEvent::kNetworkDown:
        say(plantops::explainWifi(event.value));
        client().networkDown(event.at_ms);
        break;
      case LinkEvent::kTime:
        if (client().time(event.epoch_ms, event.at_ms) == plantops::Clock::kRefused) say("NTP gave an impossible time: not believed");
        break;
    }
  }
  if (mqtt.overflowed()) {
    disconnect();
    if (WiFi.status() == WL_CONNECTED) {
      client().networkUp(MqttLink::uptimeMs());
    } else {
      client().networkDown(MqttLink::uptimeMs());
    }
  }
}

// act does one thing that the client wants. false: there is nothing.
bool PlantOps::act() {
  Action action = client().next(MqttLink::uptimeMs());
  switch (action.kind) {
    case Action::kWait: return false;
    case Action::kJoin: join(); break;
    case Action::kConnect: connect(); break;
    case Action::kDisconnect: disconnect(); break;
    case Action::kRejoin:
      disconnect();
      WiFi.disconnect();
      client().networkDown(MqttLink::uptimeMs());
      break;
    case Action::kPublish: publish(action); break;
    case Action::kHeartbeat: mqtt.publish(heartbeat_, "", 0, 0); break;
    case Action::kAskTime: sntp_restart(); break;
  }
  return true;
}

void PlantOps::join() {
  say("joining the Wi-Fi");
  WiFi.disconnect();
  WiFi.begin(config_.wifi_name, config_.wifi_password);
}

void PlantOps::connect() {
  MqttAccount account = {config_.host, config_.port, config_.device_id, config_.password, config_.ca_certificate};
  if (mqtt.connect(account)) return;
  say("not enough memory for a connection");
  client().disconnected(MqttLink::uptimeMs());
}

void PlantOps::disconnect() {
  mqtt.disconnect();
  client().disconnected(MqttLink::uptimeMs());
}

void PlantOps::publish(const Action &action) {
  int id = mqtt.publish(telemetry_, action.message, action.length, 1);
  client().published(id > 0 ? id : -1);
}

void PlantOps::say(const char *text) {
  if (config_.log == nullptr) return;
  config_.log->print("plantops: ");
  config_.log->println(text);
}

bool PlantOps::every(uint32_t ms) {
  uint64_t now = MqttLink::uptimeMs();
  if (!first_ && now < next_ms_) return false;
  next_ms_ = first_ || now - next_ms_ > ms ? now + ms : next_ms_ + ms;
  first_ = false;
  return true;
}

bool PlantOps::add(const plantops::Reading &reading) {
  if (begun_ && client().add(reading, MqttLink::uptimeMs())) return true;
  say(begun_ ? "a reading was refused: a bad name, or too large" : "a reading before begin was refused");
  return false;
}

size_t PlantOps::waiting() const { return begun_ ? client().waiting() : 0; }
bool PlantOps::online() const { return begun_ && client().online(); }
uint32_t PlantOps::dropped() const { return begun_ ? client().dropped() : 0; }
int64_t PlantOps::unixTimeMs() const { return begun_ ? client().unixTime(MqttLink::uptimeMs()) : 0; }

bool PlantOps::deliver(uint32_t ms) {
  for (uint64_t until = MqttLink::uptimeMs() + ms; waiting() > 0 && MqttLink::uptimeMs() < until; delay(10)) loop();
  return waiting() == 0;
}

void PlantOps::sleep(uint32_t seconds) {
  if (begun_) {
    mqtt.disconnect();
    WiFi.disconnect(true);
    slept_at_ms = systemMs();
    client().sleep(MqttLink::uptimeMs());
  }
  esp_deep_sleep(static_cast<uint64_t>(seconds) * 1000000ULL);
}

#endif
