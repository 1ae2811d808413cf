// Package outside is the home of the tests that know only the outside of the program: its commands, its ports, its files.
// They start the real program, built once for each package of tests, and speak to it as a device, a person or a stranger
// would. Its folders:
//
//	attack    what hostile clients do, by the classes V01 to V22
//	torture   what goes wrong under load: kill -9, storage that stalls, connections that are cut, clients that disturb
//	powercut  what a power cut may leave of the files
//	reload    what a server that runs can be told
//	bench     speed and memory of the whole path
//	esp32     the library in deploy/esp32: devices and server that fail, with a clock that leaps
//
// and what they share: program (an installation and its processes), fleet (devices that remember what was acknowledged),
// load (devices that only send), door (connections that do what they like), siege (a broker under attack) and setting
// (environment variables that make a test longer).
package outside
