// Package load is devices that send as many readings as they are told, cheaply, and measure the acknowledgements.
package load
