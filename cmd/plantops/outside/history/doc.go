// Package history is what the clients of a broker have seen, and the judgement of it: what was lost, doubled, reordered or
// stale, which wills are false or missing. It knows no broker and no client: the log says all that it judges by.
package history
