// The client with a server, a network and a flash that fail at random, all of them simulated.
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "../src/plantops/client.h"
#include "check.h"
#include "flash.h"

using namespace plantops;

static Dice jitter(3);
static uint32_t roll() { return jitter.next() << 16 ^ jitter.next(); }

static const int64_t kEpoch = 1800000000000LL;  // Unix time when the world begins

// number finds a number behind a key in JSON that is as flat as ours.
static bool number(const std::string &json, const char *key, long long &out) {
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

TEST(aReadingIsKeptUntilItIsAcknowledged) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.acking = false;
  r.add();
  r.run(5000);
  EQUAL(1ul, r.server.stored.size());
  EQUAL(1ul, r.client->waiting());  // sent is not acknowledged
  r.acking = true;
  r.run(200);
  EQUAL(0ul, r.client->waiting());
}

TEST(theSameReadingIsSentAgainOnANewConnectionWithItsNewAge) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.acking = false;
  r.boot();
  r.add();
  r.run(1000);
  long long age = -1;
  CHECK(number(r.last, "age_ms", age) && age < 200);
  r.cut();
  r.acking = true;
  r.run(5000);
  CHECK(number(r.last, "age_ms", age) && age >= 1000 && age < 5000);
  EQUAL(2ul, r.server.messages);
  EQUAL(1ul, r.server.stored.size());
}

TEST(withoutAnAcknowledgementTheConnectionIsGivenUpAfterTenSeconds) {
  for (bool timed : {false, true}) {
    Rig r;
    r.options.time_wait_ms = 0;
    r.boot();
    if (timed) r.ntp();
    r.acking = false;
    r.add();
    r.run(9900);
    EQUAL(0, r.did[Action::kRejoin] + r.did[Action::kDisconnect]);
    r.run(400);
    EQUAL(timed ? 0 : 1, r.did[Action::kRejoin]);  // what carries an age must not lie in TCP's buffers
    EQUAL(timed ? 1 : 0, r.did[Action::kDisconnect]);
    r.drain();
    EQUAL(1ul, r.server.stored.size());
  }
}

TEST(whatCannotBeHandedOverBreaksTheConnection) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.run(500);
  CHECK(r.client->online());
  r.add();
  EQUAL(int(Action::kPublish), int(r.client->next(r.now()).kind));
  r.client->published(-1);
  EQUAL(int(Action::kDisconnect), int(r.client->next(r.now()).kind));
  r.drain();
  EQUAL(1ul, r.server.stored.size());
}

TEST(acknowledgementsOfAnOldConnectionAndOfNobodyAreIgnored) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.acking = false;
  r.add();
  r.run(500);
  uint16_t old = r.packet;
  r.client->acknowledged(static_cast<uint16_t>(old + 1), r.now());
  EQUAL(1ul, r.client->waiting());
  r.cut();
  r.client->acknowledged(old, r.now());
  EQUAL(1ul, r.client->waiting());
}

TEST(readingsBeforeTheFirstTimeAreDatedAfterwards) {
  Rig r;
  r.boot();
  for (int i = 0; i < 5; i++) {
    r.add();
    r.world_ms += 3000;
  }
  r.run(2000);
  EQUAL(0ul, r.server.messages);  // they wait for the time
  r.ntp();
  r.run(2000);
  EQUAL(5ul, r.server.stored.size());
  for (auto &s : r.server.byNumber()) {
    CHECK(!s.second.aged);
    EQUAL(r.truth[s.first], s.second.epoch);
  }
}

TEST(whoNeverGetsTheTimeSendsAges) {
  Rig r;
  r.boot();
  r.radio = false;
  for (int i = 0; i < 5; i++) {
    r.add();
    r.world_ms += 600000;
  }
  r.drain();
  r.run(40000);
  EQUAL(5ul, r.server.stored.size());
  for (auto &s : r.server.byNumber()) {
    CHECK(s.second.aged);
    EQUAL(r.truth[s.first], s.second.epoch);
  }
}

TEST(aWrongTimeIsNoTime) {
  Rig r;
  r.boot();
  r.client->time(1000, r.now());
  r.client->time(1514764800000LL, r.now());  // 2018
  r.add();
  r.run(35000);
  EQUAL(1ul, r.server.stored.size());
  CHECK(r.server.byNumber()[1].aged);
  r.ntp();
  r.add();
  r.client->time(r.utc() + 63072000000LL, r.now());  // one answer is two years ahead: doubted, asked again
  r.add();
  r.run(20000);
  CHECK(r.did[Action::kAskTime] >= 1);
  for (auto &s : r.server.byNumber()) EQUAL(r.truth[s.first], s.second.epoch);
}

TEST(aClockThatWasWrongBeforeIsRightedWithWhatStillWaits) {
  Rig r;
  r.boot();
  r.client->time(r.utc() - 7200000, r.now());
  r.radio = false;
  r.add();
  r.world_ms += 60000;
  r.ntp();
  r.world_ms += 16000;
  r.ntp();  // the second that says so
  r.add();
  r.drain();
  for (auto &s : r.server.byNumber()) EQUAL(r.truth[s.first], s.second.epoch);
}

TEST(uptimeBeyond49DaysIsNothingSpecial) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.world_ms = (1ull << 32) - 2000;
  r.radio = false;
  r.run(1000);
  r.add();
  r.run(5000);
  r.add();
  r.drain();
  EQUAL(2ul, r.server.stored.size());
  for (auto &s : r.server.byNumber()) EQUAL(r.truth[s.first], s.second.epoch);
}

TEST(fullMemoryGivesUpTheOldestAndSaysHowMany) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.radio = false;
  for (int i = 0; i < 40; i++) r.add();
  EQUAL(16ul, r.client->waiting());
  EQUAL(1, int(r.client->dropped() >= 24));
  r.drain();
  auto got = r.server.byNumber();
  EQUAL(16ul, got.size());
  EQUAL(25ll, got.begin()->first);
  EQUAL(24ll, r.server.dropped + static_cast<long long>(r.memory.state.dropped_total - r.memory.state.dropped_bound));
  r.add();
  r.drain();
  EQUAL(24ll, r.server.dropped);
}

TEST(aReportIsNotForgottenBeforeItIsAcknowledged) {
  Rig r;
  r.options.time_wait_ms = 0;
  r.boot();
  r.radio = false;
  for (int i = 0; i < 20; i++) r.add();
  r.radio = true;
  r.serving = false;  // connections are refused, or everything that is sent is lost
  r.run(60000);
  r.add();
  r.drain();
  r.add();
  r.drain();
  EQUAL(r.accepted, static_cast<long long>(r.server.stored.size()) + r.server.dropped);
}

TEST(aHealthyDeviceNeverWritesToFlash) {
  Rig r;
  r.with_flash = true;
  r.boot();
  r.ntp();
  for (int i = 0; i < 100; i++) {
    r.add();
    r.run(60000);
  }
  EQUAL(100ul, r.server.stored.size());
  EQUAL(0ul, r.flash.writes);
  EQUAL(0, r.did[Action::kDisconnect]);
}

TEST(anOutageGoesToFlashAndSurvivesThePowerCut) {
  Rig r;
  r.with_flash = true;
  r.boot();
  r.ntp();
  r.radio = false;
  for (int i = 0; i < 200; i++) {
    r.add();
    r.run(60000);
  }
  EQUAL(200ul, r.client->waiting());
  r.boot();
  EQUAL(200ul, r.client->waiting());
  r.run(60000);
  r.drain();
  for (auto &s : r.server.byNumber()) EQUAL(r.truth[s.first], s.second.epoch);
  EQUAL(200ul, r.server.stored.size());
  EQUAL(0ul, r.flash.files.size());
}

TEST(whatGoesToFlashWhileItIsOnItsWayIsNotMistaken) {
  Rig r;
  r.with_flash = true;
  r.options.time_wait_ms = 0;
  r.boot();
  r.run(500);
  r.acking = false;
  for (int i = 0; i < 6; i++) r.add();
  r.run(500);
  EQUAL(4ul, r.server.stored.size());
  for (int i = 0; i < 12; i++) r.add();  // more than the memory holds
  CHECK(r.flash.writes > 0);
  r.acking = true;
  r.ack();  // for what was sent before
  EQUAL(18ul, r.client->waiting());
  r.drain();
  EQUAL(18ul, r.server.byNumber().size());
}

TEST(aBootThatGotTheTimeLateLeavesItToThoseAfterIt) {
  Rig r;
  r.with_flash = true;
  r.boot();
  r.radio = false;
  r.add();
  r.run(30000);
  r.ntp();
  r.run(1000);
  r.boot();
  r.world_ms += 3600000;
  r.run(60000);
  r.drain();
  EQUAL(r.truth[1], r.server.byNumber()[1].epoch);
}

TEST(aBootThatNeverHadTheTimeIsDatedAtLeastSoOld) {
  Rig r;
  r.with_flash = true;
  r.options.flash_delay_ms = 0;
  r.boot();
  r.radio = false;
  r.add();
  r.run(600000);
  r.add();
  r.world_ms += 5000;  // without power
  r.boot();
  r.run(30000);
  r.drain();
  auto got = r.server.byNumber();
  EQUAL(2ul, got.size());
  for (auto &s : got) {
    CHECK(s.second.aged);
    CHECK(s.second.epoch >= r.truth[s.first] && s.second.epoch <= r.truth[s.first] + 5100);  // the time without power lacks
  }
  EQUAL(600000ll, got[2].epoch - got[1].epoch);
}

TEST(deepSleepKeepsReadingsTimeAndNumbers) {
  Rig r;
  r.rate = 1.03;  // the slow clock
  r.boot();
  r.ntp();
  r.add();
  r.drain();
  r.radio = false;
  r.cut();
  r.client->networkDown(r.now());
  for (int i = 0; i < 10; i++) {
    r.add();
    r.run(500);
    r.client->sleep(r.now());
    r.world_ms += 900000;
    r.boot_ms = r.world_ms;
    r.make();
    CHECK(r.client->wake(static_cast<uint64_t>(900000 * r.rate)));
    CHECK(!r.client->wake(0));  // a seal holds once
    r.client->sleep(0);
    r.make();
    CHECK(r.client->wake(0));
  }
  EQUAL(10ul, r.client->waiting());
  r.radio = true;
  r.run(1000);
  EQUAL(1ul, r.server.stored.size());  // the clock is not to be trusted after so much sleep: the time is awaited
  r.ntp();
  r.drain();
  EQUAL(11ul, r.server.stored.size());
  std::set<std::string> boots;
  for (auto &s : r.server.stored) boots.insert(s.first.first);
  EQUAL(1ul, boots.size());
  for (auto &s : r.server.byNumber()) CHECK(llabs(r.truth[s.first] - s.second.epoch) < 1000);
}

TEST(damagedSleepMemoryIsNotBelieved) {
  Rig r;
  r.boot();
  r.add();
  for (size_t i = 0; i < sizeof(State); i++) {
    r.client->sleep(r.now());
    reinterpret_cast<uint8_t *>(&r.memory)[i] ^= 0x20;
    Memory<16> kept = r.memory;
    r.make();
    CHECK(!r.client->wake(1000));
    r.memory = kept;
    reinterpret_cast<uint8_t *>(&r.memory)[i] ^= 0x20;
  }
  r.client->sleep(r.now());
  r.memory.entries[0].body[3] ^= 1;
  r.make();
  CHECK(!r.client->wake(1000));
}

TEST(attemptsAreSpacedAndHeartbeatsComeWhenNothingElseDoes) {
  Rig r;
  r.serving = false;
  r.boot();
  r.run(3600000);
  CHECK(r.did[Action::kConnect] > 50 && r.did[Action::kConnect] < 140);
  r.serving = true;
  r.ntp();
  r.run(120000);
  r.did.clear();
  r.run(600000);
  EQUAL(1, int(r.did[Action::kHeartbeat] >= 9 && r.did[Action::kHeartbeat] <= 10));
  r.radio = false;
  r.cut();
  r.client->networkDown(r.now());
  r.did.clear();
  r.run(3600000);
  CHECK(r.did[Action::kJoin] > 30 && r.did[Action::kJoin] < 140);
}

// chaos runs a device through everything at once and returns how many readings are neither stored nor reported.
static void chaos(uint64_t seed, bool with_flash, bool power_cuts, bool with_time) {
  Dice d(seed);
  Rig r;
  r.with_flash = with_flash;
  r.options.flash_delay_ms = power_cuts || d.one_in(2) ? 0 : 10000;
  r.options.segment_bytes = 1024;
  r.options.segments = 3 + d.below(6);
  r.options.time_wait_ms = with_time ? 30000 : 0;
  r.options.window = 1 + d.below(6);
  r.boot();
  bool cuts_happened = false;
  for (int step = 0; step < 400; step++) {
    try {
      switch (d.below(12)) {
        case 0: r.radio = !d.one_in(3); break;
        case 1: r.serving = !d.one_in(3); break;
        case 2: r.acking = !d.one_in(3); break;
        case 3:
          if (r.online) r.cut();
          break;
        case 4:
          if (!r.radio || d.one_in(4)) {
            if (r.online) r.cut();
            r.client->networkDown(r.now());
          }
          break;
        case 5:
          if (with_time && d.one_in(3)) r.ntp();
          break;
        case 6:
          if (with_flash) r.flash.broken = d.one_in(5);
          break;
        case 7:
          if (power_cuts && d.one_in(4)) r.flash.budget = static_cast<long>(d.below(3000));
          break;
        default:
          for (uint32_t i = d.below(12); i > 0; i--) {
            r.world_ms += d.below(3000);
            // A power cut in the middle of add: not accepted. It may come again for all that.
            Reading reading;
            reading.set("n", r.accepted + 1);
            r.truth[r.accepted + 1] = r.utc();
            r.accepted++;
            bool ok = false;
            try {
              ok = r.client->add(reading, r.now());
            } catch (PowerCut) {
              r.truth.erase(r.accepted);
              throw;
            }
            CHECK(ok);
            if (power_cuts && r.flash.broken) r.truth.erase(r.accepted);  // in memory only: what a power cut takes is no promise
            if (power_cuts && r.client->flashFailed()) r.truth.erase(r.accepted);
          }
      }
      r.run(d.below(20) == 0 ? 60000 : d.below(3000));
    } catch (PowerCut) {
      cuts_happened = true;
      r.flash.budget = -1;
      r.flash.broken = false;
      r.world_ms += d.below(5000);
      r.boot();
    }
  }
  r.flash.broken = false;
  r.flash.budget = -1;
  r.run(120000);
  if (with_time) r.ntp();
  r.drain();
  r.add();  // carries the last report
  r.drain();
  auto got = r.server.byNumber();
  long long missing = 0;
  for (auto &t : r.truth) missing += got.count(t.first) == 0;
  long long reported = r.server.dropped;
  if (cuts_happened) {
    CHECK(missing <= reported);
  } else if (!with_flash) {
    EQUAL(reported, missing);
  } else {
    CHECK(missing <= reported && reported <= missing + static_cast<long long>(r.options.window));
  }
  for (auto &s : got) {
    if (r.truth.count(s.first) == 0) continue;
    long long off = llabs(s.second.epoch - r.truth[s.first]);
    // Only who lost the power before it ever had the time may be older than it says.
    CHECK(off < 200 || (cuts_happened && s.second.aged));
  }
}

TEST(chaosInMemory) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, false, false, seed % 3 != 0);
}
TEST(chaosWithFlash) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, true, false, seed % 3 != 0);
}
TEST(chaosWithFlashAndPowerCuts) {
  for (uint64_t seed = 1; seed <= 150; seed++) chaos(seed, true, true, seed % 3 != 0);
}

int main() {
  int n = 0;
  for (Test *t = Test::first(); t; t = t->next, n++) {
    int before = failures();
    t->run();
    if (failures() != before) fprintf(stderr, "FAILED %s\n", t->name);
  }
  printf("%d tests, %d failures\n", n, failures());
  return failures() != 0;
}
