// Package program installs the real program in a directory of a test, starts and ends it, runs its commands, and looks at
// its processes from outside. It opens the store of a program that does not run, to make accounts quickly.
package program
