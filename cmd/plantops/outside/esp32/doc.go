// Package esp32 proves the library for the ESP32 against the real server: fifty devices, built for this machine, that lose
// their Wi-Fi, their power and their time, and a server that is killed and whose storage stalls. What the library
// accepted and did not report as dropped is stored exactly once, at the right time.
//
// Devices and server share a clock that leaps when nothing is on its way, so that days pass in minutes and an age is
// still what it is. "make esp32" runs the long form: seven days, 200 kills, 1,000 cuts.
package esp32
