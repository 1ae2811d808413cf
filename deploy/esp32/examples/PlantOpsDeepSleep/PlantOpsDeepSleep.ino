// A sensor on a battery: it wakes every ten minutes, measures, sends what it has and sleeps again. What could not be
// sent waits in the memory that deep sleep keeps; the identity and the age of each reading survive with it.
#include <PlantOps.h>

RTC_DATA_ATTR plantops::Memory<24> memory;  // 24 readings are 4 hours; this memory is 8 kB in all
PlantOps plantOps(memory);

const uint32_t SLEEP_SECONDS = 600;

const char CA_CERTIFICATE[] = R"EOF(
-----BEGIN CERTIFICATE-----
paste what "plantops certs show --pem" prints
-----END CERTIFICATE-----
)EOF";

void setup() {
  Serial.begin(115200);
  PlantOpsConfig config;
  config.wifi_name = "YOUR WIFI";
  config.wifi_password = "YOUR WIFI PASSWORD";
  config.host = "plantops.local";
  config.device_id = "field-1";
  config.password = "WHAT plantops device add PRINTED";
  config.ca_certificate = CA_CERTIFICATE;
  config.options.heartbeat_ms = 0;
  config.options.time_wait_ms = 5000;  // for NTP; without an answer the reading goes out with its age
  plantOps.begin(config);

  plantops::Reading reading;
  reading.set("soil_moisture", 100.0 * analogRead(A0) / 4095, 1);
  plantOps.add(reading);

  plantOps.deliver(20000);  // what is not acknowledged by then waits for the next time
  plantOps.sleep(SLEEP_SECONDS);
}

void loop() {}
