// Package attack tries on the real program what hostile clients, brokers and files can do. Each test bears the class of
// its attack, V01 to V21, in its name; the table of the classes says which tests defend against which attack.
package attack
