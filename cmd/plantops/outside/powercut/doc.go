// Package powercut records what the program does to its files and says to its devices, and cuts the power at any point of
// the record. "make torture" runs its long form.
package powercut
