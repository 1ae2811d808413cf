// The small parts, one by one.
#include <math.h>

#include <set>

#include "../src/plantops/backoff.h"
#include "../src/plantops/clock.h"
#include "../src/plantops/explain.h"
#include "../src/plantops/flashlog.h"
#include "../src/plantops/message.h"
#include "../src/plantops/reading.h"
#include "check.h"
#include "flash.h"

using namespace plantops;

static std::string body(const Reading &r) { return std::string(r.body(), r.length()); }

TEST(readingWritesNumbersAsTheyAre) {
  Reading r;
  CHECK(!r.good());
  CHECK(r.set("f", 45.2f) && r.set("d", 21.53) && r.set("p", 3.14159, 2) && r.set("i", -7) && r.set("t", true));
  CHECK(r.set("u", 4294967295u) && r.set("m", static_cast<long long>(INT64_MIN)) && r.setNull("n"));
  EQUAL(std::string("\"f\":45.2,\"d\":21.53,\"p\":3.14,\"i\":-7,\"t\":true,\"u\":4294967295,\"m\":-9223372036854775808,\"n\":null"), body(r));
  CHECK(r.good());
}

TEST(readingOfABrokenSensorIsNull) {
  Reading r;
  CHECK(r.set("a", NAN) && r.set("b", INFINITY) && r.set("c", -HUGE_VAL) && r.set("d", NAN, 1) && r.set("e", 1e30, 1));
  EQUAL(std::string("\"a\":null,\"b\":null,\"c\":null,\"d\":null,\"e\":1e+30"), body(r));
}

TEST(readingRefusesWhatTheServerWouldMisread) {
  for (const char *name : {"", "a\"b", "a\\b", "tab\t", "gr\xc3\xbcn", "timestamp", "age_ms", "boot_id", "sequence", "dropped", "ts", "dateTime"}) {
    Reading r;
    CHECK(r.set("good", 1));
    CHECK(!r.set(name, 1));
    CHECK(!r.good());
  }
  Reading longest;
  CHECK(longest.set(std::string(64, 'x').c_str(), 1));
  CHECK(!longest.set(std::string(65, 'x').c_str(), 1));
  CHECK(!Reading().set(nullptr, 1));
}

TEST(readingThatDoesNotFitIsRefusedWhole) {
  Reading r;
  char name[24];
  int n = 0;
  do {
    snprintf(name, sizeof name, "metric_%03d", n++);
  } while (r.set(name, 12345.6f));
  CHECK(n > 5);
  CHECK(!r.good());
  CHECK(r.length() < kBodyBytes);
}

static Entry entryOf(uint32_t sequence, size_t bytes = 40, uint32_t dropped = 0) {
  Entry e;
  memset(&e, 0, sizeof e);
  e.life_ms = 1000ull * sequence;
  e.boot = 0xB007;
  e.sequence = sequence;
  e.dropped = dropped;
  e.length = static_cast<uint16_t>(snprintf(e.body, sizeof e.body, "\"n\":%u,\"pad\":%0*d", sequence, static_cast<int>(bytes > 20 ? bytes - 20 : 1), 1));
  return e;
}

TEST(messageHasATimeOrAnAge) {
  Entry e = entryOf(12);
  e.length = 7;
  memcpy(e.body, "\"t\":1.5", 7);
  char out[kMessageBytes];
  EQUAL(std::string("{\"timestamp\":1767787200250,\"boot_id\":\"000000000000b007\",\"sequence\":12,\"t\":1.5}"), std::string(out, encode(e, 1767787200250LL, 99, out)));
  e.dropped = 3;
  EQUAL(std::string("{\"age_ms\":0,\"boot_id\":\"000000000000b007\",\"sequence\":12,\"dropped\":3,\"t\":1.5}"), std::string(out, encode(e, 0, 0, out)));
}

TEST(largestMessageFits) {
  Entry e;
  memset(&e, 'x', sizeof e);
  e.length = kBodyBytes;
  e.sequence = e.dropped = UINT32_MAX;
  char out[kMessageBytes];
  CHECK(encode(e, INT64_MAX, 0, out) <= kMessageBytes);
  CHECK(encode(e, 0, UINT64_MAX, out) <= kMessageBytes);
}

static const int64_t kNow = 1800000000000LL;

TEST(clockRefusesImpossibleTimes) {
  ClockState s = ClockState();
  Clock c(s, kNow);
  for (int64_t t : {int64_t(0), int64_t(1000), kYear2020Ms - 1, kNow - 1, kYear2100Ms, int64_t(-5), INT64_MAX, INT64_MIN}) EQUAL(int(Clock::kRefused), int(c.answered(t, 50)));
  CHECK(!c.known() && !c.sure(60));
  Clock old(s, 0);
  EQUAL(int(Clock::kRefused), int(old.answered(kYear2020Ms - 1, 50)));
}

TEST(clockIsSetOnceAndThenDoubts) {
  ClockState s = ClockState();
  Clock c(s);
  EQUAL(int(Clock::kFirst), int(c.answered(kNow, 5000)));
  EQUAL(kNow + 1000, c.at(6000));
  EQUAL(kNow - 5000, c.at(0));
  EQUAL(int(Clock::kAdjusted), int(c.answered(kNow + 3600000 + 40, 3605000)));
  EQUAL(int(Clock::kDoubted), int(c.answered(kNow + 86400000, 3606000)));  // once: not believed
  EQUAL(kNow + 3601040, c.at(3606000));
  EQUAL(int(Clock::kAdjusted), int(c.answered(kNow + 3602040, 3607000)));  // and forgotten
  CHECK(!c.doubted());
  EQUAL(int(Clock::kDoubted), int(c.answered(kNow + 86400000, 3608000)));
  EQUAL(int(Clock::kDoubted), int(c.answered(kNow + 186400000, 3609000)));  // two that contradict each other
  EQUAL(int(Clock::kStepped), int(c.answered(kNow + 186401000, 3610000)));
  EQUAL(kNow + 186401000, c.at(3610000));
}

TEST(clockKnowsHowLongItIsSure) {
  ClockState s = ClockState();
  Clock c(s);
  c.answered(kNow, 0);
  CHECK(c.sure(27ull * 3600 * 1000));
  CHECK(!c.sure(29ull * 3600 * 1000));
  c.answered(kNow + 29ll * 3600 * 1000, 29ull * 3600 * 1000);
  CHECK(c.sure(29ull * 3600 * 1000));
  c.slept(600000);  // ten minutes by a clock that may be 5 % wrong
  CHECK(!c.sure(29ull * 3600 * 1000 + 600000));
  EQUAL(int(Clock::kAdjusted), int(c.answered(kNow + 29ll * 3600 * 1000 + 625000, 29ull * 3600 * 1000 + 600000)));
  CHECK(c.sure(29ull * 3600 * 1000 + 600000));
}

static uint32_t most() { return UINT32_MAX; }
static uint32_t least() { return 0; }
static Dice dice(1);
static uint32_t rolled() { return dice.next() << 16 ^ dice.next(); }

TEST(backoffDoublesAndTakesARandomHalf) {
  Backoff none(1000, 60000, least);
  for (uint32_t want : {1000u, 2000u, 4000u, 8000u, 16000u, 32000u, 60000u, 60000u}) EQUAL(want, none.failed());
  none.succeeded();
  EQUAL(1000u, none.failed());
  std::set<uint32_t> seen;
  for (int i = 0; i < 200; i++) {
    Backoff b(1000, 60000, i % 2 ? rolled : most);
    uint32_t wait = b.failed();
    CHECK(wait >= 500 && wait <= 1000);
    seen.insert(wait);
  }
  CHECK(seen.size() > 50);
}

TEST(errorsAreSaidInWords) {
  char out[200];
  struct {
    Failure f;
    const char *part;
  } cases[] = {
      {{5, 0, 0, 0, 0}, "registered"},
      {{9, 0, 0, 0, 0}, "CONNACK 9"},
      {{0, 0x801A, 0x2700, 8, 0}, "not signed by the CA"},
      {{0, 0x801A, -0x2700, 4, 0}, "another name"},
      {{0, 0, -0x2700, 0x200, 0}, "not valid yet"},
      {{0, 0, -0x7780, 0, 0}, "client certificate"},
      {{0, 0, -0x7F00, 0, 0}, "memory"},
      {{0, 0, -0x1234, 0, 0}, "-0x1234"},
      {{0, 0x8001, 0, 0, 0}, "name is not known"},
      {{0, 0x8004, 0, 0, 111}, "nobody listens"},
      {{0, 0, 0, 0, 0}, "the connection ended"},
  };
  for (auto &c : cases) {
    if (!strstr(explain(c.f, out, sizeof out), c.part)) fail(__FILE__, __LINE__, std::string(out) + " lacks " + c.part);
  }
  CHECK(strstr(explainWifi(201), "2.4 GHz") && strstr(explainWifi(15), "password") && strlen(explainWifi(77)) > 0);
  explain({0, 0, -0x2700, 8, 0}, out, 20);
  EQUAL(19ul, strlen(out));
}

TEST(frameSurvivesAndDamageIsPassedOver) {
  Flash flash;
  std::string whole;
  for (uint32_t i = 1; i <= 3; i++) {
    Frame f = Frame();
    f.type = kReading;
    f.entry = entryOf(i);
    uint8_t raw[kFrameOverhead + kFramePayload];
    whole.append(reinterpret_cast<char *>(raw), pack(f, raw));
  }
  for (size_t bad = 0; bad < whole.size(); bad++) {
    flash.files[1] = whole;
    flash.files[1][bad] = static_cast<char>(flash.files[1][bad] ^ 0x40);
    int found = 0;
    bool unreadable = false;
    uint32_t at = 0;
    Frame f = Frame();
    while (readFrame(flash, 1, at, f, at, unreadable)) {
      found++;
      EQUAL(f.entry.sequence * 1000ull, f.entry.life_ms);
    }
    EQUAL(2, found);
    CHECK(unreadable);
  }
  for (size_t cut = 0; cut <= whole.size(); cut++) {
    flash.files[1] = whole.substr(0, cut);
    int found = 0;
    bool unreadable = false;
    uint32_t at = 0;
    Frame f = Frame();
    while (readFrame(flash, 1, at, f, at, unreadable)) found++;
    EQUAL(int(cut * 3 / whole.size()), found);
  }
}

// readAll returns the sequence numbers that wait in the flash.
static std::multiset<uint32_t> readAll(FlashLog &log) {
  std::multiset<uint32_t> all;
  Entry e;
  for (Place p = log.head(); log.next(p, e);) all.insert(e.sequence);
  return all;
}

TEST(flashLogRemovesSegmentsThatAreDone) {
  Flash flash;
  State s = State();
  FlashLog log(&flash, s, 1024, 4);
  log.open();
  for (uint32_t i = 1; i <= 30; i++) {
    Entry e = entryOf(i, 60);
    Entry *one = &e;
    EQUAL(1ul, log.append(&one, 1, 0, 0));
  }
  CHECK(flash.files.size() == 4);
  Entry e;
  size_t n = log.count();
  EQUAL(30ul, n + s.dropped_total);
  for (Place p = log.head(); log.next(p, e); n--) log.acknowledged(p, e.dropped);
  EQUAL(0ul, n);
  EQUAL(0ul, log.count());
  EQUAL(0ul, flash.files.size());
}

TEST(flashLogWritesMoreThanOneReadingAtOnce) {
  Flash flash;
  State s = State();
  FlashLog log(&flash, s, 16384, 4);
  log.open();
  Entry all[8];
  Entry *some[8];
  for (uint32_t i = 0; i < 8; i++) some[i] = &(all[i] = entryOf(i + 1, 60));
  EQUAL(8ul, log.append(some, 8, 0, 0));
  CHECK(flash.writes <= 3);  // the first record of the segment, and batches of a kilobyte
}

TEST(flashLogGivesUpTheOldestButNotWhatMayHaveArrived) {
  Flash flash;
  State s = State();
  FlashLog log(&flash, s, 1024, 3);
  log.open();
  for (uint32_t i = 1; i <= 100; i++) {
    Entry e = entryOf(i, 60, i == 7 ? 5 : 0);
    Entry *one = &e;
    EQUAL(1ul, log.append(&one, 1, 0, 1));  // the first segment is on its way
  }
  auto left = readAll(log);
  CHECK(left.count(1) == 1 && left.count(100) == 1 && left.count(20) == 0);
  EQUAL(100ul + 5 * (1 - left.count(7)), left.size() + s.dropped_total);
}

TEST(flashLogWithAFullOrBrokenDiskKeepsWhatItHas) {
  Flash flash;
  flash.capacity = 3000;  // less than the segments would take
  State s = State();
  FlashLog log(&flash, s, 1024, 8);
  log.open();
  for (uint32_t i = 1; i <= 100; i++) {
    Entry e = entryOf(i, 60);
    Entry *one = &e;
    EQUAL(1ul, log.append(&one, 1, 0, 0));
  }
  EQUAL(100ul, log.count() + s.dropped_total);
  EQUAL(1ul, readAll(log).count(100));
  size_t before = log.count();
  flash.broken = true;
  Entry e = entryOf(101);
  Entry *one = &e;
  EQUAL(0ul, log.append(&one, 1, 0, 0));
  EQUAL(before, log.count());
  flash.broken = false;
  EQUAL(1ul, log.append(&one, 1, 0, 0));  // behind what is broken now
  EQUAL(1ul, readAll(log).count(101));
  EQUAL(101ul, log.count() + s.dropped_total);
  flash.capacity = 0;
  EQUAL(0ul, log.append(&one, 1, 0, 0));  // and it ends
}

TEST(flashLogDoesNotCountWhatAFailedWriteLeftBehind) {
  Flash flash;
  State s = State();
  FlashLog log(&flash, s, 4096, 4);
  log.open();
  Entry all[8];
  Entry *some[8];
  for (uint32_t i = 0; i < 8; i++) some[i] = &(all[i] = entryOf(i + 1, 60));
  EQUAL(1ul, log.append(some, 1, 0, 0));
  flash.broken = true;  // half of it gets there, whole records among it
  EQUAL(0ul, log.append(some + 1, 7, 0, 0));
  flash.broken = false;
  EQUAL(7ul, log.append(some + 1, 7, 0, 0));
  EQUAL(8ul, log.count());
  EQUAL(8ul, readAll(log).size());
}

TEST(flashLogCountsOnceWhatItGivesUpWhenThePowerGoesMeanwhile) {
  for (long budget = 0; budget < 6000; budget++) {
    Flash flash;
    size_t written = 0, tried = 0;
    {
      State s = State();
      FlashLog log(&flash, s, 1024, 3);
      log.open();
      flash.budget = budget;
      try {
        for (uint32_t i = 1; i <= 40; i++) {
          Entry e = entryOf(i, 60);
          Entry *one = &e;
          tried++;
          written += log.append(&one, 1, 0, 0);
        }
      } catch (PowerCut) {
      }
    }
    flash.budget = -1;
    State s = State();
    FlashLog log(&flash, s, 1024, 3);
    log.open();
    size_t all = log.count() + s.dropped_total;
    if (all < written || all > tried) fail(__FILE__, __LINE__, std::to_string(budget) + ": " + std::to_string(all) + " of " + std::to_string(written));
  }
}

// The power goes at any moment: what append said is written is there again, or counted.
TEST(flashLogLosesNothingToPowerCuts) {
  Dice d(7);
  for (int round = 0; round < 300; round++) {
    Flash flash;
    std::set<uint32_t> accepted, acknowledged;
    uint32_t sequence = 0, doubtful = 0, counted = 0;
    for (int boot = 0; boot < 12; boot++) {
      State s = State();
      FlashLog log(&flash, s, 1024, 3 + d.below(3));
      flash.budget = d.one_in(4) ? -1 : static_cast<long>(d.below(6000));
      try {
        log.open();
        counted = s.dropped_total;
        std::multiset<uint32_t> left = readAll(log);
        EQUAL(left.size(), log.count());
        size_t missing = 0;
        for (uint32_t n : accepted) missing += acknowledged.count(n) == 0 && left.count(n) == 0;
        CHECK(missing <= counted);
        for (int step = 0; step < 40; step++) {
          if (d.one_in(3)) {
            Entry e;
            Place p = log.head();
            if (log.next(p, e)) {
              acknowledged.insert(e.sequence);
              log.acknowledged(p, e.dropped);
            }
            continue;
          }
          Entry some[8];
          Entry *all[8];
          size_t n = 1 + d.below(8);
          for (size_t i = 0; i < n; i++) all[i] = &(some[i] = entryOf(++sequence, 30 + d.below(100)));
          size_t written = log.append(all, n, 0, 0);
          EQUAL(n, written);
          for (size_t i = 0; i < written; i++) accepted.insert(all[i]->sequence);
          counted = s.dropped_total;
        }
      } catch (PowerCut) {
        doubtful++;
      }
    }
    CHECK(doubtful > 0);
  }
}

TEST(flashLogRemembersTimesOfBootsAndTheLifeClock) {
  Flash flash;
  for (int boot = 1; boot <= 3; boot++) {
    State s = State();
    FlashLog log(&flash, s, 1024, 4);
    uint64_t life = log.open();
    EQUAL(boot == 1 ? 0ull : 5000ull * static_cast<unsigned>(boot - 1), life);
    Entry e = entryOf(static_cast<uint32_t>(boot));
    e.life_ms = 5000ull * static_cast<unsigned>(boot) - 1;
    Entry *one = &e;
    log.append(&one, 1, 0, 0);
    log.dated(static_cast<uint64_t>(boot), boot * 100, 5000ull * static_cast<unsigned>(boot));
  }
  State s = State();
  FlashLog log(&flash, s, 1024, 4);
  log.open();
  int64_t offset = 0;
  CHECK(log.offsetOf(2, offset));
  EQUAL(200ll, offset);
  CHECK(!log.offsetOf(9, offset));
  EQUAL(1ul, flash.files.size());  // a whole segment is continued after a restart
}
