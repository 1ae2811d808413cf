#pragma once
#include <stddef.h>
class Client {};
namespace BearSSL {
class X509List {
 public:
  explicit X509List(const char *pem);
};
class WiFiClientSecure : public ::Client {
 public:
  void setBufferSizes(int receive, int send);
  void setTrustAnchors(const X509List *);
  int getLastSSLError(char *out = nullptr, size_t bytes = 0);
};
}  // namespace BearSSL
