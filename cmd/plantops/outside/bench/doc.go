// Package bench measures the program as a whole, beside mosquitto where that is installed. "make bench" runs it.
package bench
