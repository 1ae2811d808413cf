// Package fleet is devices that publish numbered readings over a connection that may be lost at any time and remember
// which were acknowledged, and the comparison of what they know with what is stored.
package fleet
