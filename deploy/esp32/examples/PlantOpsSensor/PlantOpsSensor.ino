// A sensor that sends every minute. Each reading is kept until the server has it on disk: through a Wi-Fi that comes
// and goes, a server that restarts and, with flash = true, a power cut.
#include <PlantOps.h>

plantops::Memory<64> memory;  // readings that can wait without flash; each takes 232 bytes
PlantOps plantOps(memory);

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
  config.port = 8883;
  config.device_id = "bed-1";
  config.password = "WHAT plantops device add PRINTED";
  config.ca_certificate = CA_CERTIFICATE;
  config.flash = true;
  plantOps.begin(config);
}

void loop() {
  plantOps.loop();
  if (!plantOps.every(60000)) return;

  plantops::Reading reading;
  reading.set("soil_moisture", 100.0 * analogRead(A0) / 4095, 1);  // one decimal
  reading.set("temperature", 21.5f);                               // read your sensor here; NaN is sent as null
  plantOps.add(reading);
}
