// Package torture takes the program's storage, its connections and its life away under load, and looks whether what was
// acknowledged is there, once. "make torture" runs its long form.
package torture
