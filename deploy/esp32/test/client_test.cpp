// What the client promises, one promise after the other.
#include <set>

#include "rig.h"

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
