// One device with its world: a server, a network and a flash that fail when they are told to, all of them simulated.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "../src/plantops/client.h"
#include "check.h"
#include "flash.h"

using namespace plantops;

inline uint32_t roll() {
  static Dice dice(3);
  return dice.next() << 16 ^ dice.next();
}

const int64_t kEpoch = 1800000000000LL;  // Unix time when the world begins

// number finds a number behind a key in JSON that is as flat as ours.
inline bool number(const std::string &json, const char *key, long long &out) {
  size_t at = json.find("\"" + std::string(key) + "\":");
  if (at == std::string::npos) return false;
  out = strtoll(json.c_str() + at + strlen(key) + 3, nullptr, 10);
  return true;
}

// Server keeps what PlantOps keeps: one message for each boot and sequence, dated by its timestamp or by its arrival
// less its age, and what devices say they gave up, once for each message.
struct Server {
  struct Stored {
    long long n, epoch;
    bool aged;
  };
  std::map<std::pair<std::string, long long>, Stored> stored;
  long long dropped = 0;
  unsigned long messages = 0;

  void take(const std::string &message, int64_t arrival) {
    messages++;
    size_t at = message.find("\"boot_id\":\"");
    std::string boot = message.substr(at + 11, 16);
    long long sequence = 0, n = 0, age = 0, epoch = 0, gone = 0;
    CHECK(number(message, "sequence", sequence) && number(message, "n", n));
    bool timed = number(message, "timestamp", epoch), aged = number(message, "age_ms", age);
    CHECK(timed != aged);
    if (aged) epoch = arrival - age;
    auto is = stored.emplace(std::make_pair(boot, sequence), Stored{n, epoch, aged});
    if (!is.second) {
      EQUAL(n, is.first->second.n);
      return;
    }
    if (number(message, "dropped", gone)) {
      CHECK(gone > 0);
      dropped += gone;
    }
  }
  std::map<long long, Stored> byNumber() const {
    std::map<long long, Stored> out;
    for (auto &s : stored) {
      CHECK(out.count(s.second.n) == 0);
      out[s.second.n] = s.second;
    }
    return out;
  }
};

// Rig is one device with its world. world_ms is the true time since the world began.
struct Rig {
  Options options;
  Memory<16> memory;
  Flash flash;
  bool with_flash = false;
  std::unique_ptr<Client> client;
  Server server;
  uint64_t world_ms = 0, boot_ms = 0;
  uint64_t boots = 0;
  double rate = 1;  // of the device's clock

  bool radio = true, serving = true, acking = true;
  bool online = false;
  std::vector<uint16_t> owed;  // acknowledgements on their way
  uint16_t packet = 0;
  long long accepted = 0;
  std::map<long long, int64_t> truth;
  std::map<int, int> did;
  std::string last;

  Rig() { memory = Memory<16>(); }

  uint64_t now() const { return static_cast<uint64_t>(static_cast<double>(world_ms - boot_ms) * rate); }
  int64_t utc() const { return kEpoch + static_cast<int64_t>(world_ms); }
  void make() { client.reset(new Client(options, memory.state, memory.entries, 16, with_flash ? &flash : nullptr, roll)); }
  void boot() {
    boot_ms = world_ms;
    online = false;
    owed.clear();
    make();
    client->begin(0xA000 + ++boots);
  }
  void add() {
    Reading r;
    r.set("n", accepted + 1);
    CHECK(client->add(r, now()));
    truth[++accepted] = utc();
  }
  void cut() {
    online = false;
    owed.clear();
    client->disconnected(now());
  }
  // act does what the client wants, once. false: it waits.
  bool act() {
    Action a = client->next(now());
    did[a.kind]++;
    switch (a.kind) {
      case Action::kWait: return false;
      case Action::kJoin:
        if (radio) client->networkUp(now());
        return true;
      case Action::kConnect:
        if (serving) {
          online = true;
          client->connected(now());
        } else {
          client->disconnected(now());
        }
        return true;
      case Action::kRejoin:
        cut();
        client->networkDown(now());
        return true;
      case Action::kDisconnect: cut(); return true;
      case Action::kPublish:
        CHECK(online);
        client->published(++packet == 0 ? ++packet : packet);
        if (!serving) return true;  // it is lost on the way
        last.assign(a.message, a.length);
        server.take(last, utc());
        owed.push_back(packet);
        return true;
      default: return true;
    }
  }
  void ack() {
    if (!online || !acking) return;
    for (uint16_t id : owed) client->acknowledged(id, now());
    owed.clear();
  }
  void run(uint64_t ms) {
    for (uint64_t until = world_ms + ms; world_ms < until; world_ms += 100) {
      for (int i = 0; i < 50 && act(); i++) ack();
      ack();
    }
  }
  void ntp() { client->time(utc(), now()); }
  void drain() {
    radio = serving = acking = true;
    for (int i = 0; i < 500 && (client->waiting() > 0 || !client->online()); i++) run(1000);
    EQUAL(0ul, client->waiting());
  }
};
