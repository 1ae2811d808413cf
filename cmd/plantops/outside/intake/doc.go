// Package intake imports histories of other programs, made after their published schemas, beside a server at work.
package intake
