// Package reload changes configuration, certificates and accounts of the program while others use it. "make torture" runs
// its long form.
package reload
