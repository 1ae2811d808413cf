// Package esp32 carries the Arduino library for the ESP32 inside the program, so that whoever has the program has the
// library. What is C++ and what is Arduino about it, README.md says.
package esp32

import (
	"embed"
	"io/fs"
)

//go:embed library.properties library.json keywords.txt README.md src examples
var files embed.FS

// Library is the library as the Arduino IDE and PlatformIO take it: a folder with these files, to be called PlantOps. The
// tests are not in it.
func Library() fs.FS { return files }
