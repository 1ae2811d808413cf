// Package oldapi plays what old firmware, scripts and the old front end ask of a server, step by step, against the program: over HTTP and
// MQTT, with the answers that are right.
package oldapi
