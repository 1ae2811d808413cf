// Package setting is what holds for all tests from outside: how long they wait, and the environment variables that make
// them longer or repeat their random choices.
package setting
