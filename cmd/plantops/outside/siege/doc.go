// Package siege is a broker under attack: the real program with all its listeners, or another broker as a control, and
// the accounts of attackers and victims.
package siege
