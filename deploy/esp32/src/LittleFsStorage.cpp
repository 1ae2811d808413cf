#if defined(ARDUINO_ARCH_ESP32)

#include "LittleFsStorage.h"

#include <Arduino.h>
#include <LittleFS.h>

namespace {

const char kFolder[] = "/plantops";
const size_t kBlockBytes = 4096;

struct Path {
  explicit Path(uint32_t segment) { snprintf(text, sizeof text, "%s/%08lx", kFolder, static_cast<unsigned long>(segment)); }
  char text[24];
};

}  // namespace

bool LittleFsStorage::begin() {
  if (!LittleFS.begin(true)) return false;
  return LittleFS.exists(kFolder) || LittleFS.mkdir(kFolder);
}

void LittleFsStorage::list(void (*visit)(void *context, uint32_t segment, uint32_t bytes), void *context) {
  File folder = LittleFS.open(kFolder);
  if (!folder) return;
  for (File file = folder.openNextFile(); file; file = folder.openNextFile()) {
    const char *name = strrchr(file.name(), '/');  // older cores give the whole path
    name = name != nullptr ? name + 1 : file.name();
    char *end = nullptr;
    unsigned long segment = strtoul(name, &end, 16);
    if (end != name && *end == '\0') visit(context, static_cast<uint32_t>(segment), static_cast<uint32_t>(file.size()));
  }
}

plantops::Storage::Written LittleFsStorage::append(uint32_t segment, const uint8_t *data, size_t bytes) {
  File file = LittleFS.open(Path(segment).text, FILE_APPEND);
  if (!file) return kFailed;
  size_t written = file.write(data, bytes);
  file.close();  // LittleFS commits here: all of it survives a power cut, or none
  if (written == bytes) return kWritten;
  return LittleFS.totalBytes() - LittleFS.usedBytes() < 4 * kBlockBytes ? kFull : kFailed;
}

size_t LittleFsStorage::read(uint32_t segment, uint32_t offset, uint8_t *data, size_t bytes) {
  File file = LittleFS.open(Path(segment).text, FILE_READ);
  if (!file || !file.seek(offset)) return 0;
  return file.read(data, bytes);
}

bool LittleFsStorage::remove(uint32_t segment) { return LittleFS.remove(Path(segment).text); }

#endif
