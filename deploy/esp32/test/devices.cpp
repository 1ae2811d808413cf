// devices PORT CLOCK LEDGER SEED HOURS CUTS < accounts
//
// A fleet of devices with the library in them, for the Go test in cmd/plantops/outside/esp32. accounts are lines "id
// secret", the last one for the probe. It ends with 0 when everything was acknowledged; LEDGER has a line for each reading
// that the library accepted: device, number, time in Unix ms, and what is known of it.
#include <poll.h>

#include <fstream>
#include <iostream>

#include "device.h"

namespace {

// Probe asks the server whether it has dealt with what came before: its own message takes the same way, behind it.
struct Probe {
  Wire wire;
  std::string id, secret;
  uint16_t port;
  bool wanted = false, asked = false;
  int64_t retry = 0;

  void pump() {
    if (wire.fd >= 0 && !wire.pump()) {
      // Only a server that died ends this connection, and takes with it what it had not dealt with.
      if (asked) wanted = asked = false;
      wire.shut();
      retry = realMs() + 30;
    }
    if (!wire.acknowledged.empty()) {
      wire.acknowledged.clear();
      wanted = asked = false;
    }
    if (wire.fd < 0 && realMs() >= retry && !wire.open(port, id, secret)) retry = realMs() + 30;
    if (wanted && !asked && wire.state == Wire::kUp) asked = wire.publish("devices/" + id + "/heartbeat", "") > 0;
    if (wanted && wire.fd < 0) wanted = false;  // nobody is there
  }
};

struct Fleet {
  WorldClock world;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Zombie> zombies;
  Probe probe;
  int64_t begin, end;
  bool chaos = true;
  int64_t last_leap = 0;
  unsigned long leaps = 0;

  explicit Fleet(const char *clock) : world(clock), begin(world.now()), end(begin) {}

  void add(size_t i, const std::string &id, const std::string &secret, uint16_t port, size_t cuts);
  void bury();
  void wait(bool idle);
  void turn();
  bool drained() const;
  void drain();
  void record(const char *path) const;
};

// add makes the i-th device. Every third never gets the time; beside that they differ in all that can go wrong.
void Fleet::add(size_t i, const std::string &id, const std::string &secret, uint16_t port, size_t cuts) {
  std::unique_ptr<Device> d(new Device);
  d->id = id;
  d->secret = secret;
  d->port = port;
  d->world = &world;
  d->zombies = &zombies;
  d->timeless = i % 3 == 2;
  d->late = i % 6 == 1;
  d->misled = i % 6 == 3;
  d->sleeper = i % 6 == 4 || i % 18 == 5;
  d->with_flash = !d->sleeper && i % 2 == 0;
  d->brownout = d->with_flash && !d->timeless && !d->late;
  d->drift = static_cast<double>(between(-8, 8)) * 1e-6;
  d->sleep_drift = d->timeless ? 10e-6 : static_cast<double>(between(-30, 30)) * 1e-3;
  d->capacity = d->with_flash ? 16 : d->sleeper ? 24 : i % 5 == 0 ? 16 : 256;
  d->interval = d->sleeper ? 15 * kMinute : 5 * kMinute;
  d->options.heartbeat_ms = i == 0 ? 60000 : 0;
  d->options.flash_delay_ms = d->brownout ? 0 : 10000;
  d->options.segments = i % 4 == 0 ? 3 : 16;
  d->options.segment_bytes = i % 4 == 0 ? 2048 : 16384;
  d->options.time_wait_ms = d->timeless ? (i % 2 ? 0 : 30000) : d->sleeper ? 5000 : 30000;
  d->wire.resends = i % 2 == 1;
  d->entries.resize(d->capacity);
  d->ntp_from = d->late ? begin + between(kHour, std::max(kHour, (end - begin) / 3)) : begin;
  d->reading_due = begin + kSecond + static_cast<int64_t>(i % 5) * kMinute + static_cast<int64_t>(i) * 7;
  int64_t first = begin + 10 * kMinute, last = end - kHour;
  for (size_t n = 0; n < cuts; n++) d->cuts.push_back(between(first, std::max(first, last)));
  for (size_t n = 0; d->brownout && n < 4; n++) d->outages.push_back(between(first, std::max(first, last)));
  std::sort(d->cuts.begin(), d->cuts.end());
  std::sort(d->outages.begin(), d->outages.end());
  d->boot();
  if (d->sleeper) d->nap_due = world.now() + 60 * kSecond;
  devices.push_back(std::move(d));
}

// bury looks after the rests of connections. Each one that ended may have left something behind in the server.
void Fleet::bury() {
  for (size_t i = 0; i < zombies.size(); i++) {
    Zombie &z = zombies[i];
    char buffer[512];
    bool over = realMs() > z.deadline;
    if (!z.rest.empty()) {
      ssize_t n = send(z.fd, z.rest.data(), z.rest.size(), MSG_NOSIGNAL);
      if (n > 0) z.rest.erase(0, static_cast<size_t>(n));
      if (n < 0 && errno != EAGAIN) over = true;
    }
    if (z.rest.empty()) shutdown(z.fd, SHUT_WR);
    ssize_t n;
    while ((n = recv(z.fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) continue;
    if (n == 0 || (n < 0 && errno != EAGAIN)) over = true;
    if (!over) continue;
    close(z.fd);
    zombies.erase(zombies.begin() + static_cast<long>(i--));
    probe.wanted = true;
  }
}

// wait sleeps until a socket has something, for a few milliseconds at most.
void Fleet::wait(bool idle) {
  std::vector<struct pollfd> fds;
  auto watch = [&](int fd, bool write) {
    if (fd >= 0) fds.push_back({fd, static_cast<short>(POLLIN | (write ? POLLOUT : 0)), 0});
  };
  for (auto &d : devices) {
    if (!d->wire.deaf) watch(d->wire.fd, d->wire.wantsWrite());
  }
  for (auto &z : zombies) watch(z.fd, false);
  watch(probe.wire.fd, probe.wire.wantsWrite());
  poll(fds.data(), fds.size(), idle ? 5 : 0);
}

// turn lets everybody do what can be done now, and leaps when nothing is on its way.
void Fleet::turn() {
  int64_t next = kForever;
  bool quiet = true, away = false;
  for (auto &d : devices) {
    next = std::min(next, d->step(chaos));
    quiet = quiet && d->wire.quiet();
    away = away || (d->awake && d->radio && d->wire.fd < 0);
  }
  bury();
  probe.pump();
  quiet = quiet && zombies.empty() && !probe.wanted;
  int64_t now = world.now();
  if (!quiet || next <= now) return wait(next > now);
  if (away && realMs() - last_leap < 5) return wait(true);  // who is without a server does not race through the days
  if (next >= kForever) return wait(true);
  last_leap = realMs();
  leaps++;
  world.leap(next - now);
}

bool Fleet::drained() const {
  for (auto &d : devices) {
    if (d->awake ? d->client->waiting() > 0 : d->wake_due < kForever && d->state.count > 0) return false;
  }
  return true;
}

// drain lets everybody send what is left. Sleepers stay awake from now on.
void Fleet::drain() {
  for (int64_t give_up = realMs() + 120000; realMs() < give_up;) {
    for (auto &d : devices) {
      if (!d->awake) d->wake_due = std::min(d->wake_due, world.now());
      d->nap_due = kForever;
      if (d->radio_due > world.now()) d->radio_due = world.now();
    }
    turn();
    bool all = drained();
    for (auto &d : devices) all = all && d->awake;
    if (all && zombies.empty() && !probe.wanted) return;
  }
  for (auto &d : devices) {
    if (d->client && d->client->waiting() > 0) fprintf(stderr, "%s still has %zu readings\n", d->id.c_str(), d->client->waiting());
  }
  exit(1);
}

void Fleet::record(const char *path) const {
  std::ofstream out(path);
  unsigned long cuts = 0, power = 0, naps = 0, resent = 0, refused = 0, doubted = 0, rejoins = 0;
  for (auto &d : devices) {
    for (size_t n = 0; n < d->ledger.size(); n++) {
      out << d->id << ' ' << n + 1 << ' ' << d->ledger[n].truth << ' ' << (d->ledger[n].maybe ? "maybe" : "accepted") << ' '
          << (d->timeless ? "timeless" : d->late ? "late" : "timed") << ' ' << (d->brownout ? "flash-brownout" : d->with_flash ? "flash" : "memory") << '\n';
    }
    cuts += d->cut_count;
    power += d->power_cuts;
    naps += d->naps;
    resent += d->wire.resent;
    refused += d->refused_times;
    doubted += d->doubted_times;
    rejoins += d->rejoins;
  }
  printf("cuts %lu, power cuts %lu, sleeps %lu, sent again by the outbox %lu, times refused %lu, doubted %lu, Wi-Fi left for an age %lu, leaps %lu\n",
         cuts, power, naps, resent, refused, doubted, rejoins, leaps);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  uint16_t port = static_cast<uint16_t>(atoi(argv[1]));
  chance() = Dice(strtoull(argv[4], nullptr, 10));
  Fleet fleet(argv[2]);
  fleet.end = fleet.begin + atoi(argv[5]) * kHour;
  size_t cuts = static_cast<size_t>(atoi(argv[6]));

  std::vector<std::pair<std::string, std::string>> accounts;
  for (std::string id, secret; std::cin >> id >> secret;) accounts.emplace_back(id, secret);
  fleet.probe.id = accounts.back().first;
  fleet.probe.secret = accounts.back().second;
  fleet.probe.port = port;
  accounts.pop_back();
  for (size_t i = 0; i < accounts.size(); i++) {
    fleet.add(i, accounts[i].first, accounts[i].second, port, cuts / accounts.size() + (i < cuts % accounts.size()));
  }
  while (fleet.world.now() < fleet.end) fleet.turn();
  fleet.chaos = false;
  fleet.drain();
  for (auto &d : fleet.devices) d->measure();  // carries the last report
  fleet.drain();
  fleet.record(argv[3]);
  return 0;
}
