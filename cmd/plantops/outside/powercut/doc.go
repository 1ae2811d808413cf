// Package powercut records what the program does to its files and says to its devices, and cuts the power at any point of
// the record. What takes several steps (compaction, migration, backup, restore, import and others) it also ends after each of them,
// with a kill and with a power cut. "make torture" runs its long form.
package powercut
