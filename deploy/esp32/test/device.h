// A device of the test: the client of the library, a wire, a world that treats it badly, and a ledger of what the
// library accepted.
#pragma once

#include <math.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "../src/plantops/client.h"
#include "check.h"
#include "flash.h"
#include "wire.h"

inline Dice &chance() {
  static Dice dice(1);
  return dice;
}
inline uint32_t randomBits() { return chance().next() << 16 ^ chance().next(); }
inline int64_t between(int64_t a, int64_t b) { return a + static_cast<int64_t>(randomBits()) % (b - a + 1); }

struct Ledger {
  int64_t truth;
  bool maybe;  // the power went while it was being accepted
};

// Zombie is the rest of a connection that was cut: what had been sent still arrives.
struct Zombie {
  int fd;
  std::string rest;
  int64_t deadline;
};

const int64_t kSecond = 1000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kForever = INT64_MAX / 4;

struct Device {
  // what it is
  std::string id, secret;
  bool timeless = false;     // never gets the time
  bool late = false;         // gets it after hours only
  bool misled = false;       // NTP is wrong first, and now and then
  bool sleeper = false;      // deep sleep between readings
  bool brownout = false;     // loses its power
  double drift = 0;          // of its quartz
  double sleep_drift = 0;    // of its slow clock
  size_t capacity = 64;
  int64_t interval = 5 * kMinute;
  plantops::Options options;

  // what it has
  WorldClock *world = nullptr;
  uint16_t port = 0;
  plantops::State state;
  std::vector<plantops::Entry> entries;
  Flash flash;
  bool with_flash = false;
  std::unique_ptr<plantops::Client> client;
  Wire wire;
  std::vector<Zombie> *zombies = nullptr;
  int64_t born = 0, booted = 0, asleep_since = 0;
  bool awake = true;

  // what is due, in the time of the world
  int64_t reading_due = 0, ntp_due = kForever, radio_due = kForever, hole_due = kForever, wake_due = kForever, nap_due = kForever;
  std::deque<int64_t> cuts, outages;  // Wi-Fi, power
  bool radio = true;
  int64_t ntp_from = 0;
  int answers = 0;
  bool wild = false;

  std::vector<Ledger> ledger;  // reading n is ledger[n - 1]
  unsigned long cut_count = 0, power_cuts = 0, naps = 0, refused_times = 0, doubted_times = 0, rejoins = 0;

  uint64_t uptime() const {
    int64_t ran = world->now() - booted;
    return static_cast<uint64_t>(static_cast<double>(ran) * (1 + drift));
  }

  void make() {
    client.reset(new plantops::Client(options, state, entries.data(), capacity, with_flash ? &flash : nullptr, randomBits));
  }

  void boot() {
    booted = world->now();
    memset(static_cast<void *>(&state), 0, sizeof state);
    make();
    client->begin(static_cast<uint64_t>(randomBits()) << 32 | randomBits());
    ntp_due = kForever;
    awake = true;
  }

  void bury() {
    if (wire.fd < 0) return;
    std::string rest;
    bool unsure = wire.unsure();
    size_t all = wire.pending();
    int fd = wire.part(all > 0 ? static_cast<size_t>(between(0, static_cast<int64_t>(all))) : 0, rest);
    if (unsure) {
      zombies->push_back({fd, rest, realMs() + 15000});
    } else {
      close(fd);
    }
  }

  void lose() {
    bury();
    if (client) client->disconnected(uptime());
  }

  void wifiOff(int64_t how_long) {
    lose();
    client->networkDown(uptime());
    ntp_due = kForever;
    radio = false;
    radio_due = world->now() + how_long;
  }

  // measure is what the sketch does.
  void measure() {
    plantops::Reading reading;
    long n = static_cast<long>(ledger.size()) + 1;
    reading.set("n", n);
    reading.set("temperature", 15.0 + static_cast<double>(n % 200) / 10, 1);
    if (n % 7 == 0) reading.set("broken", NAN);
    ledger.push_back({world->now(), true});
    if (brownout && chance().one_in(200)) flash.budget = between(0, 400);
    if (!client->add(reading, uptime())) {
      fprintf(stderr, "%s: a good reading was refused\n", id.c_str());
      exit(1);
    }
    flash.budget = -1;
    ledger.back().maybe = false;
  }

  void powerCut(int64_t dark) {
    power_cuts++;
    bury();
    client.reset();
    flash.budget = -1;
    awake = false;
    wake_due = world->now() + dark;
    asleep_since = 0;
    nap_due = kForever;
  }

  void nap() {
    naps++;
    bury();
    client->sleep(uptime());
    client.reset();
    awake = false;
    asleep_since = world->now();
    wake_due = std::max(reading_due, world->now() + 1);
    nap_due = kForever;
  }

  void rise() {
    wake_due = kForever;
    if (!sleeper) return boot();
    int64_t slept = world->now() - asleep_since;
    booted = world->now();
    make();
    if (!client->wake(static_cast<uint64_t>(static_cast<double>(slept) * (1 + sleep_drift)))) {
      fprintf(stderr, "%s: did not survive its sleep\n", id.c_str());
      exit(1);
    }
    ntp_due = kForever;
    awake = true;
    nap_due = world->now() + 20 * kSecond;
  }

  void answerTime() {
    int64_t now = world->now();
    ntp_due = now + kHour;
    if (now < ntp_from || !radio) return;
    int64_t said = now + between(-20, 20);
    answers++;
    if (misled && answers <= 2) {
      said = answers == 1 ? between(0, 100000) : 1546300800000;  // 1970, 2019
      ntp_due = now + 3 * kSecond;
      wild = true;
    } else if (misled && !wild && chance().one_in(6)) {
      wild = true;  // once: who is told the same wrong time twice believes it
      said += chance().one_in(2) ? 2 * 365 * 24 * kHour : -3 * kHour;
    } else {
      wild = false;
    }
    plantops::Clock::Answer answer = client->time(said, uptime());
    refused_times += answer == plantops::Clock::kRefused;
    doubted_times += answer == plantops::Clock::kDoubted;
  }

  void act(const plantops::Action &a) {
    using plantops::Action;
    switch (a.kind) {
      case Action::kWait: break;
      case Action::kJoin:
        if (!radio) break;
        client->networkUp(uptime());
        if (!timeless) ntp_due = world->now() + between(100, 900);
        break;
      case Action::kConnect:
        if (!wire.open(port, id, secret)) client->disconnected(uptime());
        break;
      case Action::kRejoin:
        rejoins++;
        lose();
        client->networkDown(uptime());
        break;
      case Action::kDisconnect: lose(); break;
      case Action::kPublish:
        client->published(wire.publish("devices/" + id + "/telemetry", std::string(a.message, a.length)));
        break;
      case Action::kHeartbeat: wire.publishOnce("devices/" + id + "/heartbeat"); break;
      case Action::kAskTime:
        if (ntp_due > world->now() + 200) ntp_due = world->now() + 200;
        break;
    }
  }

  void cut() {
    cut_count++;
    int64_t how_long = chance().one_in(12) ? between(kHour, 8 * kHour) : between(kSecond, 2 * kMinute);
    uint32_t kind = chance().below(100);
    if (wire.state == Wire::kUp && wire.unsure() && kind < 20) {  // it fails before it ends
      (kind % 2 ? wire.swallows : wire.deaf) = true;
      // Or nobody says that it ended: that takes the client ten seconds to notice.
      hole_due = kind < 2 ? kForever : world->now() + between(10, 300);
      return;
    }
    if (wire.state == Wire::kUp && kind < 22) {  // what is sent arrives late
      wire.held_until = realMs() + between(500, 6000);
      return;
    }
    wifiOff(how_long);
  }

  // events are those of the world that are due.
  void events(bool chaos) {
    int64_t now = world->now();
    if (!awake) {
      if (now >= wake_due) rise();
      return;
    }
    if (chaos && !outages.empty() && now >= outages.front() && (client->clock().known() || timeless)) {
      outages.pop_front();
      return powerCut(between(kSecond, 3 * kSecond));
    }
    if (now >= hole_due) {
      hole_due = kForever;
      wifiOff(between(kSecond, kMinute));
    }
    if (now >= radio_due) {
      radio_due = kForever;
      radio = true;
    }
    if (now >= ntp_due) answerTime();
    if (now >= reading_due && chaos) {
      reading_due += interval;
      if (reading_due <= now) reading_due = now + interval;
      measure();
    }
    // Most cuts hit what is on its way.
    if (chaos && radio && !cuts.empty() && now >= cuts.front() && (wire.unsure() || now >= cuts.front() + 30 * kMinute)) {
      cuts.pop_front();
      cut();
    }
    if (now >= nap_due || (sleeper && client->waiting() == 0 && nap_due != kForever && now > nap_due - 18 * kSecond)) nap();
  }

  // step does everything that can be done now and returns when to come back.
  int64_t step(bool chaos) {
    try {
      events(chaos);
      if (!awake) return wake_due;
      if (wire.fd >= 0) {
        Wire::State before = wire.state;
        bool over = !wire.pump();
        if (before != Wire::kUp && wire.state == Wire::kUp) client->connected(uptime());
        for (uint16_t id_ : wire.acknowledged) client->acknowledged(id_, uptime());
        wire.acknowledged.clear();
        if (over) lose();
      }
      for (int i = 0; i < 20; i++) {
        plantops::Action a = client->next(uptime());
        if (a.kind == plantops::Action::kWait) return due(a.at_ms, chaos);
        act(a);
      }
      return world->now();
    } catch (PowerCut) {
      powerCut(between(kSecond, 3 * kSecond));
      return wake_due;
    }
  }

  int64_t due(uint64_t at_ms, bool chaos) const {
    int64_t at = std::min({ntp_due, radio_due, hole_due, nap_due, chaos ? reading_due : kForever});
    if (sleeper && client->waiting() == 0 && nap_due != kForever) at = std::min(at, nap_due - 18 * kSecond + 1);
    if (chaos && radio && !cuts.empty()) at = std::min(at, cuts.front() + 30 * kMinute);
    if (chaos && !outages.empty() && (client->clock().known() || timeless)) at = std::min(at, outages.front());
    if (at_ms < static_cast<uint64_t>(kForever)) {
      at = std::min(at, booted + static_cast<int64_t>(static_cast<double>(at_ms) / (1 + drift)) + 1);
    }
    return std::max(at, world->now());
  }
};
