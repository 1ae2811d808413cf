// One MQTT 3.1.1 connection over TCP, in the place of esp-mqtt: what it sends again by itself, and how Wi-Fi fails.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "world.h"

class Wire {
 public:
  enum State { kClosed, kOpening, kGreeting, kUp };

  int fd = -1;
  State state = kClosed;
  bool resends = false;      // as esp-mqtt does by default: after a second, with DUP
  bool swallows = false;     // what is sent gets lost
  bool deaf = false;         // what comes gets lost
  int64_t held_until = 0;    // real time: what is sent arrives later
  unsigned long resent = 0;

  std::vector<uint16_t> acknowledged;  // for the owner to take

  bool quiet() const { return state == kClosed || (state == kUp && flying_.empty() && out_.empty()); }
  bool unsure() const { return !flying_.empty() || !out_.empty(); }
  bool wantsWrite() const { return state == kOpening || (!out_.empty() && realMs() >= held_until); }

  // open connects; false: refused at once.
  bool open(uint16_t port, const std::string &id, const std::string &secret) {
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    state = kOpening;
    swallows = deaf = false;
    held_until = 0;
    in_.clear();
    flying_.clear();
    acknowledged.clear();
    out_ = packet(0x10, text("MQTT") + std::string("\x04\xc2\x00\x3c", 4) + text(id) + text(id) + text(secret));
    if (connect(fd, reinterpret_cast<struct sockaddr *>(&to), sizeof to) == 0 || errno == EINPROGRESS) return true;
    shut();
    return false;
  }

  int publish(const std::string &topic, const std::string &message) {
    if (state != kUp) return -1;
    if (++packet_ == 0) packet_ = 1;
    std::string id = {static_cast<char>(packet_ >> 8), static_cast<char>(packet_)};
    Flight flight = {packet_, realMs(), packet(0x32, text(topic) + id + message)};
    send(flight.bytes);
    flying_.push_back(flight);
    return packet_;
  }

  void publishOnce(const std::string &topic) { send(packet(0x30, text(topic))); }

  // pump moves bytes. false: the connection is over.
  bool pump() {
    if (state == kOpening) {
      int error = 0;
      socklen_t size = sizeof error;
      struct sockaddr_in peer;
      socklen_t peer_size = sizeof peer;
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) return false;
      if (getpeername(fd, reinterpret_cast<struct sockaddr *>(&peer), &peer_size) != 0) return true;
      state = kGreeting;
    }
    return write() && read() && again();
  }

  void shut() {
    if (fd >= 0) close(fd);
    fd = -1;
    state = kClosed;
    flying_.clear();
    out_.clear();
  }

  // part takes the socket away; what the first bytes of it are is sent, in the end. The owner is disconnected.
  int part(size_t keep, std::string &rest) {
    int was = fd;
    rest = swallows ? "" : out_.substr(0, keep);
    fd = -1;
    shut();
    return was;
  }

  // drop takes the half of a packet away that has been sent partly, as a cut does.
  size_t pending() const { return out_.size(); }

 private:
  struct Flight {
    uint16_t id;
    int64_t sent;
    std::string bytes;
  };

  static std::string text(const std::string &s) {
    return std::string({static_cast<char>(s.size() >> 8), static_cast<char>(s.size())}) + s;
  }
  static std::string packet(int type, const std::string &body) {
    std::string out(1, static_cast<char>(type));
    size_t n = body.size();
    do {
      out += static_cast<char>((n % 128) | (n >= 128 ? 128 : 0));
      n /= 128;
    } while (n > 0);
    return out + body;
  }

  void send(const std::string &bytes) {
    if (!swallows) out_ += bytes;
  }

  bool write() {
    while (!out_.empty() && realMs() >= held_until) {
      ssize_t n = ::send(fd, out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
      out_.erase(0, static_cast<size_t>(n));
    }
    return true;
  }

  bool read() {
    char buffer[4096];
    for (;;) {
      ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n == 0) return false;
      if (n < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
        break;
      }
      if (!deaf) in_.append(buffer, static_cast<size_t>(n));
    }
    while (in_.size() >= 4) {  // CONNACK and PUBACK are all that comes
      if (in_[0] == 0x20) {
        if (in_[3] != 0) {
          fprintf(stderr, "refused: CONNACK %d\n", in_[3]);
          return false;
        }
        state = kUp;
      } else if (in_[0] == 0x40) {
        take(static_cast<uint16_t>(static_cast<uint8_t>(in_[2]) << 8 | static_cast<uint8_t>(in_[3])));
      } else {
        fprintf(stderr, "a packet that nobody asked for: 0x%02x\n", static_cast<uint8_t>(in_[0]));
        exit(1);
      }
      in_.erase(0, 4);
    }
    return true;
  }

  void take(uint16_t id) {
    for (size_t i = 0; i < flying_.size(); i++) {
      if (flying_[i].id != id) continue;
      flying_.erase(flying_.begin() + static_cast<long>(i));
      acknowledged.push_back(id);
      return;
    }
  }

  // again is the outbox: once a second the oldest message that is older than a second.
  bool again() {
    int64_t now = realMs();
    if (!resends || state != kUp || flying_.empty() || now - last_resend_ < 1000 || now - flying_[0].sent < 1000) return true;
    last_resend_ = flying_[0].sent = now;
    flying_[0].bytes[0] = 0x3a;
    send(flying_[0].bytes);
    resent++;
    return true;
  }

  std::string in_, out_;
  std::vector<Flight> flying_;
  uint16_t packet_ = 0;
  int64_t last_resend_ = 0;
};
